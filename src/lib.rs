//! intentd: a BERT intent detection server that tells the autoscaler the truth.
//!
//! The path of a request, in one direction, one module for each stage:
//!
//! ```text
//! curl /predict           a Kafka topic
//!      │                       │
//! transport               kafka    a consumer group; offsets are committed once records are finished
//! sockets, TLS, HTTP           │
//!      │                       │
//! api                 decodes requests, refuses malformed ones; one file for each surface
//!      │  texts
//! serving::offer      admits or refuses by limits and forecast, before any work
//!      │
//! model::tokenizer    text -> token ids, on the task of the request
//!      │  ids, reply slot
//! serving::queue      waiting texts, oldest first within their class
//!      │
//! serving::batching   once the engine is free: all waiting texts, within the limits
//!      │  ragged batch
//! engine              ids -> logits, without padding; cpu | cuda
//!      │  logits
//! model::labels       scores and label
//!      │
//! api                 text/html for curl, JSON
//! ```
//!
//! `autoscale` derives hints from the arrivals and the duration of batches, without delaying requests.
//! `scaler` is a separate process that sums the hints of many servers.
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

pub mod cli;
pub mod profile;

pub mod config;
pub mod error;
pub mod metrics;
pub mod server;

pub mod api;
pub mod kafka;

pub mod serving;

pub mod autoscale;

pub mod trace;

#[cfg(feature = "bench")]
pub use intentd_bench as bench;
pub use intentd_engine as engine;
pub use intentd_model as model;
#[cfg(feature = "scaler")]
pub use intentd_scaler as scaler;
#[cfg(feature = "train")]
pub use intentd_train as train;
pub use intentd_transport as transport;
