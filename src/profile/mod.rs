//! `intentd profile`: how long batches take on this machine, and what one server can do with that.
//!
//! [`measure()`] times batches of many shapes in alternation, and [`Fit`] fits a line to them. [`Outlook`]
//! derives rates for objectives and settings of autoscalers with the queueing model of the hints
//! ([`crate::autoscale`]). [`Profile`] is the file that keeps the measurement, for `intentd serve
//! --profile` and for capacity planning. docs/profile.md describes its format.

mod draw;
mod file;
mod fit;
mod grid;
mod measure;
mod outlook;
mod point;
mod table;

pub use draw::draw;
pub use file::{ModelName, Profile, ProfileError, SCHEMA_VERSION};
pub use fit::Fit;
pub use grid::{Grid, Shape};
pub use measure::measure;
pub use outlook::{LimitedConcurrency, ObjectiveCapacity, Outlook};
pub use point::{Point, SkipReason, Skipped};
pub use table::table;
