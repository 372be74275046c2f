//! The HTTP surfaces: decode a request, ask the [`Classifier`], encode the answer.
//!
//! One file a surface. Nothing here knows the engine; nothing below knows HTTP.

mod accept;
mod admin;
mod answer;
mod autoscaling;
mod body;
pub(crate) mod cloudevents;
mod deadline;
mod decode;
mod grpc;
mod identity;
mod inference;
mod json;
mod keys;
mod openapi;
mod orca;
mod predict;
mod refusal;
mod request;
mod tei;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::response::{Redirect, Response};
use axum::routing::{MethodRouter, get, post};
use tokio::sync::watch;
use tokio::time::Instant;
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};

pub use self::body::BodyLimits;
use self::body::{BodyMemory, Held};
use self::cloudevents::Events;
pub use self::cloudevents::record::{
    Message as EventRecord, Place as RecordPlace, Prediction as RecordAnswer,
};
pub use self::cloudevents::{Asked as AskedEvent, EventSettings, EventSource, TextPointer};
pub use self::decode::{
    decode_body, decode_events, decode_inference, decode_inference_message, decode_query,
    decode_record, record_as_request,
};
pub use self::inference::Infer as Inference;
pub use self::inference::grpc::proto as inference_proto;
use self::inference::rest;
pub(crate) use self::json::VALUES_MAX;
pub use self::keys::{Keys, KeysError};
use crate::autoscale::Hints;
use crate::autoscale::orca::OrcaMode;
use crate::error::Refusal;
use crate::metrics::{Surface, TritonMetrics};
use crate::serving::{Classifier, Offer};
use crate::trace::{self, Tracing};
use crate::transport::Life;

/// Loads the model again and uses it from then on, or says why not.
pub type Reload =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>> + Send + Sync>;

/// What the surfaces are to be.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bounds on bodies.
    pub body: BodyLimits,
    /// Time for a request whose client gives it none or more.
    pub request_timeout: Option<Duration>,
    /// Who may ask; anybody when `None`.
    pub keys: Option<Arc<Keys>>,
    /// What the model is called by those who ask for it by name.
    pub model_name: String,
    /// What is done with events.
    pub events: EventSettings,
    /// What is done about traces, if anything.
    pub tracing: Option<Tracing>,
    /// Origins whose pages may read answers; empty for none.
    pub origins: Vec<HeaderValue>,
    /// When answers carry a load report.
    pub orca: OrcaMode,
    /// Where the server's life stands, for answers that last as long as it; for ever when `None`.
    pub life: Option<watch::Receiver<Life>>,
    /// Names of Triton's for our metrics, if they are wanted.
    pub triton: Option<TritonMetrics>,
    /// Whether metrics and hints are on the main port as well.
    pub hints_on_main_port: bool,
    /// The operators' port as it is configured.
    pub admin_port: u16,
}

/// What the routes share.
#[derive(Clone)]
struct Shared {
    classifier: Arc<Classifier>,
    body: Arc<BodyMemory>,
    request_timeout: Option<Duration>,
    keys: Option<Arc<Keys>>,
    model_name: Arc<str>,
    events: Arc<Events>,
    /// Whether somebody wants to know by which surface a request came.
    is_traced: bool,
    life: Option<watch::Receiver<Life>>,
    reload: Option<Reload>,
    hints: Arc<Hints>,
    orca: OrcaMode,
    triton: Option<TritonMetrics>,
    admin_port: u16,
}

/// What serves, and what it says of itself.
pub type Served = (Arc<Classifier>, Arc<Hints>);

impl Shared {
    fn new((classifier, hints): Served, settings: &Settings, reload: Option<Reload>) -> Self {
        let turns = Arc::clone(classifier.turns());
        Self {
            classifier,
            hints,
            orca: settings.orca,
            triton: settings.triton.clone(),
            admin_port: settings.admin_port,
            body: BodyMemory::new(settings.body, turns),
            request_timeout: settings.request_timeout,
            keys: settings.keys.clone(),
            model_name: settings.model_name.as_str().into(),
            events: Events::new(&settings.events),
            is_traced: settings.tracing.is_some(),
            life: settings.life.clone(),
            reload,
        }
    }

