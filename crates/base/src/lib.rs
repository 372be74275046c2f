//! What the other packages stand on: [`atomic`] cells, [`input`] from files of others, [`LogThrottle`] for log lines
//! whose number others control, [`turns`] for work that keeps a thread busy, [`threads`] of an engine.
#![forbid(unsafe_code)]

pub mod atomic;
pub mod input;
mod log_throttle;
mod quote;
pub mod threads;
pub mod turns;

pub use self::log_throttle::LogThrottle;
pub use self::quote::shown;

/// The message for Kafka settings in a build without Kafka.
pub const NO_KAFKA: &str = "Kafka: this program was built without it; build it with cargo build --release --features kafka";
