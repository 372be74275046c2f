//! The forward pass of consecutive sequences of a batch, on plain buffers.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use intentd_kernels::Activation;
use intentd_kernels::cpu::{
    Activations, AttentionScratch, Form, Heads, Isa, Norm, Panels, RowsMut, Team,
};

use crate::batch::RaggedBatch;

/// A classifier with its weights packed in panels.
#[derive(Debug)]
pub(super) struct PackedModel {
    pub(super) isa: Isa,
    /// Form of the encoder's weights. The pooler and the classifier are small and always f32.
    pub(super) form: Form,
    pub(super) hidden: usize,
    pub(super) heads: Heads,
    pub(super) activation: Activation,
    /// Width of the embeddings.
    pub(super) embedding: usize,
    /// `[vocabulary, embedding]`, `[positions, embedding]`, `[types, embedding]`.
    pub(super) words: Vec<f32>,
    pub(super) positions: Vec<f32>,
    pub(super) types: Vec<f32>,
    pub(super) norm: Norm,
    /// From the embeddings to the hidden size. `None` if they have it.
    pub(super) projection: Option<Panels>,
    /// The layers with weights of their own.
    pub(super) layers: Vec<PackedLayer>,
    /// The index of each layer's weights in `layers`.
    pub(super) order: Vec<usize>,
    pub(super) pooler: Panels,
    pub(super) pooler_activation: Activation,
    pub(super) classifier: Panels,
}

#[derive(Debug)]
pub(super) struct PackedLayer {
    pub(super) query: Panels,
    pub(super) key_value: Panels,
    pub(super) attention_output: Panels,
    pub(super) attention_norm: Norm,
    pub(super) intermediate: Panels,
    pub(super) output: Panels,
    pub(super) output_norm: Norm,
}

/// Consecutive sequences of a batch.
#[derive(Debug)]
pub(super) struct BatchSlice<'a> {
    pub(super) batch: &'a RaggedBatch,
    pub(super) sequences: Range<usize>,
}

impl BatchSlice<'_> {
    fn tokens(&self) -> Range<usize> {
        match self.sequences.is_empty() {
            true => 0..0,
            false => {
                let last = self.batch.range(self.sequences.end - 1);
                self.batch.range(self.sequences.start).start..last.end
            }
        }
    }
}

/// Buffers of one forward pass, reused from batch to batch.
#[derive(Debug)]
pub(super) struct Workspace {
    /// Embeddings that are to be projected, `[tokens, embedding]`.
    embedded: Activations,
    /// The layer's input, `[tokens, hidden]`.
    x: Activations,
    query: Activations,
    key_value: Activations,
    context: Activations,
    /// Output of the attention block, `[rows, hidden]`.
    attended: Activations,
    intermediate: Activations,
    pooled: Activations,
    logits: Activations,
    /// One per thread.
    attention: Vec<Mutex<AttentionScratch>>,
    split: WorkSplit,
}

/// The division of a slice's rows between threads.
#[derive(Debug, Default)]
struct WorkSplit {
    /// Token ranges of the sequences, relative to the first token of the slice.
    sequences: Vec<Range<usize>>,
    /// All tokens, in pieces of about equal size.
    tokens: Vec<Range<usize>>,
    /// All sequences, in pieces of about equal size. Each sequence has one `[CLS]` row.
    firsts: Vec<Range<usize>>,
}

impl WorkSplit {
    /// Divides a slice between `threads`.
    fn divide(&mut self, slice: &BatchSlice<'_>, threads: usize) {
        let tokens = slice.tokens();
        self.sequences.clear();
        let ranges = slice
            .sequences
            .clone()
            .map(|index| slice.batch.range(index));
        let relative = |range: Range<usize>| range.start - tokens.start..range.end - tokens.start;
        self.sequences.extend(ranges.map(relative));
        // More pieces than threads, because another process may delay a thread.
        let pieces = if threads == 1 { 1 } else { 2 * threads };
        divide(tokens.len(), pieces, &mut self.tokens);
        divide(self.sequences.len(), pieces, &mut self.firsts);
    }
}

