//! `intentd bench`: open-loop load for any HTTP server that answers texts.
//!
//! Requests are sent at times that are fixed beforehand ([`Load`]), whether or not earlier ones
//! have been answered, and a latency counts from that time and not from when a connection was
//! free. So a server that stalls is charged for everybody who would have come meanwhile; the
//! opposite is known as coordinated omission (Tene, "How NOT to measure latency", 2013).
//!
//! What is not answered with 2xx in time is no latency but a failure, and an objective is held
//! only when failures and late answers together stay within what it allows ([`Measured::holds`]).

mod answer;
mod clock;
mod compare;
mod connection;
mod crew;
mod draw;
mod load;
mod measured;
mod ratio;
mod report;
mod run;
mod search;
mod target;
mod texts;

pub use answer::{Expected, label_of};
pub use compare::{Plan, measure};
pub use draw::draw;
pub use load::{Load, Loads};
pub use measured::{Interval, Measured, Objective};
pub(crate) use report::aligned;
pub use report::{Report, Round, Run, Series};
pub use run::{Options, Runner};
pub use search::{Search, Step};
pub use target::{Protocol, Target};
pub use texts::{TextsError, parse_texts, read_texts};
