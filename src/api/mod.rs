//! The HTTP surfaces: decode a request, ask the [`Classifier`], encode the answer.
//!
//! One file a surface. Nothing here knows the engine; nothing below knows HTTP.

mod accept;
mod admin;
mod autoscaling;
mod body;
mod deadline;
mod identity;
mod keys;
mod orca;
mod predict;
mod refusal;
mod request;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::routing::{get, post};
use tower_http::cors::{AllowOrigin, CorsLayer};

pub use self::body::BodyLimits;
use self::body::BodyMemory;
pub use self::keys::{Keys, KeysError};
use crate::autoscale::Hints;
use crate::autoscale::orca::OrcaMode;
use crate::error::Refusal;
use crate::metrics::TritonMetrics;
use crate::model::Text;
use crate::serving::{Classifier, Offer, Request};
use crate::trace::{self, Tracing};

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
    /// What is done about traces, if anything.
    pub tracing: Option<Tracing>,
    /// Origins whose pages may read answers; empty for none.
    pub origins: Vec<HeaderValue>,
    /// When answers carry a load report.
    pub orca: OrcaMode,
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
        Self {
            classifier,
            hints,
            orca: settings.orca,
            triton: settings.triton.clone(),
            admin_port: settings.admin_port,
            body: BodyMemory::new(settings.body),
            request_timeout: settings.request_timeout,
            keys: settings.keys.clone(),
            reload,
        }
    }

    /// Begins a request for predictions: counts it, and refuses it when that can be done at once.
    fn offer(&self, headers: &HeaderMap) -> Result<Offer<'_>, Refusal> {
        let (timeout, mistake) = match deadline::timeout_of(headers, self.request_timeout) {
            Ok(timeout) => (timeout, None),
            Err(mistake) => (None, Some(mistake)),
        };
        let offer = self.classifier.offer(timeout, identity::try_of(headers));
        if let Err(refusal) = self.authorize(headers) {
            return Err(offer.refuse(refusal));
        }
        if let Some(mistake) = mistake {
            return Err(offer.refuse(mistake));
        }
        match offer.welcome() {
            Ok(()) => Ok(offer),
            Err(refusal) => Err(offer.refuse(refusal)),
        }
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
    let mut predict = get(predict::get)
        .post(predict::post)
        .fallback(predict_method);
    if let Some(tracing) = &settings.tracing {
        let layer = axum::middleware::from_fn_with_state(tracing.clone(), trace::layer);
        predict = predict.layer(layer);
    }
    let mut routes = Router::new()
        .route("/predict", predict)
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
        .route("/reload", post(admin::reload).fallback(reload_method))
        .merge(health_routes())
        .merge(hint_routes())
        .fallback(not_found)
        .with_state(shared)
}

/// What a `POST /predict` with these headers and this body asks for.
///
/// # Errors
/// A body that is encoded, of a type that is not read, or not what its type says; a [`Refusal`]
/// that never repeats the text.
pub fn decode_body(headers: &HeaderMap, body: &[u8]) -> Result<Request, Refusal> {
    request::decode(headers, body).map(|decoded| decoded.request)
}

/// What a `GET /predict` with this query string asks for.
///
/// # Errors
/// [`Refusal::Malformed`] where `query` is missing or stands there twice, `truncate` is neither
/// true nor false, or the text is not UTF-8.
pub fn decode_query(query: &str) -> Result<Request, Refusal> {
    let (text, too_long) =
        request::parameters_of(query.as_bytes(), "the query string", "/predict?query=music")?;
    Ok(Request {
        texts: vec![Text::Single(text)],
        too_long,
    })
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
    let timeout = deadline::HEADER;
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            header::ACCEPT,
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            keys::HEADER,
            orca::FORMAT,
            timeout,
        ])
        .expose_headers([header::RETRY_AFTER, predict::TRUNCATED, orca::REPORT])
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

async fn reload_method(method: Method) -> Refusal {
    method_refusal(&method, "POST")
}
