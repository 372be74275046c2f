//! The engine's thread: batches out of the queue, through the engine, into the replies.

mod batch;
mod batcher;
mod health;
mod pipeline;
mod progress;

pub(crate) use self::batcher::Batcher;
pub(crate) use self::pipeline::Pipeline;
