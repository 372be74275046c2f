//! How long the engine takes: the service curve, its calibration, and the batches under way.
//!
//! The engine's thread writes, everybody else reads atomics.

mod calibration;
mod curve;
mod effort;
mod engine;
mod pace;
mod prior;

pub(crate) use self::calibration::{Start, TEXT_TOKENS, batch_of, begin, timed};
pub(crate) use self::curve::Line;
pub use self::effort::EngineTime;
pub(crate) use self::effort::thread_time;
pub(crate) use self::engine::{BATCH_SHARE, EngineTiming, tokens_a_batch};
pub(crate) use self::pace::Pace;
pub use self::prior::{Prior, PriorBatch};
