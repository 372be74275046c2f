//! Attention over one sequence, head by head: softmax(Q·Kᵀ/√d)·V (Vaswani et al. 2017, arXiv:1706.03762,
//! section 3.2). Nothing is computed for padding.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::activations::{Rows, RowsMut};
use super::elementwise::{LANES, softmax};
use super::float::{FloatProduct, FloatWeights};
use super::isa::Isa;
use super::operands::{InputRows, PanelValues};
use super::output::OutputRows;
use crate::activation::Activation;

/// The heads of multi-head attention.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// Number of heads.
    pub count: usize,
    /// Width of a head.
    pub size: usize,
}

/// Scratch memory that attention reuses from call to call.
#[derive(Debug, Default)]
pub struct AttentionScratch {
    keys: Vec<f32>,
    values: Vec<f32>,
    scores: Vec<f32>,
}

impl Heads {
    /// Attention from the rows `queries` of `query` to every token of one sequence.
    ///
    /// `query` is `[_, count · size]`, already scaled by 1/√size. `key_value` is `[_, 2 · count · size]`, keys
    /// first; `tokens` are the rows of the sequence. `context` has at least one row for each query.
    ///
    /// # Panics
    /// When a width differs, or `context` has too few rows.
    pub fn attend(
        self,
        isa: Isa,
        (query, queries): (Rows<'_>, Range<usize>),
        (key_value, tokens): (Rows<'_>, Range<usize>),
        context: &mut RowsMut<'_>,
        scratch: &mut AttentionScratch,
    ) {
        let hidden = self.count * self.size;
        let widths = [query.width(), key_value.width(), context.width()];
        assert_eq!(widths, [hidden, 2 * hidden, hidden], "widths of attention");
        assert!(
            context.len() >= queries.len(),
            "a row of context for each query"
        );
        if queries.is_empty() || tokens.is_empty() {
            return;
        }
        isa.dispatch(SequenceAttention {
            heads: self,
            query,
            queries,
            key_value,
            tokens,
            context,
            scratch,
        });
    }
}

struct SequenceAttention<'a, 'b> {
    heads: Heads,
    query: Rows<'a>,
    queries: Range<usize>,
    key_value: Rows<'a>,
    tokens: Range<usize>,
    context: &'a mut RowsMut<'b>,
    scratch: &'a mut AttentionScratch,
}

impl WithSimd for SequenceAttention<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Heads { count, size } = self.heads;
        let (width, tokens) = (2 * S::F32_LANES, self.tokens.len());
        // Whole panels of scores, and whole vectors for the softmax.
        let columns = tokens.next_multiple_of(width.max(LANES));
        let scratch = self.scratch;
        scratch.scores.resize(self.queries.len() * columns, 0.0);
        let (first, rows) = (self.tokens.start, &self.key_value);
        for head in 0..count {
            let column = head * size;
            let panels = columns.div_ceil(width) * size * width;
            scratch.keys.resize(panels, 0.0);
            let keys = (0..tokens).map(|token| &rows.row(first + token)[column..][..size]);
            pack_transposed(keys, width, &mut scratch.keys);
            scratch
                .values
                .resize(size.div_ceil(width) * tokens * width, 0.0);
            let from = count * size + column;
            let values = (0..tokens).map(|token| &rows.row(first + token)[from..][..size]);
            pack(values, width, &mut scratch.values);
            let product = FloatProduct {
                left: self.query.inputs(self.queries.clone(), column),
                right: FloatWeights {
                    values: PanelValues::F32(&scratch.keys),
                    bias: None,
                    inputs: size,
                    columns,
                },
                range: 0..columns.div_ceil(width),
                output: OutputRows::new(&mut scratch.scores, columns),
                activation: Activation::None,
            };
            product.with_simd(simd);
            for scores in scratch.scores.chunks_exact_mut(columns) {
                scores[tokens..].fill(f32::NEG_INFINITY);
                softmax(scores);
            }
            let product = FloatProduct {
                left: InputRows {
                    values: &scratch.scores,
                    stride: columns,
                    count: self.queries.len(),
                },
                right: FloatWeights {
                    values: PanelValues::F32(&scratch.values),
                    bias: None,
                    inputs: tokens,
                    columns: size,
                },
                range: 0..size.div_ceil(width),
                output: self.context.output(column),
                activation: Activation::None,
            };
            product.with_simd(simd);
        }
    }
}

/// Packs rows into panels; the rows are the inputs of the product.
#[inline(always)]
fn pack<'a>(rows: impl ExactSizeIterator<Item = &'a [f32]>, width: usize, panels: &mut [f32]) {
    let inputs = rows.len();
    for (input, row) in rows.enumerate() {
        for (panel, values) in row.chunks(width).enumerate() {
            panels[(panel * inputs + input) * width..][..values.len()].copy_from_slice(values);
        }
    }
}

/// Packs rows into panels, transposed; the rows are the columns of the panels.
#[inline(always)]
fn pack_transposed<'a>(rows: impl Iterator<Item = &'a [f32]>, width: usize, panels: &mut [f32]) {
    for (token, row) in rows.enumerate() {
        let panel = &mut panels[token / width * row.len() * width..][..row.len() * width];
        for (values, value) in panel.chunks_exact_mut(width).zip(row) {
            values[token % width] = *value;
        }
    }
}
