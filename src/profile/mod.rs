//! `intentd profile`: how long batches take on this machine, and what one server can do with that.
//!
//! [`measure()`] times batches of many shapes in alternation, and [`Fit`] fits a line to them. [`Outlook`]
//! derives rates for objectives and settings of autoscalers with the queueing model of the hints
//! ([`crate::autoscale`]). [`Profile`] is the file that keeps the measurement, for `intentd serve
//! --profile` and for capacity planning. docs/profile.md describes its format.

#[cfg(feature = "bench")]
mod draw;
mod file;
mod fit;
mod grid;
mod measure;
mod outlook;
mod point;
#[cfg(feature = "bench")]
mod table;

#[cfg(feature = "bench")]
pub use draw::draw;
pub use file::{ModelName, Profile, ProfileError, SCHEMA_VERSION};
pub use fit::Fit;
pub use grid::{Grid, Shape};
pub use measure::measure;
pub use outlook::{LimitedConcurrency, ObjectiveCapacity, Outlook};
pub use point::{Point, SkipReason, Skipped};
#[cfg(feature = "bench")]
pub use table::table;