    /// Begins a request for predictions: counts it, and refuses it when that can be done at once.
    fn offer(&self, surface: Surface, headers: &HeaderMap) -> Result<Offer<'_>, Refusal> {
        let (timeout, mistake) = match deadline::timeout_of(headers, self.request_timeout) {
            Ok(timeout) => (timeout, None),
            Err(mistake) => (None, Some(mistake)),
        };
        let mut offer = self
            .classifier
            .offer(surface, timeout, identity::try_of(headers));
        if let Err(refusal) = self.authorize(headers) {
            return Err(offer.refuse(refusal));
        }
        if let Some(mistake) = mistake {
            return Err(offer.refuse(mistake));
        }
        // One that is too large is refused as such when it is to be read.
        let length = body::length_of(headers).filter(|length| *length <= self.body.bytes_max());
        match offer.check_early(length) {
            Ok(()) => Ok(offer),
            Err(refusal) => Err(offer.refuse(refusal)),
        }
    }

    /// Reads the body of a request and makes of it what it asks for. A large one waits for its turn in between.
    async fn receive<T>(
        &self,
        offer: &mut Offer<'_>,
        headers: &HeaderMap,
        body: Body,
        decode: impl FnOnce(Bytes) -> Result<T, Refusal>,
    ) -> Result<(T, Held), Refusal> {
        let (body, held) = self.body.read(headers, body, offer.deadline()).await?;
        offer.receive(body.len()).await?;
        let decoded = offer.decode(|| decode(body))?;
        Ok((decoded, held))
    }

    /// When nobody will want the answer to a request that comes now.
    fn deadline(&self, headers: &HeaderMap) -> Option<Instant> {
        let timeout = deadline::timeout_of(headers, self.request_timeout);
        Instant::now().checked_add(timeout.ok().flatten()?)
    }

    /// Ready when the ports close: whatever is open then has to end.
    async fn closing(self) {
        let Some(mut life) = self.life else {
            return std::future::pending().await;
        };
        // An error means that the server is gone.
        let _ = life.wait_for(|life| *life == Life::Closing).await;
    }

    /// Lets traces know by which surface a request came.
    fn name(&self, surface: Surface, mut response: Response) -> Response {
        if self.is_traced {
            response.extensions_mut().insert(surface);
        }
        response
    }

    /// What every answer to a request for predictions over HTTP gets.
    fn finish(&self, surface: Surface, headers: &HeaderMap, response: Response) -> Response {
        self.name(surface, self.with_report(headers, response))
    }

    fn authorize(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        self.keys
            .as_ref()
            .map_or(Ok(()), |keys| keys.check(headers))
    }
}

/// The main port: predictions and health.
pub fn main_routes(served: Served, settings: &Settings) -> Router {
    let shared = Shared::new(served, settings, None);
    let traced = |route: &'static str, handlers: MethodRouter<Shared>| match &settings.tracing {
        Some(tracing) => handlers.layer(axum::middleware::from_fn_with_state(
            (tracing.clone(), route),
            trace::layer,
        )),
        None => handlers,
    };
    let predict = get(predict::get)
        .post(predict::post)
        .fallback(predict_method);
    let home = get(openapi::get_home)
        .post(predict::post)
        .fallback(predict_method);
    let mut routes = Router::new()
        .route("/predict", traced("/predict", predict))
        .route("/", traced("/", home))
        .merge(tei_routes(traced))
        .merge(inference_routes(traced))
        .merge(grpc::routes(&shared, traced))
        .merge(document_routes())
        .merge(health_routes());
    if settings.hints_on_main_port {
        routes = routes.merge(hint_routes());
    }
    let routes = routes
        .fallback(not_found)
        // The limit is our own, so that its refusal speaks like every other.
        .layer(DefaultBodyLimit::disable())
        .with_state(shared);
    if settings.origins.is_empty() {
        routes
    } else {
        routes.layer(cors(&settings.origins))
    }
}