/// Divides `0..count` into at most `pieces` non-empty ranges of about equal size.
fn divide(count: usize, pieces: usize, ranges: &mut Vec<Range<usize>>) {
    let pieces = pieces.min(count);
    ranges.clear();
    ranges.extend((0..pieces).map(|n| count * n / pieces..count * (n + 1) / pieces));
}

impl Workspace {
    /// A workspace for a team of `threads`.
    pub(super) fn new(model: &PackedModel, threads: usize) -> Self {
        let PackedModel {
            isa, form, hidden, ..
        } = *model;
        let of = |width, form| Activations::new(isa, width, form);
        let intermediate = model
            .layers
            .first()
            .map_or(hidden, |layer| layer.intermediate.outputs());
        Self {
            embedded: of(model.embedding, Form::F32),
            x: of(hidden, form),
            query: of(hidden, Form::F32),
            key_value: of(2 * hidden, Form::F32),
            context: of(hidden, form),
            attended: of(hidden, form),
            intermediate: of(intermediate, form),
            pooled: of(hidden, Form::F32),
            logits: of(model.labels(), Form::F32),
            attention: (0..threads).map(|_| Mutex::default()).collect(),
            split: WorkSplit::default(),
        }
    }
}

impl PackedModel {
    /// Number of classes.
    pub(super) fn labels(&self) -> usize {
        self.classifier.outputs()
    }

    /// Multiply-adds of the projections for one token.
    pub(super) fn multiply_adds_per_token(&self) -> usize {
        let layer = |index: &usize| {
            let intermediate = self.layers[*index].intermediate.outputs();
            self.hidden * (4 * self.hidden + 2 * intermediate)
        };
        let projection = self.projection.as_ref();
        let projection = projection.map_or(0, |panels| self.embedding * panels.outputs());
        projection + self.order.iter().map(layer).sum::<usize>()
    }

    /// Bytes of the projections' weights that are read for every batch, those of a shared layer as often as it occurs.
    pub(super) fn weight_bytes(&self) -> usize {
        let bytes = match self.form {
            Form::F32 => 4,
            Form::Bf16 => 2,
            Form::Int8 => 1,
        };
        self.multiply_adds_per_token() * bytes
    }

    /// Writes the logits of a slice, `[sequences, labels]`. The team shares the work of each step.
    pub(super) fn forward(
        &self,
        slice: &BatchSlice<'_>,
        team: &mut Team,
        s: &mut Workspace,
        logits: &mut [f32],
    ) {
        s.split.divide(slice, team.threads());
        self.embed(slice, team, s);
        for (index, layer) in self.order.iter().enumerate() {
            let layer = &self.layers[*layer];
            layer
                .key_value
                .multiply(team, &s.x, &mut s.key_value, Activation::None);
            // After its keys and values, the last layer needs only the [CLS] rows.
            let firsts_only = index + 1 == self.order.len();
            if firsts_only {
                keep_first_rows(team, s);
            }
            self.layer(layer, firsts_only, team, s);
        }
        self.pooler
            .multiply(team, &s.x, &mut s.pooled, self.pooler_activation);
        self.classifier
            .multiply(team, &s.pooled, &mut s.logits, Activation::None);
        for (logits, row) in logits
            .chunks_exact_mut(self.labels())
            .zip(s.logits.rows().iter())
        {
            logits.copy_from_slice(row);
        }
    }

    /// The rest of a layer, after its keys and values.
    fn layer(&self, layer: &PackedLayer, firsts_only: bool, team: &mut Team, s: &mut Workspace) {
        let isa = self.isa;
        layer
            .query
            .multiply(team, &s.x, &mut s.query, Activation::None);
        self.attend(firsts_only, team, s);
        layer
            .attention_output
            .multiply(team, &s.context, &mut s.attended, Activation::None);
        let rows = if firsts_only {
            &s.split.firsts
        } else {
            &s.split.tokens
        };
        let residual = s.x.rows();
        s.attended.write(team, rows, |_, range, attended| {
            for (row, attended) in range.zip(attended.iter_mut()) {
                layer.attention_norm.add(isa, attended, residual.row(row));
            }
        });
        layer
            .intermediate
            .multiply(team, &s.attended, &mut s.intermediate, self.activation);
        s.intermediate.prepare(team, rows);
        layer
            .output
            .multiply(team, &s.intermediate, &mut s.x, Activation::None);
        let residual = s.attended.rows();
        s.x.write(team, rows, |_, range, x| {
            for (row, x) in range.zip(x.iter_mut()) {
                layer.output_norm.add(isa, x, residual.row(row));
            }
        });
    }

