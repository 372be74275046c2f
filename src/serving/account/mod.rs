//! The account of requests: each arrival and outcome is counted once, for metrics and hints.

mod arrivals;
mod ledger;
mod retries;
mod window;

pub use self::arrivals::{Arrivals, Counts};
pub(crate) use self::ledger::{Latency, LedgerEntry, RequestLedger};
pub use self::retries::{Attempt, Identity};
pub use self::window::{LatencySummary, LatencyWindow, Recorder};
