//! From texts to predictions: admission, tokenizer, queue, batcher, engine, reply.
//!
//! [`Classifier`] is what every surface calls. A request is an [`Offer`] to it: a list of texts gets
//! one prediction a text in the same order or one [`Refusal`](crate::error::Refusal) for the whole
//! list, and is forgotten when the caller drops the future. Bounded by [`Limits`]; never blocks an
//! async thread on the engine.

mod access;
mod admission;
mod arrivals;
mod batcher;
mod calibration;
mod classifier;
mod curve;
mod forecast;
mod generation;
mod health;
mod host;
mod messages;
mod observation;
mod offer;
mod pace;
mod part;
mod plan;
mod predict;
mod queue;
#[cfg(test)]
#[path = "queue/tests.rs"]
mod queue_tests;
mod record;
mod rehearsal;
mod slots;
mod stopped;
mod sync;
mod watchdog;
mod window;

pub use self::arrivals::{Arrivals, Counts, Identity, Try};
pub use self::calibration::{Prior, PriorBatch};
pub(crate) use self::calibration::{batch_of, timed};
pub use self::classifier::{Classifier, Phase, Prepared};
pub(crate) use self::curve::Line;
pub(crate) use self::forecast::{PROMISE, tokens_a_batch};
pub use self::messages::{Limits, ModelCard, Prediction, Predictions, Request};
pub use self::observation::{EngineTime, Observation};
pub use self::offer::Offer;
pub use self::plan::BatchLimits;
pub use self::rehearsal::Rehearsal;
pub use self::stopped::{EngineStopped, ReloadError};
pub use self::window::{Recorder, Summary, Window};
