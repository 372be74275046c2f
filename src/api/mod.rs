//! HTTP and gRPC: decodes a request, asks the [`Classifier`](crate::serving::Classifier), encodes the answer.
//!
//! Each surface is one file or folder in `surfaces`, and one entry in its list. Nothing here knows the engine; nothing
//! below knows HTTP.

mod accept;
mod admin;
mod answer;
mod autoscaling;
mod body;
mod content;
mod deadline;
mod fallback;
mod identity;
mod json;
mod keys;
mod load_report;
mod openapi;
#[cfg(feature = "swagger-ui")]
mod page;
mod refusal;
mod request;
mod settings;
mod state;
mod surface;
mod surfaces;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, Method};
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};

pub use self::body::BodyLimits;
use self::fallback::not_found;
pub(crate) use self::json::VALUES_MAX;
pub use self::keys::{Keys, KeysError};
pub use self::request::{decode_body, decode_query};
pub use self::settings::{Reload, Served, Settings};
use self::state::ApiState;
use self::surfaces::SURFACES;
#[cfg(feature = "kafka")]
pub(crate) use self::surfaces::cloudevents::EventQuestion;
pub use self::surfaces::cloudevents::{
    AskedEvent, EventRecord, EventSettings, EventSource, RecordAnswer, RecordPlace, TextPointer,
    decode_events, decode_record, record_as_request,
};
pub use self::surfaces::grpc::{decode_inference_message, proto as inference_proto};
pub use self::surfaces::inference::{Inference, decode_inference};

/// The routes of the main port: predictions and health.
pub fn main_routes(served: Served, settings: &Settings) -> Router {
    let state = new_state(served, settings, None);
    let mut routes = Router::new();
    for surface in SURFACES {
        routes = routes.merge(surface.router(&state, settings.tracing.as_ref()));
    }
    routes = routes
        .merge(openapi::routes())
        .merge(admin::health_routes());
    if settings.hints_on_main_port {
        routes = routes.merge(hint_routes());
    }
    let routes = routes
        .fallback(not_found)
        // The limit is ours, so that its refusal has the same form as all others.
        .layer(DefaultBodyLimit::disable())
        .with_state(state);
    if settings.origins.is_empty() {
        routes
    } else {
        routes.layer(cors(&settings.origins))
    }
}

/// The routes of the operators' port: metrics, hints, health, and loading the model again.
pub fn admin_routes(served: Served, settings: &Settings, reload: Reload) -> Router {
    let state = new_state(served, settings, Some(reload));
    admin::reload_routes()
        .merge(admin::health_routes())
        .merge(hint_routes())
        .fallback(not_found)
        .with_state(state)
}

/// The state of a port. The metrics then have a series for each surface.
fn new_state(served: Served, settings: &Settings, reload: Option<Reload>) -> ApiState {
    let state = ApiState::new(served, settings, reload);
    for surface in SURFACES {
        state.classifier.metrics().declare(surface.label);
    }
    state
}

fn hint_routes() -> Router<ApiState> {
    admin::metrics_routes().merge(autoscaling::routes())
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
        // The attributes of events are headers with any name.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(Any)
}
