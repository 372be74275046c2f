//! The hints: how much is asked, how much this server can do, and how many servers like it that takes.
//!
//! Reads the serving state twice a second and publishes a [`Snapshot`]; nothing here is read by the
//! admission, and reading a hint waits for nobody.
//!
//! - [`load`]: what is asked, refused requests included, smoothed;
//! - [`queueing`], [`tail`]: what a server can do within the objective, by its service curve;
//! - [`learned`], [`host`], [`estimator`]: what is learnt while serving, and the capacity from all of it;
//! - [`demand`]: the demand in replicas;
//! - [`recommend`]: the settings of scalers that follow;
//! - [`orca`]: the load report for load balancers.
//!
//! docs/autoscaling.md has the model and what each number means.

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
pub use settings::{Settings, Trend};
pub use snapshot::Snapshot;
