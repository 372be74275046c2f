//! A twin of a classifier, with its engine but with counters of its own: what requests cost beside the engine
//! can be measured with it before there are any.

use std::sync::Arc;

use super::batcher::Batcher;
use super::classifier::{Classifier, Phase};
use super::generation::Generation;
use super::messages::Limits;
use super::stopped::EngineStopped;
use crate::metrics::Metrics;

/// What is done with a twin before the first model is used; on a thread of its own.
#[derive(Clone)]
pub struct Rehearsal(pub Arc<Asks>);

/// Asks a classifier, and waits for the answers.
pub(super) type Asks = dyn Fn(&Arc<Classifier>) + Send + Sync;

impl std::fmt::Debug for Rehearsal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rehearsal")
    }
}

/// Batches of so many tokens are what a rehearsal is made of.
const TOKENS: f64 = 1024.0;

/// Where such a batch takes longer, in seconds, what requests cost beside it does not matter.
const BATCH_MAX: f64 = 0.02;

/// Lets `rehearsal` ask a twin of `generation`, which gets the engine of `batcher` for as long; and gives the
/// batcher back as it was.
///
/// # Errors
/// When that is the end of the engine.
pub(super) fn rehearse(
    rehearsal: &Rehearsal,
    generation: &Arc<Generation>,
    batcher: Batcher,
    (limits, metrics): (&Limits, &Metrics),
) -> Result<Batcher, EngineStopped> {
    let line = generation.shared.forecast.curve.line();
    if line.seconds(1.0, TOKENS) > BATCH_MAX {
        return Ok(batcher);
    }
    let twin_limits = Limits {
        // Nothing is to be refused.
        slo: std::time::Duration::ZERO,
        concurrency_max: None,
        queue_max: None,
        ..limits.clone()
    };
    let (twin, _) = Classifier::new(twin_limits, Metrics::new());
    let (like, mut twin_batcher) = generation.like(batcher.into_engine(), &twin);
    twin.use_model(like);
    twin.enter(Phase::Ready);
    let asks = rehearsal.clone();
    // By its name its time is known not to be the host's.
    let thread = std::thread::Builder::new().name("rehearsal".to_owned());
    let asking = thread.spawn(move || {
        // Ends the loop below however the asking ends.
        let _closes = Closes(Arc::clone(&twin));
        (asks.0)(&twin);
    });
    match asking {
        Ok(asking) => {
            // The engine stays on its thread: a device's context belongs to it.
            twin_batcher.run()?;
            if asking.join().is_err() {
                tracing::warn!("what requests cost beside the engine could not be measured");
            }
        }
        Err(error) => tracing::warn!(%error, "no thread to measure the cost of requests with"),
    }
    Ok(generation.batcher(twin_batcher.into_engine(), limits, metrics))
}

struct Closes(Arc<Classifier>);

impl Drop for Closes {
    fn drop(&mut self) {
        self.0.close();
    }
}
