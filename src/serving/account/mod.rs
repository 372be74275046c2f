//! What becomes of requests, counted once: for the metrics that people look at and for the hints.

mod arrivals;
mod ledger;
mod retries;
mod window;

pub use self::arrivals::{Arrivals, Counts};
pub(crate) use self::ledger::{Entry, Latency, Ledger};
pub use self::retries::{Identity, Try};
pub use self::window::{Recorder, Summary, Window};
