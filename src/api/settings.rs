//! The settings of the HTTP and gRPC surfaces.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use tokio::sync::watch;

use super::body::BodyLimits;
use super::keys::Keys;
use super::surfaces::cloudevents::EventSettings;
use crate::autoscale::Hints;
use crate::autoscale::orca::OrcaMode;
use crate::error::Refusal;
use crate::metrics::TritonMetrics;
use crate::serving::Classifier;
use crate::trace::Tracing;
use crate::transport::Life;

/// Loads the model again and puts it into use, or says why that failed.
pub type Reload =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>> + Send + Sync>;

/// The classifier that serves, and the hints that describe its load.
pub type Served = (Arc<Classifier>, Arc<Hints>);

/// Settings of the surfaces.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bounds on bodies.
    pub body: BodyLimits,
    /// The longest time a request may take, and the time of a request that asks for none.
    pub request_timeout: Option<Duration>,
    /// Keys of clients; `None` admits everybody.
    pub keys: Option<Arc<Keys>>,
    /// The model's name in protocols where clients name a model.
    pub model_name: String,
    /// How events are read and answered.
    pub events: EventSettings,
    /// How requests are traced, if they are.
    pub tracing: Option<Tracing>,
    /// Origins whose pages may read answers (CORS); empty for none.
    pub origins: Vec<HeaderValue>,
    /// When answers carry a load report.
    pub orca: OrcaMode,
    /// The phase of the server's life, for streams that last until its ports close; `None` when it never ends.
    pub life: Option<watch::Receiver<Life>>,
    /// Triton's names for our metrics, if they are published.
    pub triton: Option<TritonMetrics>,
    /// Whether the main port also serves metrics and hints.
    pub hints_on_main_port: bool,
    /// The configured number of the operators' port.
    pub admin_port: u16,
}
