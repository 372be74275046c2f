//! From texts to predictions: admission, tokenizer, queue, batches, engine, replies.
//!
//! Every surface calls [`Classifier`]. A request is an [`Offer`] to it: a list of texts gets one
//! prediction per text in the same order, or one [`Refusal`](crate::error::Refusal) for the whole list.
//! Dropping the future cancels the request. Bounded by [`Limits`]. Never blocks an async thread on the
//! engine.
//!
//! Each folder depends only on those before it in this list:
//!
//! - `account`: counts requests and their outcomes, each once
//! - `timing`: service curve, calibration, busy time of the engine
//! - `queue`: slots, waiting texts, selection of a batch
//! - `admission`: permits, forecast, the decision
//! - `batching`: the engine's thread
//! - `lifecycle`: loading, reloads, hung engines, shutdown
//!
//! The files of this folder combine them.

mod account;
mod admission;
mod batching;
mod classifier;
mod lifecycle;
mod limits;
mod observation;
mod offer;
mod predict;
mod queue;
mod request;
mod timing;

pub use self::account::{
    Arrivals, Attempt, Counts, Identity, LatencySummary, LatencyWindow, Recorder,
};
pub use self::admission::ByteCost;
pub(crate) use self::admission::PROMISE;
pub use self::classifier::Classifier;
pub use self::lifecycle::{EngineStopped, Phase, Prepared, ReloadError};
pub use self::limits::Limits;
pub use self::observation::Observation;
pub use self::offer::Offer;
pub use self::queue::BatchLimits;
pub use self::request::{ModelCard, Prediction, Predictions, Request};
pub(crate) use self::timing::{
    BatchSample, BatchTime, ServiceLine, batch_of, timed, tokens_a_batch,
};
pub use self::timing::{EngineTime, Prior, PriorBatch, Quartiles};
