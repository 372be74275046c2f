//! Attention of one sequence: softmax(Q·Kᵀ/√d)·V, head by head, with nothing computed for
//! padding (Vaswani et al. 2017, arXiv:1706.03762, section 3.2).

use pulp::Arch;

use super::elementwise::softmax;
use super::product::{Output, Panels, Rows, multiply, panel_width};

/// The shape of one attention.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub(super) count: usize,
    pub(super) size: usize,
}

/// Memory that attention reuses from call to call.
#[derive(Debug, Default)]
pub(super) struct AttentionScratch {
    keys: Vec<f32>,
    values: Vec<f32>,
    scores: Vec<f32>,
}

impl Heads {
    /// Attends from every row of `query` to every token of one sequence.
    ///
    /// `query` and `context` are `[queries, hidden]`, `key_value` is `[tokens, 2 · hidden]`,
    /// keys first. The queries must already be scaled by 1/√d.
    pub(super) fn attend(
        self,
        arch: Arch,
        query: &[f32],
        key_value: &[f32],
        context: &mut [f32],
        scratch: &mut AttentionScratch,
    ) {
        let hidden = self.count * self.size;
        let (queries, tokens) = (query.len() / hidden, key_value.len() / (2 * hidden));
        let width = panel_width();
        scratch.scores.resize(queries * tokens, 0.0);
        for head in 0..self.count {
            let column = head * self.size;
            pack_transposed(key_value, 2 * hidden, column, self.size, &mut scratch.keys);
            pack(
                key_value,
                2 * hidden,
                hidden + column,
                self.size,
                &mut scratch.values,
            );
            multiply(
                arch,
                Rows {
                    values: &query[column..],
                    stride: hidden,
                    count: queries,
                },
                Panels {
                    values: &scratch.keys,
                    bias: None,
                    inputs: self.size,
                    columns: tokens,
                },
                0..tokens.div_ceil(width),
                Output {
                    values: &mut scratch.scores,
                    stride: tokens,
                },
            );
            arch.dispatch(|| scratch.scores.chunks_exact_mut(tokens).for_each(softmax));
            multiply(
                arch,
                Rows {
                    values: &scratch.scores,
                    stride: tokens,
                    count: queries,
                },
                Panels {
                    values: &scratch.values,
                    bias: None,
                    inputs: tokens,
                    columns: self.size,
                },
                0..self.size.div_ceil(width),
                Output {
                    values: &mut context[column..],
                    stride: hidden,
                },
            );
        }
    }
}

/// Columns `first..first + count` of `rows` as panels: the rows are the inputs.
fn pack(rows: &[f32], stride: usize, first: usize, count: usize, panels: &mut Vec<f32>) {
    let (width, inputs) = (panel_width(), rows.len() / stride);
    panels.clear();
    panels.resize(count.div_ceil(width) * inputs * width, 0.0);
    for (panel, values) in panels.chunks_exact_mut(inputs * width).enumerate() {
        let columns = panel * width..((panel + 1) * width).min(count);
        for (row, values) in rows
            .chunks_exact(stride)
            .zip(values.chunks_exact_mut(width))
        {
            let row = &row[first..][columns.clone()];
            values[..row.len()].copy_from_slice(row);
        }
    }
}

/// The same columns transposed: the columns are the inputs, the rows the panels' columns.
fn pack_transposed(rows: &[f32], stride: usize, first: usize, count: usize, panels: &mut Vec<f32>) {
    let (width, tokens) = (panel_width(), rows.len() / stride);
    panels.clear();
    panels.resize(tokens.div_ceil(width) * count * width, 0.0);
    for (token, row) in rows.chunks_exact(stride).enumerate() {
        let panel = &mut panels[token / width * count * width..][..count * width];
        for (values, value) in panel.chunks_exact_mut(width).zip(&row[first..][..count]) {
            values[token % width] = *value;
        }
    }
}
