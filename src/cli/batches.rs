//! Runs many texts through an engine, in as few batches as possible.

use crate::engine::Capacity;

use crate::config::ModelArgs;
use crate::engine::{self, Engine, EngineError, LoadError, RaggedBatch};
use crate::model::{Checkpoint, Encoded};
use crate::serving::BatchLimits;

/// Limits on the batches of commands that do not serve.
const LIMITS: BatchLimits = BatchLimits {
    tokens_max: 4096,
    texts_max: 256,
};

/// Loads the engine that a command's flags name.
pub(super) fn load(
    model: &ModelArgs,
    checkpoint: &Checkpoint,
) -> Result<Box<dyn Engine>, LoadError> {
    Ok(engine::load(checkpoint, model.engine_options(LIMITS))?.engine)
}

/// Computes the logits of all texts, in order. A batch that does not fit into the memory of the device is
/// halved.
pub(super) fn forward(
    engine: &mut dyn Engine,
    texts: &[Encoded],
) -> Result<Vec<Vec<f32>>, EngineError> {
    let limit = engine.largest().unwrap_or(Capacity {
        tokens: usize::MAX,
        sequences: usize::MAX,
    });
    let tokens_max = LIMITS.tokens_max.min(limit.tokens);
    let texts_max = LIMITS.texts_max.min(limit.sequences);
    let mut rows = Vec::with_capacity(texts.len());
    let mut rest = texts;
    while !rest.is_empty() {
        let mut tokens = 0;
        let fits = rest.iter().take(texts_max).take_while(|text| {
            tokens += text.ids.len();
            tokens <= tokens_max
        });
        let (batch, later) = rest.split_at(fits.count().max(1));
        forward_halving(engine, batch, &mut rows)?;
        rest = later;
    }
    Ok(rows)
}

fn forward_halving(
    engine: &mut dyn Engine,
    texts: &[Encoded],
    rows: &mut Vec<Vec<f32>>,
) -> Result<(), EngineError> {
    let mut batch = RaggedBatch::new();
    for text in texts {
        batch.push(&text.ids, &text.type_ids);
    }
    match engine.forward(&batch) {
        Ok(logits) => rows.extend(logits.rows().map(<[f32]>::to_vec)),
        Err(EngineError::OutOfMemory { .. }) if texts.len() > 1 => {
            let (first, second) = texts.split_at(texts.len() / 2);
            forward_halving(engine, first, rows)?;
            forward_halving(engine, second, rows)?;
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Logits;

    /// An engine that answers a text with its first id and has memory for a few tokens.
    #[derive(Debug)]
    struct SmallEngine {
        memory: usize,
        largest: Option<Capacity>,
        seen: Vec<usize>,
        done: Vec<Logits>,
    }

    impl Engine for SmallEngine {
        fn description(&self) -> String {
            "small".to_owned()
        }

        fn largest(&self) -> Option<Capacity> {
            self.largest
        }

        fn submit(&mut self, batch: &RaggedBatch) -> Result<(), EngineError> {
            let tokens = batch.tokens();
            self.seen.push(batch.sequences());
            if tokens > self.memory {
                return Err(EngineError::OutOfMemory { tokens });
            }
            let first = batch.ranges().map(|range| batch.ids()[range.start] as f32);
            self.done.push(Logits::new(first.collect(), 1));
            Ok(())
        }

        fn collect(&mut self) -> Result<Logits, EngineError> {
            Ok(self.done.remove(0))
        }
    }

    fn texts(lengths: &[usize]) -> Vec<Encoded> {
        let text = |(number, length): (usize, &usize)| Encoded {
            ids: vec![number as u32; *length],
            type_ids: vec![0; *length],
            truncated: false,
        };
        lengths.iter().enumerate().map(text).collect()
    }

    #[test]
    fn all_texts_are_answered_in_order_for_any_memory() {
        let largest = |tokens, sequences| Some(Capacity { tokens, sequences });
        for (memory, largest, lengths, seen) in [
            (9999, None, vec![512; 20], vec![8, 8, 4]),
            (9999, None, vec![1; 300], vec![256, 44]),
            (9999, largest(10, 2), vec![4, 4, 4, 9, 4], vec![2, 1, 1, 1]),
            (10, None, vec![4, 4, 4, 4, 4], vec![5, 2, 3, 1, 2]),
        ] {
            let mut engine = SmallEngine {
                memory,
                largest,
                seen: Vec::new(),
                done: Vec::new(),
            };
            let rows = forward(&mut engine, &texts(&lengths)).unwrap();
            let expected: Vec<Vec<f32>> = (0..lengths.len()).map(|n| vec![n as f32]).collect();
            assert_eq!(rows, expected);
            assert_eq!(engine.seen, seen);
        }
    }

    #[test]
    fn a_text_too_large_for_the_device_is_an_error() {
        let mut engine = SmallEngine {
            memory: 3,
            largest: None,
            seen: Vec::new(),
            done: Vec::new(),
        };
        let error = forward(&mut engine, &texts(&[2, 4, 2])).unwrap_err();
        assert_eq!(error, EngineError::OutOfMemory { tokens: 4 });
    }
}
