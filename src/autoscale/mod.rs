//! Autoscaling hints: load, capacity, and the number of replicas that the load needs.
//!
//! Reads the serving state twice a second and publishes a [`Snapshot`]. Admission reads nothing here. Reading a
//! hint never waits.
//!
//! - [`load`], [`surge`]: the offered load, smoothed, including refused requests, and how soon a change is believed
//! - [`queueing`], [`tail`]: the capacity within the objective, from the service curve
//! - [`learned`], [`contention`], [`host`], [`cpu_limit`], [`estimator`]: what is learned while serving, and the capacity
//!   that follows; `feasibility`: whether there is any
//! - [`missed`]: the bound on it that follows from requests that were refused or late; `published`: what both make
//! - [`demand`]: the demand in replicas
//! - `observer`: the loop that brings these together; `explain`: the same in words
//! - [`recommend`]: recommended settings for scalers
//! - [`orca`]: the load report for load balancers
//!
//! docs/autoscaling.md describes the model and each number.

pub mod contention;
pub mod cpu_limit;
pub mod demand;
pub mod estimator;
mod explain;
mod feasibility;
mod gauges;
pub mod hints;
pub mod host;
pub mod learned;
pub mod load;
mod manifest;
pub mod missed;
mod observer;
pub mod orca;
mod published;
pub mod queueing;
pub mod recommend;
mod settings;
pub mod snapshot;
pub mod surge;
pub mod tail;

pub use hints::Hints;
pub use manifest::manifest;
pub use settings::{HintSettings, Trend};
pub use snapshot::Snapshot;