/// The operators' port: metrics, health, and loading the model again.
pub fn admin_routes(served: Served, settings: &Settings, reload: Reload) -> Router {
    let shared = Shared::new(served, settings, Some(reload));
    Router::new()
        .route("/reload", post(admin::reload).fallback(write_method))
        .merge(health_routes())
        .merge(hint_routes())
        .fallback(not_found)
        .with_state(shared)
}

/// What describes all this.
fn document_routes() -> Router<Shared> {
    let to_page = get(async || Redirect::to("/docs/")).fallback(read_method);
    Router::new()
        .route(
            "/openapi.json",
            get(openapi::get_document).fallback(read_method),
        )
        .route("/docs", to_page)
        .route("/docs/", get(openapi::get_page).fallback(read_method))
        .route(
            "/docs/{*file}",
            get(openapi::get_part).fallback(read_method),
        )
}

/// Routes of text-embeddings-inference.
fn tei_routes(
    traced: impl Fn(&'static str, MethodRouter<Shared>) -> MethodRouter<Shared>,
) -> Router<Shared> {
    let invocations = post(tei::invocations).fallback(write_method);
    Router::new()
        .route("/invocations", traced("/invocations", invocations))
        .route(
            "/tokenize",
            traced("/tokenize", post(tei::tokens).fallback(write_method)),
        )
        .route("/info", get(tei::info).fallback(read_method))
        .route("/health", get(tei::health).fallback(read_method))
        .route("/ping", get(tei::health).fallback(read_method))
}

/// Routes of the Open Inference Protocol.
fn inference_routes(
    traced: impl Fn(&'static str, MethodRouter<Shared>) -> MethodRouter<Shared>,
) -> Router<Shared> {
    let mut routes = Router::new()
        .route("/v2", get(rest::server).fallback(read_method))
        .route("/v2/health/live", get(rest::live).fallback(read_method))
        .route("/v2/health/ready", get(rest::ready).fallback(read_method));
    for [model, ready, infer] in [
        [
            "/v2/models/{model}",
            "/v2/models/{model}/ready",
            "/v2/models/{model}/infer",
        ],
        [
            "/v2/models/{model}/versions/{version}",
            "/v2/models/{model}/versions/{version}/ready",
            "/v2/models/{model}/versions/{version}/infer",
        ],
    ] {
        let handler = post(rest::infer).fallback(write_method);
        routes = routes
            .route(model, get(rest::model).fallback(read_method))
            .route(ready, get(rest::model_ready).fallback(read_method))
            .route(infer, traced(infer, handler));
    }
    routes
}

fn health_routes() -> Router<Shared> {
    Router::new()
        .route("/healthz", get(admin::healthz).fallback(read_method))
        .route("/readyz", get(admin::readyz).fallback(read_method))
}

fn hint_routes() -> Router<Shared> {
    let manifest = get(autoscaling::get_manifest).fallback(read_method);
    Router::new()
        .route("/metrics", get(admin::metrics).fallback(read_method))
        .route("/autoscaling", get(autoscaling::get).fallback(read_method))
        .route("/autoscaling/manifest", manifest)
}

fn cors(origins: &[HeaderValue]) -> CorsLayer {
    let any = origins.iter().any(|origin| origin == "*");
    let origins = if any {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().cloned())
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST])
        // Attributes of events are headers, and there is no end of them.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(Any)
}

async fn not_found() -> Refusal {
    Refusal::NotFound
}

fn method_refusal(method: &Method, allowed: &'static str) -> Refusal {
    Refusal::Method {
        method: method.to_string(),
        allowed,
    }
}

async fn predict_method(method: Method) -> Refusal {
    method_refusal(&method, "GET, HEAD, POST")
}

async fn read_method(method: Method) -> Refusal {
    method_refusal(&method, "GET, HEAD")
}

async fn write_method(method: Method) -> Refusal {
    method_refusal(&method, "POST")
}
