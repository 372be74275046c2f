//! Products with f32 arithmetic: rows times panels of f32 or bf16 weights.
//!
//! The right operand consists of panels; a panel is two vector registers wide, and the weights of one input
//! are adjacent. A kernel (`float_kernels`) keeps the sums of a tile (some rows by one panel) in registers
//! and passes once over the inputs, so each value loaded from the panel serves all rows of the tile.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::elementwise::activate;
use super::float_kernels::{ROWS_MAX, Sums, rows_max, tile};
use super::isa::Isa;
use super::operands::{InputRows, PanelValues};
use super::output::OutputRows;
use crate::activation::Activation;

/// The number of columns in a panel: two vector registers.
pub(super) fn panel_width(isa: Isa) -> usize {
    struct Width;
    impl WithSimd for Width {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            2 * S::F32_LANES
        }
    }
    isa.dispatch(Width)
}

/// The right operand, and the initial values of the sums if they are not zero.
#[derive(Clone, Copy)]
pub(super) struct FloatWeights<'a> {
    pub(super) values: PanelValues<'a>,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) inputs: usize,
    /// Number of columns; the last panel may be padded beyond them.
    pub(super) columns: usize,
}

/// The product `output = activation(left · right[range] + bias)`, where `range` are panels.
pub(super) struct FloatProduct<'a> {
    pub(super) left: InputRows<'a>,
    pub(super) right: FloatWeights<'a>,
    pub(super) range: Range<usize>,
    pub(super) output: OutputRows<'a>,
    pub(super) activation: Activation,
}

impl WithSimd for FloatProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let FloatWeights {
            inputs, columns, ..
        } = self.right;
        let (width, rows) = (2 * S::F32_LANES, self.left.count);
        // Tiles have nearly equal heights: 15 rows are 8 + 7, not 14 + 1.
        let tiles = rows.div_ceil(rows_max::<S>(self.right.values));
        let mut sums: Sums = [[0.0; 32]; ROWS_MAX];
        for panel in self.range {
            let column = panel * width;
            let values = match self.right.values {
                PanelValues::F32(values) => {
                    PanelValues::F32(&values[panel * inputs * width..][..inputs * width])
                }
                PanelValues::Bf16(values) => {
                    let size = inputs.div_ceil(2) * width;
                    PanelValues::Bf16(&values[panel * size..][..size])
                }
            };
            let bias = self.right.bias.map(|bias| &bias[column..][..width]);
            let columns = width.min(columns - column);
            for part in 0..tiles {
                let (start, end) = (rows * part / tiles, rows * (part + 1) / tiles);
                let left = InputRows {
                    values: &self.left.values[start * self.left.stride..],
                    count: end - start,
                    ..self.left
                };
                tile(simd, left, inputs, (values, bias), &mut sums);
                let output = self.output.part(start, column);
                for (row, sums) in sums[..left.count].iter().enumerate() {
                    // SAFETY: the columns belong to a panel that only this thread has (or to an output
                    // that nothing else uses), and the previous slice is no longer used.
                    let values = unsafe { output.row(row, columns) };
                    activate(self.activation, sums, values);
                }
            }
        }
    }
}
