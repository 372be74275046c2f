//! Products with f32 arithmetic: rows times panels of f32 or bf16 weights.
//!
//! The right side is cut into panels of two vector registers' worth of columns; inside a panel
//! the values of one input lie side by side. A kernel (`float_kernels`) keeps a tile of some rows
//! of a panel's sums in registers and walks once through the inputs, so each value that is loaded
//! from the panel serves all rows of the tile.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::elementwise::activate;
use super::float_kernels::{ROWS_MAX, Sums, rows_max, tile};
use super::isa::Isa;
use super::operands::{InputRows, PanelValues};
use super::output::OutputRows;
use crate::activation::Activation;

/// Columns in a panel: two vector registers.
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

/// The right side, and what the sums start at, if not zero.
#[derive(Clone, Copy)]
pub(super) struct FloatWeights<'a> {
    pub(super) values: PanelValues<'a>,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) inputs: usize,
    /// Columns that exist; the last panel may be wider.
    pub(super) columns: usize,
}

/// `output = activation(rows · panels[range] + bias)`.
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
        // Tiles of equal height: 15 rows are 8 + 7, not 14 + 1.
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
                    // SAFETY: these columns are a panel's that was handed to this thread (or to the
                    // owner of the whole output), and the slice before this one is gone.
                    let values = unsafe { output.row(row, columns) };
                    activate(self.activation, sums, values);
                }
            }
        }
    }
}
