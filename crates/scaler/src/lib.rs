//! `intentd scaler`: KEDA's external scaler, which reports how many replicas a workload needs.
//!
//! KEDA asks an external scaler for one number for a whole workload. Each replica publishes its own
//! demand; this separate process adds them up:
//!
//! ```text
//! flags, metadata of a trigger
//!      │
//! trigger             what to watch, the target, the thresholds
//!      │
//! registry            one workload for all triggers that watch the same; bounded
//!      │
//! workload            polling tasks: endpoint (DNS), link (HTTP), wake (Prometheus, Kafka)
//!      │  reports
//! tally, view         the sum, and how long it is known; pure
//!      │
//! service             the five calls of KEDA, answered from the view
//! ```
//!
//! It never reports a number that it does not know, and never "inactive" unless it knows that: see
//! `view.rs`. It holds no model and no state but the view, so after a restart it knows as much after one
//! round of polling. `replay.rs` runs the same logic on given responses, without tasks and sockets.

#![forbid(unsafe_code)]

mod certificates;
mod consumer_group;
mod endpoint;
#[cfg(feature = "kafka")]
mod lag;
mod link;
mod metrics;
mod prometheus;
pub mod proto;
mod registry;
mod replay;
mod report;
mod server;
mod service;
mod tally;
mod trigger;
mod view;
mod wake;
mod workload;

pub use self::certificates::Certificates;
pub use self::endpoint::Endpoint;
pub use self::prometheus::{PrometheusUrl, parse_prometheus};
pub use self::replay::{ParsedTrigger, Replay, ReplayRound, ReplayState, parse_trigger};
pub use self::report::DemandReport;
pub use self::server::{Config, Running, ScalerError, start};
pub use self::tally::ReplicaCounts;
pub use self::trigger::Defaults;
pub use self::view::Staleness;
