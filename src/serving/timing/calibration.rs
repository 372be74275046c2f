//! The service curve before the first request: from batches measured at the start, or from a profile of
//! this model on this kind of machine (`intentd profile`).

use std::time::{Duration, Instant};

use super::effort::engine_cpu_time;
use super::engine::EngineTiming;
use super::prior::{Prior, PriorBatch, Quartiles};
use super::sample::BatchTime;
use crate::engine::{Engine, EngineError, RaggedBatch};
use crate::model::{Checkpoint, Text, Tokenizer, TooLong};

/// Tokens of a measured text: a short question.
pub(crate) const TEXT_TOKENS: usize = 16;

/// Texts in the largest measured batch. It is large because a GPU takes as long for one text as for a dozen.
const TEXTS_MAX: usize = 256;

/// Time for one batch size, and for all.
const SIZE: Duration = Duration::from_millis(5);
const ALL: Duration = Duration::from_millis(200);

/// A batch runs at least this often, unless that takes longer than `SLOW`. The first run of a size allocates
/// memory and wakes threads.
const RUNS: usize = 3;
const SLOW: Duration = Duration::from_millis(40);

/// Longer batches tell nothing new and would delay the start.
const LONG: Duration = Duration::from_millis(5);

/// A profile holds if batches take at most this factor more or less than it says.
const TOLERANCE: f64 = 1.25;

/// Batches that check a profile take at most this long, if possible.
const CHECK: Duration = Duration::from_millis(1);

/// The source of a model's first service curve.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CurveSource<'a> {
    /// A profile, used instead of measuring if it holds.
    pub(crate) prior: Option<&'a Prior>,
    /// Whether batches may run, to measure or to check a profile.
    pub(crate) calibrate: bool,
}

/// Initializes the service curves of a loaded model: from the profile if it holds, else by measuring, unless that
/// is off.
///
/// # Errors
/// [`EngineError::Lost`] if the first batches lose the engine.
pub(crate) fn initialize(
    engine: &mut dyn Engine,
    checkpoint: &Checkpoint,
    source: CurveSource<'_>,
    timing: &EngineTiming,
) -> Result<(), EngineError> {
    let start = Instant::now();
    let CurveSource { prior, calibrate } = source;
    let tokenizer = &checkpoint.tokenizer;
    let mut by = "measured batches";
    match prior {
        Some(prior) => match mismatch(prior, engine, checkpoint, calibrate)? {
            None => {
                timing.begin(prior);
                by = "the profile";
            }
            Some(why) => {
                let profile = &prior.name;
                tracing::warn!(profile, "the profile is not used (--profile): {why}");
                if calibrate {
                    measure(engine, tokenizer, timing)?;
                }
            }
        },
        None if calibrate => measure(engine, tokenizer, timing)?,
        None => {}
    }
    let curve = &timing.curve;
    if curve.batches() > 0 {
        let line = curve.line();
        tracing::info!(
            took = ?start.elapsed(),
            batches = curve.batches(),
            batch_us = (line.setup * 1e6).round(),
            token_us = (line.token * 1e8).round() / 1e2,
            "service curve known by {by}"
        );
    }
    Ok(())
}

/// Why the profile does not hold here; `None` if it holds.
fn mismatch(
    prior: &Prior,
    engine: &mut dyn Engine,
    checkpoint: &Checkpoint,
    is_checked: bool,
) -> Result<Option<String>, EngineError> {
    let here = engine.description();
    if prior.engine != here {
        return Ok(Some(format!(
            "it is of the engine {:?}, this one is {here:?}",
            prior.engine
        )));
    }
    match checkpoint.digest() {
        Ok(digest) if digest == prior.model => {}
        Ok(digest) => {
            let (profile, here) = (short(&prior.model), short(&digest));
            return Ok(Some(format!(
                "it is of another model ({profile}, this one is {here})"
            )));
        }
        Err(error) => return Ok(Some(error.to_string())),
    }
    if is_checked {
        check_times(prior, engine, &checkpoint.tokenizer)
    } else {
        Ok(None)
    }
}

fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}

