//! From texts to predictions: admission, tokenizer, queue, batches, engine, replies.
//!
//! [`Classifier`] is what every surface calls. A request is an [`Offer`] to it: a list of texts gets
//! one prediction a text in the same order or one [`Refusal`](crate::error::Refusal) for the whole
//! list, and is forgotten when the caller drops the future. Bounded by [`Limits`]; never blocks an
//! async thread on the engine.
//!
//! Each folder knows only those before it in this list:
//!
//! - [`account`]: what becomes of requests, counted once
//! - [`timing`]: how long the engine takes
//! - [`queue`]: slots, waiting texts, which of them make a batch
//! - [`admission`]: permits, forecast, the decision
//! - [`batching`]: the engine's thread
//! - [`lifecycle`]: loading, reloads, an engine that hangs, the end
//!
//! The files of this folder put them together.

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

pub use self::account::{Arrivals, Counts, Identity, Recorder, Summary, Try, Window};
pub(crate) use self::admission::PROMISE;
pub use self::classifier::Classifier;
pub use self::lifecycle::{EngineStopped, Phase, Prepared, ReloadError};
pub use self::limits::Limits;
pub use self::observation::Observation;
pub use self::offer::Offer;
pub use self::queue::BatchLimits;
pub use self::request::{ModelCard, Prediction, Predictions, Request};
pub use self::timing::{EngineTime, Prior, PriorBatch};
pub(crate) use self::timing::{Line, batch_of, timed, tokens_a_batch};
