//! The forward pass of some sequences of a batch, on plain buffers.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use intentd_kernels::Activation;
use intentd_kernels::cpu::{
    Activations, AttentionScratch, Form, Heads, Isa, Norm, Panels, RowsMut, Team,
};

use super::super::RaggedBatch;

/// A BERT classifier with its weights in panels.
#[derive(Debug)]
pub(super) struct Bert {
    pub(super) isa: Isa,
    /// Of the encoder's products; those after it are few and always f32.
    pub(super) form: Form,
    pub(super) hidden: usize,
    pub(super) heads: Heads,
    pub(super) activation: Activation,
    /// `[vocabulary, hidden]`, `[positions, hidden]`, `[types, hidden]`.
    pub(super) words: Vec<f32>,
    pub(super) positions: Vec<f32>,
    pub(super) types: Vec<f32>,
    pub(super) norm: Norm,
    pub(super) layers: Vec<Layer>,
    pub(super) pooler: Panels,
    pub(super) classifier: Panels,
}

#[derive(Debug)]
pub(super) struct Layer {
    pub(super) query: Panels,
    pub(super) key_value: Panels,
    pub(super) attention_output: Panels,
    pub(super) attention_norm: Norm,
    pub(super) intermediate: Panels,
    pub(super) output: Panels,
    pub(super) output_norm: Norm,
}

/// Some sequences of a batch.
#[derive(Debug)]
pub(super) struct Part<'a> {
    pub(super) batch: &'a RaggedBatch,
    pub(super) sequences: Range<usize>,
}

impl Part<'_> {
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

/// Activations of one forward pass, kept from batch to batch.
#[derive(Debug)]
pub(super) struct Scratch {
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
    /// One for each thread.
    attention: Vec<Mutex<AttentionScratch>>,
    shares: Shares,
}

/// How the rows of a part are shared out.
#[derive(Debug, Default)]
struct Shares {
    /// Token ranges of the sequences, counted from the part's first token.
    sequences: Vec<Range<usize>>,
    /// All tokens, in about equal pieces.
    tokens: Vec<Range<usize>>,
    /// The sequences, in about equal pieces: one `[CLS]` row each.
    firsts: Vec<Range<usize>>,
}

impl Shares {
    fn of(part: &Part<'_>, threads: usize, shares: &mut Self) {
        let tokens = part.tokens();
        shares.sequences.clear();
        let ranges = part.sequences.clone().map(|index| part.batch.range(index));
        let relative = |range: Range<usize>| range.start - tokens.start..range.end - tokens.start;
        shares.sequences.extend(ranges.map(relative));
        // More pieces than threads, since a thread may be held up by another process.
        let pieces = if threads == 1 { 1 } else { 2 * threads };
        cut(tokens.len(), pieces, &mut shares.tokens);
        cut(shares.sequences.len(), pieces, &mut shares.firsts);
    }
}

/// `0..count` in at most `pieces` parts of equal size, none empty.
fn cut(count: usize, pieces: usize, parts: &mut Vec<Range<usize>>) {
    let pieces = pieces.min(count);
    parts.clear();
    parts.extend((0..pieces).map(|n| count * n / pieces..count * (n + 1) / pieces));
}

impl Scratch {
    /// For a team of `threads`.
    pub(super) fn new(bert: &Bert, threads: usize) -> Self {
        let Bert {
            isa, form, hidden, ..
        } = *bert;
        let of = |width, form| Activations::new(isa, width, form);
        let intermediate = bert
            .layers
            .first()
            .map_or(hidden, |layer| layer.intermediate.outputs());
        Self {
            x: of(hidden, form),
            query: of(hidden, Form::F32),
            key_value: of(2 * hidden, Form::F32),
            context: of(hidden, form),
            attended: of(hidden, form),
            intermediate: of(intermediate, form),
            pooled: of(hidden, Form::F32),
            logits: of(bert.labels(), Form::F32),
            attention: (0..threads).map(|_| Mutex::default()).collect(),
            shares: Shares::default(),
        }
    }
}

impl Bert {
    /// Number of classes.
    pub(super) fn labels(&self) -> usize {
        self.classifier.outputs()
    }

