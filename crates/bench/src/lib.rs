//! `intentd bench`: open-loop load for any HTTP server that classifies texts.
//!
//! Every request has a send time that is fixed in advance ([`Load`]). It is sent then, whether or not
//! earlier requests have been answered, and its latency counts from that time, not from when a
//! connection was free. A server that stalls is therefore charged for every request that was due
//! meanwhile. Measuring otherwise is known as coordinated omission (Tene, "How NOT to measure latency",
//! 2013).
//!
//! A request without a 2xx answer in time counts as a failure and has no latency. An objective holds
//! only while failures and late answers together stay within its allowance ([`Measured::holds`]).

#![forbid(unsafe_code)]

mod answer;
mod compare;
mod connection;
mod cpu;
mod draw;
mod json;
mod load;
mod measured;
mod median;
pub mod plot;
mod ratio;
mod report;
mod request;
mod run;
mod search;
mod table;
mod target;
mod texts;
mod timer;
mod workers;

pub use answer::{Expected, label_of};
pub use compare::{Plan, measure};
pub use draw::draw;
pub use load::{Load, Loads};
pub use measured::{Interval, Measured, Objective};
pub use report::{Report, Round, Run, Series};
pub use run::{Options, Runner};
pub use search::{Search, Step};
pub use table::aligned;
pub use target::{Protocol, Target};
pub use texts::{TextsError, parse_texts, read_texts};
