//! The forward pass of one part of a batch, on plain buffers.

use std::ops::Range;

use pulp::Arch;

use super::super::RaggedBatch;
use super::attention::{AttentionScratch, Heads};
use super::elementwise::{Norm, activate};
use super::linear::Linear;
use crate::model::{Activation, Checkpoint, CheckpointError};

/// A BERT classifier with its weights in panels.
#[derive(Debug)]
pub(super) struct Bert {
    arch: Arch,
    hidden: usize,
    heads: Heads,
    activation: Activation,
    /// `[vocabulary, hidden]`, `[positions, hidden]`, `[types, hidden]`.
    words: Vec<f32>,
    positions: Vec<f32>,
    types: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
    pooler: Linear,
    classifier: Linear,
}

#[derive(Debug)]
struct Layer {
    query: Linear,
    key_value: Linear,
    attention_output: Linear,
    attention_norm: Norm,
    intermediate: Linear,
    output: Linear,
    output_norm: Norm,
}

/// Some sequences of a batch.
#[derive(Debug)]
pub(super) struct Part<'a> {
    pub(super) batch: &'a RaggedBatch,
    pub(super) sequences: Range<usize>,
}

impl Part<'_> {
    /// Token ranges of the sequences, counted from the part's first token.
    fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let first = self.tokens().start;
        self.sequences.clone().map(move |index| {
            let range = self.batch.range(index);
            range.start - first..range.end - first
        })
    }

    fn tokens(&self) -> Range<usize> {
        let last = self
            .sequences
            .end
            .checked_sub(1)
            .map_or(0, |last| self.batch.range(last).end);
        let first = if self.sequences.is_empty() {
            last
        } else {
            self.batch.range(self.sequences.start).start
        };
        first..last
    }
}

/// Activations of one thread, kept from batch to batch.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The layer's input, `[tokens, hidden]`.
    x: Vec<f32>,
    query: Vec<f32>,
    key_value: Vec<f32>,
    context: Vec<f32>,
    /// Output of the attention block, `[rows, hidden]`.
    attended: Vec<f32>,
    intermediate: Vec<f32>,
    attention: AttentionScratch,
}

impl Bert {
    /// Reads and packs all tensors.
    pub(super) fn load(checkpoint: &Checkpoint) -> Result<Self, CheckpointError> {
        let read = Reader {
            checkpoint,
            eps: checkpoint.config.layer_norm_eps as f32,
        };
        let config = &checkpoint.config;
        let (h, ff, labels) = (
            config.hidden_size,
            config.intermediate_size,
            checkpoint.labels.len(),
        );
        let table = |name: &str, rows: usize| {
            checkpoint
                .weights
                .f32(&format!("embeddings.{name}_embeddings.weight"), &[rows, h])
        };
        let layer = |index: usize| -> Result<Layer, CheckpointError> {
            let prefix = format!("encoder.layer.{index}");
            let attention = format!("{prefix}.attention");
            // Scaling the queries' weights by 1/√d here saves scaling the scores each time.
            let scale = 1.0 / (config.head_size() as f32).sqrt();
            Ok(Layer {
                query: read.linear(&[&format!("{attention}.self.query")], h, h, scale)?,
                key_value: read.linear(
                    &[
                        &format!("{attention}.self.key"),
                        &format!("{attention}.self.value"),
                    ],
                    h,
                    h,
                    1.0,
                )?,
                attention_output: read.linear(
                    &[&format!("{attention}.output.dense")],
                    h,
                    h,
                    1.0,
                )?,
                attention_norm: read.norm(&format!("{attention}.output.LayerNorm"), h)?,
                intermediate: read.linear(
                    &[&format!("{prefix}.intermediate.dense")],
                    ff,
                    h,
                    1.0,
                )?,
                output: read.linear(&[&format!("{prefix}.output.dense")], h, ff, 1.0)?,
                output_norm: read.norm(&format!("{prefix}.output.LayerNorm"), h)?,
            })
        };
        Ok(Self {
            arch: Arch::new(),
            hidden: h,
            heads: Heads {
                count: config.heads,
                size: config.head_size(),
            },
            activation: config.activation,
            words: table("word", config.vocab_size)?,
            positions: table("position", config.max_positions)?,
            types: table("token_type", config.type_vocab_size)?,
            norm: read.norm("embeddings.LayerNorm", h)?,
            layers: (0..config.layers).map(layer).collect::<Result<_, _>>()?,
            pooler: read.linear(&["pooler.dense"], h, h, 1.0)?,
            classifier: read.linear(&["classifier"], labels, h, 1.0)?,
        })
    }

    /// Number of classes.
    pub(super) fn labels(&self) -> usize {
        self.classifier.outputs()
    }

    /// Multiply-adds of the linear layers for one token.
    pub(super) fn multiply_adds_per_token(&self) -> usize {
        let layer = |l: &Layer| self.hidden * (4 * self.hidden + 2 * l.intermediate.outputs());
        self.layers.iter().map(layer).sum()
    }