    /// Multiply-adds of the linear layers for one token.
    pub(super) fn multiply_adds_per_token(&self) -> usize {
        let layer = |l: &Layer| self.hidden * (4 * self.hidden + 2 * l.intermediate.outputs());
        self.layers.iter().map(layer).sum()
    }

    /// Bytes of the weights of the linear layers, which every token is multiplied with.
    pub(super) fn weight_bytes(&self) -> usize {
        let bytes = match self.form {
            Form::F32 => 4,
            Form::Bf16 => 2,
            Form::Int8 => 1,
        };
        self.multiply_adds_per_token() * bytes
    }

    /// Logits of a part, `[sequences, labels]`; the team shares out each step.
    pub(super) fn forward(
        &self,
        part: &Part<'_>,
        team: &mut Team,
        s: &mut Scratch,
        logits: &mut [f32],
    ) {
        Shares::of(part, team.threads(), &mut s.shares);
        self.embed(part, team, s);
        for (index, layer) in self.layers.iter().enumerate() {
            layer
                .key_value
                .multiply(team, &s.x, &mut s.key_value, Activation::None);
            // From here on the last layer goes on with the [CLS] rows alone.
            let firsts_only = index + 1 == self.layers.len();
            if firsts_only {
                keep_first_rows(team, s);
            }
            self.layer(layer, firsts_only, team, s);
        }
        self.pooler
            .multiply(team, &s.x, &mut s.pooled, Activation::Tanh);
        self.classifier
            .multiply(team, &s.pooled, &mut s.logits, Activation::None);
        for (logits, row) in logits
            .chunks_exact_mut(self.labels())
            .zip(s.logits.rows().iter())
        {
            logits.copy_from_slice(row);
        }
    }

    /// What is left of a layer when its keys and values are there.
    fn layer(&self, layer: &Layer, firsts_only: bool, team: &mut Team, s: &mut Scratch) {
        let isa = self.isa;
        layer
            .query
            .multiply(team, &s.x, &mut s.query, Activation::None);
        self.attend(firsts_only, team, s);
        layer
            .attention_output
            .multiply(team, &s.context, &mut s.attended, Activation::None);
        let rows = if firsts_only {
            &s.shares.firsts
        } else {
            &s.shares.tokens
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

    fn embed(&self, part: &Part<'_>, team: &mut Team, s: &mut Scratch) {
        let h = self.hidden;
        let row = |index: u32| index as usize * h..(index as usize + 1) * h;
        let tokens = part.tokens();
        let ids = &part.batch.ids()[tokens.clone()];
        let type_ids = &part.batch.type_ids()[tokens];
        let Shares {
            sequences, tokens, ..
        } = &s.shares;
        s.x.resize(ids.len());
        s.x.write(team, tokens, |_, range, x| {
            let mut sequence = sequences.partition_point(|s| s.end <= range.start);
            for (token, x) in range.zip(x.iter_mut()) {
                sequence += usize::from(sequences[sequence].end <= token);
                let position = token - sequences[sequence].start;
                x.copy_from_slice(&self.words[row(ids[token])]);
                let kind = &self.types[row(type_ids[token])];
                let place = &self.positions[position * h..][..h];
                self.norm.of_sum(self.isa, x, kind, place);
            }
        });
    }

    /// Attention of each sequence; with `firsts_only` there is one query a sequence.
    fn attend(&self, firsts_only: bool, team: &mut Team, s: &mut Scratch) {
        let Shares {
            sequences,
            tokens,
            firsts,
        } = &s.shares;
        let (query, key_value) = (s.query.rows(), s.key_value.rows());
        let attend = |queries, tokens: &Range<usize>, context: &mut RowsMut<'_>, member: usize| {
            let scratch = &s.attention[member];
            // No two threads have the same number; a panic leaves nothing that the next use
            // would not write anew.
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

/// Moves each sequence's first row to the front and drops the others.
fn keep_first_rows(team: &mut Team, s: &mut Scratch) {
    let Shares {
        sequences, firsts, ..
    } = &s.shares;
    s.x.keep_rows(sequences.iter().map(|tokens| tokens.start));
    s.x.prepare(team, firsts);
}
