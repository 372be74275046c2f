//! The engine's thread: takes batches from the queue, runs them, and sends the replies.

mod batch;
mod batcher;
mod health;
mod pipeline;
mod progress;

pub(crate) use self::batcher::Batcher;
pub(crate) use self::pipeline::Pipeline;
