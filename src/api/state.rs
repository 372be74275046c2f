//! The state that all routes share, and the steps that requests for predictions have in common.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::response::Response;
use tokio::sync::watch;
use tokio::time::Instant;

use super::body::{BodyMemory, BodyReservation, content_length};
use super::keys::Keys;
use super::load_report::LoadReporter;
use super::settings::{Reload, Served, Settings};
use super::surfaces::cloudevents::EventContext;
use super::{deadline, identity};
use crate::autoscale::Hints;
use crate::error::Refusal;
use crate::metrics::{SurfaceLabel, TritonMetrics};
use crate::serving::{Classifier, Offer};
use crate::transport::Life;

/// The state of the routes of one port.
#[derive(Clone)]
pub(super) struct ApiState {
    pub(super) classifier: Arc<Classifier>,
    pub(super) hints: Arc<Hints>,
    pub(super) bodies: Arc<BodyMemory>,
    pub(super) model_name: Arc<str>,
    pub(super) events: Arc<EventContext>,
    pub(super) load_reports: LoadReporter,
    pub(super) triton: Option<TritonMetrics>,
    /// Loads the model again; only on the operators' port.
    pub(super) reload: Option<Reload>,
    pub(super) admin_port: u16,
    request_timeout: Option<Duration>,
    keys: Option<Arc<Keys>>,
    /// Whether spans need to know the surface of a request.
    is_traced: bool,
    life: Option<watch::Receiver<Life>>,
}

impl ApiState {
    pub(super) fn new(
        (classifier, hints): Served,
        settings: &Settings,
        reload: Option<Reload>,
    ) -> Self {
        let turns = Arc::clone(classifier.turns());
        Self {
            classifier,
            bodies: BodyMemory::new(settings.body, turns),
            model_name: settings.model_name.as_str().into(),
            events: EventContext::new(&settings.events),
            load_reports: LoadReporter::new(Arc::clone(&hints), settings.orca),
            hints,
            triton: settings.triton.clone(),
            reload,
            admin_port: settings.admin_port,
            request_timeout: settings.request_timeout,
            keys: settings.keys.clone(),
            is_traced: settings.tracing.is_some(),
            life: settings.life.clone(),
        }
    }

    /// Begins a request for predictions: counts it, and refuses it if its head is enough to do so.
    pub(super) fn offer(
        &self,
        surface: SurfaceLabel,
        headers: &HeaderMap,
    ) -> Result<Offer<'_>, Refusal> {
        let (timeout, mistake) = match deadline::timeout_of(headers, self.request_timeout) {
            Ok(timeout) => (timeout, None),
            Err(mistake) => (None, Some(mistake)),
        };
        let mut offer = self
            .classifier
            .offer(surface, timeout, identity::attempt_of(headers));
        if let Err(refusal) = self.authorize(headers) {
            return Err(offer.refuse(refusal));
        }
        if let Some(mistake) = mistake {
            return Err(offer.refuse(mistake));
        }
        // A body above the limit is refused as too large when it is to be read.
        let length = content_length(headers).filter(|length| *length <= self.bodies.bytes_max());
        match offer.check_early(length) {
            Ok(()) => Ok(offer),
            Err(refusal) => Err(offer.refuse(refusal)),
        }
    }

    /// Reads the body of a request and decodes it. A large body waits for its turn in between.
    pub(super) async fn receive<T>(
        &self,
        offer: &mut Offer<'_>,
        headers: &HeaderMap,
        body: Body,
        decode: impl FnOnce(Bytes) -> Result<T, Refusal>,
    ) -> Result<(T, BodyReservation), Refusal> {
        let (body, reservation) = self.bodies.read(headers, body, offer.deadline()).await?;
        offer.receive(body.len()).await?;
        let decoded = offer.decode(|| decode(body))?;
        Ok((decoded, reservation))
    }

    /// The deadline of a request that arrives now.
    pub(super) fn deadline(&self, headers: &HeaderMap) -> Option<Instant> {
        let timeout = deadline::timeout_of(headers, self.request_timeout);
        Instant::now().checked_add(timeout.ok().flatten()?)
    }

    /// Completes when the ports close; whatever is still open then has to end.
    pub(super) async fn closing(self) {
        let Some(mut life) = self.life else {
            return std::future::pending().await;
        };
        // An error means that the server is gone.
        let _ = life.wait_for(|life| *life == Life::Closing).await;
    }

    /// Tells the tracing layer by which surface a request came.
    pub(super) fn with_surface(&self, surface: SurfaceLabel, mut response: Response) -> Response {
        if self.is_traced {
            response.extensions_mut().insert(surface);
        }
        response
    }

    /// Adds what every HTTP answer to a request for predictions carries.
    pub(super) fn finish(
        &self,
        surface: SurfaceLabel,
        headers: &HeaderMap,
        response: Response,
    ) -> Response {
        self.with_surface(surface, self.load_reports.attach(headers, response))
    }

    /// Checks the request's key, if the server has keys.
    pub(super) fn authorize(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        self.keys
            .as_ref()
            .map_or(Ok(()), |keys| keys.check(headers))
    }
}