    fn embed(&self, slice: &BatchSlice<'_>, team: &mut Team, s: &mut Workspace) {
        let Some(projection) = &self.projection else {
            return self.add_embeddings(slice, team, &s.split, &mut s.x);
        };
        self.add_embeddings(slice, team, &s.split, &mut s.embedded);
        projection.multiply(team, &s.embedded, &mut s.x, Activation::None);
        s.x.prepare(team, &s.split.tokens);
    }

    /// Writes the normalized embeddings of a slice, `[tokens, embedding]`.
    fn add_embeddings(
        &self,
        slice: &BatchSlice<'_>,
        team: &mut Team,
        split: &WorkSplit,
        embedded: &mut Activations,
    ) {
        let width = self.embedding;
        let row = |index: u32| index as usize * width..(index as usize + 1) * width;
        let tokens = slice.tokens();
        let ids = &slice.batch.ids()[tokens.clone()];
        let type_ids = &slice.batch.type_ids()[tokens];
        let WorkSplit {
            sequences, tokens, ..
        } = split;
        embedded.resize(ids.len());
        embedded.write(team, tokens, |_, range, x| {
            let mut sequence = sequences.partition_point(|s| s.end <= range.start);
            for (token, x) in range.zip(x.iter_mut()) {
                sequence += usize::from(sequences[sequence].end <= token);
                let position = token - sequences[sequence].start;
                x.copy_from_slice(&self.words[row(ids[token])]);
                let token_type = &self.types[row(type_ids[token])];
                let position = &self.positions[position * width..][..width];
                self.norm.of_sum(self.isa, x, token_type, position);
            }
        });
    }

    /// Attention of each sequence. With `firsts_only` each sequence has one query.
    fn attend(&self, firsts_only: bool, team: &mut Team, s: &mut Workspace) {
        let WorkSplit {
            sequences,
            tokens,
            firsts,
        } = &s.split;
        let (query, key_value) = (s.query.rows(), s.key_value.rows());
        let attend = |queries, tokens: &Range<usize>, context: &mut RowsMut<'_>, member: usize| {
            let scratch = &s.attention[member];
            // Each thread has its own number, so the lock is never contended. After a panic the next use overwrites
            // everything.
            let mut scratch = scratch.lock().unwrap_or_else(PoisonError::into_inner);
            let (query, key_value) = ((query, queries), (key_value, tokens.clone()));
            self.heads
                .attend(self.isa, query, key_value, context, &mut scratch);
        };
        s.context.resize(s.query.len());
        let parts = if firsts_only { firsts } else { tokens };
        s.context.write(team, parts, |member, part, context| {
            if firsts_only {
                for sequence in part.clone() {
                    let mut context =
                        context.part(sequence - part.start..sequence + 1 - part.start);
                    attend(
                        sequence..sequence + 1,
                        &sequences[sequence],
                        &mut context,
                        member,
                    );
                }
                return;
            }
            let first = sequences.partition_point(|s| s.end <= part.start);
            let of_part = sequences[first..].iter().take_while(|s| s.start < part.end);
            for sequence in of_part {
                let queries = sequence.start.max(part.start)..sequence.end.min(part.end);
                let rows = queries.start - part.start..queries.end - part.start;
                attend(queries, sequence, &mut context.part(rows), member);
            }
        });
    }
}

/// Keeps the first row of each sequence and drops the others.
fn keep_first_rows(team: &mut Team, s: &mut Workspace) {
    let WorkSplit {
        sequences, firsts, ..
    } = &s.split;
    s.x.keep_rows(sequences.iter().map(|tokens| tokens.start));
    s.x.prepare(team, firsts);
}
