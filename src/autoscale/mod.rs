//! Autoscaling hints: load, capacity, and the number of replicas that the load needs.
//!
//! Reads the serving state twice a second and publishes a [`Snapshot`]. Admission reads nothing here. Reading a
//! hint never waits.
//!
//! - [`load`]: the offered load, smoothed, including refused requests
//! - [`queueing`], [`tail`]: the capacity within the objective, from the service curve
//! - [`learned`], [`host`], [`estimator`]: what is learned while serving, and the capacity that follows
//! - [`demand`]: the demand in replicas
//! - [`recommend`]: recommended settings for scalers
//! - [`orca`]: the load report for load balancers
//!
//! docs/autoscaling.md describes the model and each number.

pub mod demand;
pub mod estimator;
mod gauges;
pub mod hints;
pub mod host;
pub mod learned;
pub mod load;
mod manifest;
pub mod orca;
pub mod queueing;
pub mod recommend;
mod settings;
pub mod snapshot;
pub mod tail;

pub use hints::Hints;
pub use manifest::manifest;
pub use settings::{HintSettings, Trend};
pub use snapshot::Snapshot;
