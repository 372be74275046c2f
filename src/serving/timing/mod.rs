//! The timing of the engine: service curve, calibration, batches in flight.
//!
//! The engine's thread writes. All others read atomics.

mod calibration;
mod curve;
mod effort;
mod engine;
mod pace;
mod prior;
mod sample;

pub(crate) use self::calibration::{CurveSource, TEXT_TOKENS, batch_of, initialize, timed};
pub(crate) use self::curve::ServiceLine;
pub use self::effort::EngineTime;
pub(crate) use self::effort::engine_cpu_time;
pub(crate) use self::engine::{BATCH_SHARE, EngineTiming, tokens_a_batch};
pub(crate) use self::pace::Pace;
pub use self::prior::{Prior, PriorBatch, Quartiles};
pub(crate) use self::sample::{BatchSample, BatchTime};