    /// Logits of a part, `[sequences, labels]`; `parallel` shares out each product over the
    /// current rayon pool.
    pub(super) fn forward(
        &self,
        part: &Part<'_>,
        parallel: bool,
        scratch: &mut Scratch,
        logits: &mut [f32],
    ) {
        let apply = |layer: &Linear, x: &[f32], y: &mut Vec<f32>| {
            y.resize(x.len() / layer.inputs() * layer.outputs(), 0.0);
            if parallel {
                layer.apply_parallel(self.arch, x, y)
            } else {
                layer.apply(self.arch, x, y)
            }
        };
        self.embed(part, &mut scratch.x);
        for (index, layer) in self.layers.iter().enumerate() {
            let s = &mut *scratch;
            apply(&layer.key_value, &s.x, &mut s.key_value);
            // From here on the last layer goes on with the [CLS] rows alone.
            let cls_only = index + 1 == self.layers.len();
            if cls_only {
                keep_first_rows(part, self.hidden, &mut s.x);
            }
            apply(&layer.query, &s.x, &mut s.query);
            self.attend(part, cls_only, s);
            apply(&layer.attention_output, &s.context, &mut s.attended);
            self.arch
                .dispatch(|| layer.attention_norm.add(&mut s.attended, &s.x));
            apply(&layer.intermediate, &s.attended, &mut s.intermediate);
            self.arch
                .dispatch(|| activate(self.activation, &mut s.intermediate));
            apply(&layer.output, &s.intermediate, &mut s.x);
            self.arch
                .dispatch(|| layer.output_norm.add(&mut s.x, &s.attended));
        }
        let pooled = &mut scratch.attended;
        apply(&self.pooler, &scratch.x, pooled);
        pooled.iter_mut().for_each(|value| *value = value.tanh());
        self.classifier.apply(self.arch, pooled, logits);
    }

    fn embed(&self, part: &Part<'_>, x: &mut Vec<f32>) {
        let h = self.hidden;
        let row = |index: u32| index as usize * h..(index as usize + 1) * h;
        let tokens = part.tokens();
        let ids = &part.batch.ids()[tokens.clone()];
        let type_ids = &part.batch.type_ids()[tokens];
        x.resize(ids.len() * h, 0.0);
        self.arch.dispatch(|| {
            for range in part.ranges() {
                for (position, token) in range.enumerate() {
                    let word = &self.words[row(ids[token])];
                    let kind = &self.types[row(type_ids[token])];
                    let place = &self.positions[position * h..][..h];
                    let x = &mut x[token * h..][..h];
                    for (((x, word), kind), place) in x.iter_mut().zip(word).zip(kind).zip(place) {
                        *x = word + kind + place;
                    }
                    self.norm.row(x);
                }
            }
        });
    }

    /// Attention of each sequence; with `cls_only` there is one query a sequence.
    fn attend(&self, part: &Part<'_>, cls_only: bool, s: &mut Scratch) {
        let h = self.hidden;
        s.context.resize(s.query.len(), 0.0);
        for (sequence, tokens) in part.ranges().enumerate() {
            let rows = if cls_only {
                sequence..sequence + 1
            } else {
                tokens.clone()
            };
            let values = rows.start * h..rows.end * h;
            self.heads.attend(
                self.arch,
                &s.query[values.clone()],
                &s.key_value[tokens.start * 2 * h..tokens.end * 2 * h],
                &mut s.context[values],
                &mut s.attention,
            );
        }
    }
}

/// Moves each sequence's first row to the front and drops the others.
fn keep_first_rows(part: &Part<'_>, width: usize, x: &mut Vec<f32>) {
    for (sequence, tokens) in part.ranges().enumerate() {
        x.copy_within(
            tokens.start * width..(tokens.start + 1) * width,
            sequence * width,
        );
    }
    x.truncate(part.sequences.len() * width);
}

/// Reads tensors of one checkpoint into this engine's forms.
struct Reader<'a> {
    checkpoint: &'a Checkpoint,
    eps: f32,
}

impl Reader<'_> {
    /// One layer of the stacked rows of `names`, each `[outputs, inputs]`, times `scale`.
    fn linear(
        &self,
        names: &[&str],
        outputs: usize,
        inputs: usize,
        scale: f32,
    ) -> Result<Linear, CheckpointError> {
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for name in names {
            let weights = &self.checkpoint.weights;
            weight.extend(weights.f32(&format!("{name}.weight"), &[outputs, inputs])?);
            bias.extend(weights.f32(&format!("{name}.bias"), &[outputs])?);
        }
        weight
            .iter_mut()
            .chain(&mut bias)
            .for_each(|value| *value *= scale);
        Ok(Linear::pack(&weight, &bias, inputs))
    }

    fn norm(&self, name: &str, width: usize) -> Result<Norm, CheckpointError> {
        let weights = &self.checkpoint.weights;
        Ok(Norm {
            weight: weights.f32(&format!("{name}.weight"), &[width])?,
            bias: weights.f32(&format!("{name}.bias"), &[width])?,
            eps: self.eps,
        })
    }
}