/// Checks a profile's times: runs its smallest batch, and the largest that is still short.
fn check_times(
    prior: &Prior,
    engine: &mut dyn Engine,
    tokenizer: &Tokenizer,
) -> Result<Option<String>, EngineError> {
    let largest = engine.largest();
    let fits = |batch: &&PriorBatch| {
        !largest.is_some_and(|max| max.tokens < batch.total() || max.sequences < batch.texts)
    };
    let batches = || prior.batches.iter().filter(fits);
    let smallest = batches().min_by_key(|batch| batch.total());
    let is_short = |batch: &&PriorBatch| batch.took <= CHECK.as_secs_f64();
    let other = batches().filter(is_short).max_by_key(|batch| batch.total());
    let other = other.filter(|other| Some(*other) != smallest);
    for known in smallest.into_iter().chain(other) {
        let batch = batch_of(tokenizer, known.tokens, known.texts);
        let times = match times(engine, &batch) {
            Ok(times) => times,
            Err(error @ EngineError::Lost(_)) => return Err(error),
            Err(error) => return Ok(Some(error.to_string())),
        };
        let median = times[times.len() / 2].took.as_secs_f64();
        let Quartiles { first, third } = known.quartiles;
        // Other load on the machine makes batches slower, never faster.
        let is_slower = times[0].took.as_secs_f64() > TOLERANCE * third;
        if is_slower || median * TOLERANCE < first {
            return Ok(Some(format!(
                "{} texts of {} tokens took {:.3} ms, by the profile {:.3} ms",
                known.texts,
                known.tokens,
                median * 1e3,
                known.took * 1e3
            )));
        }
    }
    Ok(None)
}

/// Measures a few batches, so that the first requests are admitted by the engine's real speed.
///
/// One size cannot separate the cost of a batch from the cost of a token. A slow model therefore gets a second
/// size that is closer to the first. Sizes that would take too long are left out.
fn measure(
    engine: &mut dyn Engine,
    tokenizer: &Tokenizer,
    timing: &EngineTiming,
) -> Result<(), EngineError> {
    let start = Instant::now();
    let largest = engine.largest();
    let (mut texts, mut sizes) = (1, 0);
    while texts <= TEXTS_MAX {
        let batch = batch_of(tokenizer, TEXT_TOKENS, texts);
        let tokens = batch.tokens();
        if largest.is_some_and(|largest| largest.tokens < tokens || largest.sequences < texts) {
            return Ok(());
        }
        let times = match times(engine, &batch) {
            Ok(times) => times,
            // If the device has too little memory, it will report that again when it matters.
            Err(EngineError::OutOfMemory { .. }) => return Ok(()),
            Err(error @ EngineError::Lost(_)) => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "calibration ended early");
                return Ok(());
            }
        };
        // The median, or the shorter of two: what a batch takes on this machine now.
        let took = times[(times.len() - 1) / 2].took;
        // The shortest: what it takes the engine. Disturbances, such as servers that start beside this one, make it
        // longer.
        let spent = times.iter().map(|time| time.spent).min();
        timing.curve.observe(tokens, took);
        timing.effort.observe(tokens, took, spent, Duration::ZERO);
        sizes += 1;
        // A batch with n times as many texts takes at most n times as long.
        let left = ALL.saturating_sub(start.elapsed());
        let fits = |times: u32| times * took + SIZE <= left;
        texts *= match sizes {
            1 if fits(4) => 4,
            1 if fits(2) => 2,
            _ if fits(4) && 4 * took <= LONG => 4,
            _ => return Ok(()),
        };
    }
    Ok(())
}

/// The times of repeated runs of a batch, shortest first. At least one run.
fn times(engine: &mut dyn Engine, batch: &RaggedBatch) -> Result<Vec<BatchTime>, EngineError> {
    let start = Instant::now();
    let mut times = Vec::new();
    let goes_on = |runs: usize| match start.elapsed() {
        elapsed if elapsed < SIZE => true,
        elapsed => runs == 0 || (runs < RUNS && elapsed < SLOW),
    };
    while goes_on(times.len()) {
        times.push(timed(engine, batch)?);
    }
    times.sort_unstable();
    Ok(times)
}

/// Runs a batch and measures its times.
///
/// # Errors
/// See [`EngineError`].
pub(crate) fn timed(
    engine: &mut dyn Engine,
    batch: &RaggedBatch,
) -> Result<BatchTime, EngineError> {
    let thread = engine_cpu_time(engine);
    let since = Instant::now();
    engine.forward(batch)?;
    let took = since.elapsed();
    let ran = engine_cpu_time(engine).zip(thread);
    let ran = ran.map(|(after, before)| after.saturating_sub(before));
    Ok(BatchTime {
        took,
        spent: ran.unwrap_or(took),
    })
}

/// A batch of `texts` equal texts of about `tokens` tokens each.
pub(crate) fn batch_of(tokenizer: &Tokenizer, tokens: usize, texts: usize) -> RaggedBatch {
    let mut batch = RaggedBatch::new();
    let words = "a ".repeat(tokens.saturating_sub(2).max(1));
    if let Ok(encoded) = tokenizer.encode(&Text::Single(words), TooLong::Truncate) {
        for _ in 0..texts {
            batch.push(&encoded.ids, &encoded.type_ids);
        }
    }
    batch
}

#[cfg(test)]
mod tests;
