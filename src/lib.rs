//! intentd: a BERT intent detection server that tells the autoscaler the truth.
//!
//! The way of a request, one direction, one module a stage:
//!
//! ```text
//! curl /predict           a topic of Kafka
//!      │                       │
//! transport               events   a member of its group; what is not finished is not committed
//! sockets, TLS, HTTP           │
//!      │                       │
//! api                 decode, refuse what is malformed; one file a surface
//!      │  texts
//! serving::offer      let in, by limits and forecast, or refused, before any work
//!      │
//! model::tokenizer    text -> token ids, on the caller's task
//!      │  ids, reply slot
//! serving::queue      waiting texts, oldest first within their class
//!      │
//! serving::batcher    when the engine can take work: everything that waits, within the limits
//!      │  ragged batch
//! engine              ids -> logits, nothing computed for padding; cpu | cuda
//!      │  logits
//! model::labels       scores and label
//!      │
//! api                 text/html for curl, JSON
//! ```
//!
//! Beside it, and never in its way: `autoscale` makes hints of what has come and of what batches took, and
//! `scaler`, a process of its own, adds up those of many servers.
#![forbid(unsafe_code)]

#[cfg(any(
    all(feature = "cuda", feature = "cuda-12"),
    all(feature = "cuda", feature = "candle-cuda"),
    all(feature = "cuda-12", feature = "candle-cuda"),
))]
compile_error!(
    "take one of the features cuda, cuda-12 and candle-cuda: they link the libraries of CUDA in \
     different ways"
);

pub mod bench;
pub mod cli;
pub mod plot;
pub mod profile;
pub mod scaler;
pub mod train;

pub mod config;
pub mod error;
pub mod metrics;
pub mod server;

pub mod api;
pub mod events;

pub mod serving;

pub mod autoscale;

pub mod trace;
pub mod transport;

pub mod model;

pub mod engine;

mod atomic;
mod input;
mod log_throttle;
mod turns;
