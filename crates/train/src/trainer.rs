//! The training loop: texts of an epoch into batches, batches into gradients, gradients into steps.

use candle_core::{D, Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use tokenizers::Tokenizer;

use super::augment::Augmenter;
use super::batches;
use super::error::TrainError;
use super::labelled::LabelledText;
use super::network::{Dropout, Input, Network};
use super::operations::values;
use super::optimizer::{AdamW, learning_rate};
use super::random::{Purpose, chance, stream};
use super::recipe::Recipe;
use super::vocabulary::{PAD, UNKNOWN, encode};

/// The parts of a batch whose gradients are computed side by side. A constant rather than the number
/// of cores, so that sums are the same on every machine.
const PARTS: usize = 2;

/// The inputs of the loop. The network and the optimiser carry the state.
#[derive(Debug)]
pub(crate) struct Trainer<'a> {
    pub(crate) recipe: &'a Recipe,
    pub(crate) labels: usize,
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) augmenter: &'a Augmenter,
    pub(crate) network: &'a Network,
}

/// A text as token ids with the id of its label.
#[derive(Debug)]
struct EncodedText {
    ids: Vec<u32>,
    label: usize,
}

/// The loss of a batch or a part of one, and the gradient of every parameter.
#[derive(Debug, Default)]
struct Gradients {
    loss: f32,
    gradients: Vec<Vec<f32>>,
}

impl Trainer<'_> {
    /// Trains one epoch and returns its mean loss. `on_step` is called with the step in the epoch (from 1),
    /// the epoch's number of steps and the step's loss.
    ///
    /// # Errors
    /// When a text cannot be encoded, a tensor operation fails or the loss is not finite.
    pub(crate) fn epoch(
        &self,
        optimizer: &mut AdamW,
        epoch: usize,
        on_step: &mut dyn FnMut(usize, usize, f32),
    ) -> Result<f32, TrainError> {
        let texts = self.augmenter.epoch(epoch);
        let plain: Vec<&str> = texts
            .iter()
            .map(|labelled| labelled.text.as_str())
            .collect();
        let ids = encode(self.tokenizer, &plain, self.recipe.model.max_positions)?;
        let encoded: Vec<EncodedText> = ids
            .into_iter()
            .zip(&texts)
            .map(|(ids, LabelledText { label, .. })| EncodedText { ids, label: *label })
            .collect();
        let lengths: Vec<usize> = encoded.iter().map(|text| text.ids.len()).collect();
        // One stream for the whole epoch: the order first, then the draws of each step.
        let mut rng = stream(self.recipe.seed, Purpose::Dropout, epoch);
        let batches = batches::cut(&mut rng, &lengths, self.recipe.schedule.batch);
        let mut total = 0.0;
        for (index, batch) in batches.iter().enumerate() {
            let done = epoch as f64 + (index as f64 + 0.5) / batches.len() as f64;
            let rate = learning_rate(
                &self.recipe.schedule,
                done / self.recipe.schedule.epochs as f64,
            );
            let batch: Vec<EncodedText> = batch
                .iter()
                .map(|at| self.with_unknowns(&mut rng, &encoded[*at]))
                .collect();
            let loss = self.step(optimizer, &batch, &mut rng, rate)?;
            if !loss.is_finite() {
                return Err(TrainError::Diverged {
                    step: optimizer.steps,
                });
            }
            total += loss;
            on_step(index + 1, batches.len(), loss);
        }
        Ok(total / batches.len().max(1) as f32)
    }

    /// Replaces some tokens by `[UNK]`, so that no decision depends on a single word.
    fn with_unknowns(&self, rng: &mut impl Rng, text: &EncodedText) -> EncodedText {
        let probability = self.recipe.augmentation.unknown;
        let mut ids = text.ids.clone();
        // A text of one or two words would lose its whole meaning.
        if probability > 0.0 && ids.len() > 5 {
            let inner = 1..ids.len() - 1;
            ids[inner]
                .iter_mut()
                .filter(|_| chance(rng, probability))
                .for_each(|id| *id = UNKNOWN);
        }
        EncodedText {
            ids,
            label: text.label,
        }
    }

    /// Takes one optimiser step and returns the batch's mean loss.
    fn step(
        &self,
        optimizer: &mut AdamW,
        batch: &[EncodedText],
        rng: &mut ChaCha8Rng,
        rate: f64,
    ) -> Result<f32, TrainError> {
        let part_size = batch.len().div_ceil(PARTS);
        let parts: Vec<(&[EncodedText], ChaCha8Rng)> = batch
            .chunks(part_size)
            .map(|part| (part, ChaCha8Rng::seed_from_u64(rng.next_u64())))
            .collect();
        let results = parts
            .into_par_iter()
            .map(|(part, rng)| self.gradients(part, batch.len(), rng))
            .collect::<Result<Vec<_>, _>>()?;
        let mut results = results.into_iter();
        let mut sum = results.next().unwrap_or_default();
        results.for_each(|part| sum.add(part));
        if sum.loss.is_finite() {
            optimizer.step(self.network.parameters(), &sum.gradients, rate)?;
        }
        Ok(sum.loss)
    }

    /// Computes the gradients of a part of a batch. The loss is the part's share of the whole batch's mean.
    fn gradients(
        &self,
        part: &[EncodedText],
        batch_size: usize,
        rng: ChaCha8Rng,
    ) -> Result<Gradients, TrainError> {
        let ids: Vec<&[u32]> = part.iter().map(|text| text.ids.as_slice()).collect();
        let mut dropout = Some(Dropout::new(rng, self.recipe.model.dropout));
        let logits = self
            .network
            .forward(&Input::pad(&ids, PAD)?, &mut dropout)?;
        let log_shares = candle_nn::ops::log_softmax(&logits, D::Minus1)?;
        let targets = self.targets(part, batch_size)?;
        let loss = (log_shares * targets)?.sum_all()?.neg()?;
        let gradients = loss.backward()?;
        let of_parameters = self.network.parameters().iter().map(|parameter| {
            match gradients.get(parameter.value.as_tensor()) {
                Some(gradient) => values(gradient),
                None => Ok(vec![0.0; parameter.value.elem_count()]),
            }
        });
        Ok(Gradients {
            loss: loss.to_scalar::<f32>()?,
            gradients: of_parameters.collect::<candle_core::Result<_>>()?,
        })
    }

    /// The target distribution of each text, smoothed, divided by the batch size.
    fn targets(&self, part: &[EncodedText], batch_size: usize) -> Result<Tensor, TrainError> {
        let smoothing = self.recipe.schedule.label_smoothing as f32;
        let rest = smoothing / self.labels as f32;
        let scale = 1.0 / batch_size as f32;
        let mut targets = vec![rest * scale; part.len() * self.labels];
        for (row, text) in targets.chunks_exact_mut(self.labels).zip(part) {
            row[text.label] = (1.0 - smoothing + rest) * scale;
        }
        Ok(Tensor::from_vec(
            targets,
            (part.len(), self.labels),
            &Device::Cpu,
        )?)
    }
}

impl Gradients {
    fn add(&mut self, other: Self) {
        self.loss += other.loss;
        for (sum, values) in self.gradients.iter_mut().zip(other.gradients) {
            sum.iter_mut()
                .zip(values)
                .for_each(|(sum, value)| *sum += value);
        }
    }
}
