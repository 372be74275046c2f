//! `intentd profile`: how long batches take on this machine, and what one server can do with that.
//!
//! Batches of many shapes are measured by turns ([`measure()`]), a line is laid through them ([`Fit`]), and
//! the model of the hints ([`crate::autoscale`]) says what follows for objectives and for settings of
//! scalers ([`Outlook`]). [`Profile`] is what is kept of it in a file, for `intentd serve --profile` and
//! for whoever plans a fleet. docs/profile.md has the form of the file.

mod draw;
mod file;
mod fit;
mod grid;
mod measure;
mod outlook;
mod table;

pub use draw::draw;
pub use file::{ModelName, Point, Profile, ProfileError, Reason, SCHEMA_VERSION, Skipped};
pub use fit::Fit;
pub use grid::{Grid, Shape};
pub use measure::measure;
pub use outlook::{Limited, Outlook, Promise};
pub use table::table;
