//! Products of 8-bit integers, with a scale for each row of activations and each output's weights.
//!
//! Each row of activations is scaled to a largest magnitude of 127 and rounded; the weights of each output
//! are quantized the same way at load. Products are summed exactly in 32 bits and scaled once at the end, so
//! all machines give the same answer.
//!
//! `vpdpbusd` (AVX-512 VNNI) multiplies unsigned by signed bytes, four products per lane: activations carry
//! an offset of 128, and 128 times the sum of the weights is subtracted afterwards. Without VNNI, pairs of
//! 16-bit numbers are multiplied and added (`pmaddwd`, the widest product of SSE2 and AVX2 that cannot
//! overflow).

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::buffer::{Buffer, checked_product};
use super::elementwise::{activate, largest_magnitude};
use super::int8_kernels;
use super::isa::Isa;
use super::operands::InputRows;
use super::output::OutputRows;
use super::quantized::{CODE_MAX, Codes, INPUTS_MULTIPLE, OFFSET, QuantizedRows, factor, nearest};
use super::shared::SharedPointer;
use crate::activation::Activation;

/// The most inputs of an int8 product: with more, a sum of up to 255 · 127 per input could overflow 32 bits.
pub const INPUTS_MAX: usize = 65_536;

/// The number of columns in a panel of int8 weights.
pub(super) fn panel_width(isa: Isa) -> usize {
    if isa.has_vnni() { 32 } else { 16 }
}

/// The number of inputs whose weights are adjacent in a panel.
fn group(isa: Isa) -> usize {
    if isa.has_vnni() { 4 } else { 2 }
}

/// Panels of 8-bit weights.
#[derive(Debug)]
pub(super) struct Int8Panels {
    /// Padded to [`INPUTS_MULTIPLE`].
    inputs: usize,
    width: usize,
    group: usize,
    /// `[panels][inputs / group][width][group]`.
    values: Buffer<i8>,
    /// The scale of each column.
    scales: Buffer<f32>,
    /// The sum of each column's weights.
    sums: Buffer<i32>,
}

impl Int8Panels {
    /// Panels of zeros.
    ///
    /// # Panics
    /// When `inputs` exceeds [`INPUTS_MAX`].
    pub(super) fn zeros(isa: Isa, panels: usize, inputs: usize) -> Self {
        assert!(inputs <= INPUTS_MAX, "{inputs} inputs of int8 products");
        let inputs = inputs.next_multiple_of(INPUTS_MULTIPLE);
        let width = panel_width(isa);
        Self {
            inputs,
            width,
            group: group(isa),
            values: Buffer::zeros(checked_product([panels, inputs, width])),
            scales: Buffer::zeros(panels * width),
            sums: Buffer::zeros(panels * width),
        }
    }

    /// The panels, for threads that fill them at the same time.
    pub(super) fn writer(&mut self) -> Int8PanelWriter {
        Int8PanelWriter {
            inputs: self.inputs,
            group: self.group,
            values: SharedPointer::new(self.values.as_mut_slice()),
            scales: SharedPointer::new(self.scales.as_mut_slice()),
            sums: SharedPointer::new(self.sums.as_mut_slice()),
        }
    }
}

/// Panels that threads fill at the same time.
#[derive(Clone, Copy)]
pub(super) struct Int8PanelWriter {
    inputs: usize,
    group: usize,
    values: SharedPointer<i8>,
    scales: SharedPointer<f32>,
    sums: SharedPointer<i32>,
}

impl Int8PanelWriter {
    /// Quantizes and packs the weights of one panel; each of `rows` is a column of it.
    ///
    /// # Safety
    /// The panel exists, and nothing else uses it.
    pub(super) unsafe fn fill(self, panel: usize, rows: InputRows<'_>, inputs: usize) {
        let (width, group) = (rows.count, self.group);
        let size = self.inputs * width;
        // SAFETY: the caller's promise, for the three parts of a panel.
        let (values, scales, sums) = unsafe {
            (
                std::slice::from_raw_parts_mut(self.values.at(panel * size), size),
                std::slice::from_raw_parts_mut(self.scales.at(panel * width), width),
                std::slice::from_raw_parts_mut(self.sums.at(panel * width), width),
            )
        };
        for column in 0..width {
            let row = &rows.values[column * rows.stride..][..inputs];
            let largest = largest_magnitude(row);
            let factor = factor(largest);
            let mut sum = 0;
            for (input, value) in row.iter().enumerate() {
                let code = nearest(value * factor) as i8;
                sum += i32::from(code);
                values[(input / group * width + column) * group + input % group] = code;
            }
            scales[column] = largest / CODE_MAX;
            sums[column] = sum;
        }
    }
}

/// The right operand of a product.
#[derive(Clone, Copy)]
pub(super) struct Int8Weights<'a> {
    pub(super) panels: &'a Int8Panels,
    pub(super) bias: &'a [f32],
    /// Number of columns; the last panel may be padded beyond them.
    pub(super) columns: usize,
}

/// `output = activation(rows · panels[range] + bias)` for the first `count` rows.
pub(super) fn multiply(
    isa: Isa,
    (rows, count): (&QuantizedRows, usize),
    right: Int8Weights<'_>,
    range: Range<usize>,
    output: OutputRows<'_>,
    activation: Activation,
) {
    let Int8Panels {
        inputs,
        width,
        group,
        ..
    } = *right.panels;
    let codes_group = match rows.codes {
        Codes::Unsigned(..) => 4,
        Codes::Words(..) => 2,
    };
    assert_eq!(
        codes_group, group,
        "codes and weights for the same instructions"
    );
    let heights = int8_kernels::rows_max(isa);
    // Tiles have nearly equal heights: 15 rows are 8 + 7, not 14 + 1.
    let tiles = count.div_ceil(heights);
    let scales = &rows.scales.as_slice()[..count];
    let mut sums = [[0; 32]; int8_kernels::ROWS_MAX];
    for panel in range {
        let column = panel * width;
        let columns = width.min(right.columns - column);
        let weights = &right.panels.values.as_slice()[panel * inputs * width..][..inputs * width];
        let of_panel = column..column + width;
        let scale = ColumnScales {
            scales: &right.panels.scales.as_slice()[of_panel.clone()],
            sums: &right.panels.sums.as_slice()[of_panel.clone()],
            bias: &right.bias[of_panel],
        };
        for tile in 0..tiles {
            let (start, end) = (count * tile / tiles, count * (tile + 1) / tiles);
            let sums = &mut sums[..end - start];
            let offset = match &rows.codes {
                Codes::Unsigned(codes) => {
                    int8_kernels::fours(isa, codes.rows_from(start), weights, sums);
                    OFFSET
                }
                Codes::Words(codes) => {
                    int8_kernels::pairs(isa, codes.rows_from(start), weights, sums);
                    0
                }
            };
            isa.dispatch(Rescale {
                sums,
                offset,
                rows: &scales[start..end],
                scale,
                activation,
                output: output.part(start, column),
                columns,
            });
        }
    }
}

/// The factors and offsets of a panel's columns.
#[derive(Clone, Copy)]
struct ColumnScales<'a> {
    scales: &'a [f32],
    /// Sums of the weights.
    sums: &'a [i32],
    bias: &'a [f32],
}

/// Converts the integer sums of a tile to f32.
struct Rescale<'a, 'b> {
    sums: &'a [[i32; 32]],
    /// The offset that was added to each code of the rows.
    offset: i32,
    /// The scales of the rows.
    rows: &'a [f32],
    scale: ColumnScales<'a>,
    activation: Activation,
    output: OutputRows<'b>,
    columns: usize,
}

impl WithSimd for Rescale<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let mut numbers = [0.0; 32];
        for (row, (sums, row_scale)) in self.sums.iter().zip(self.rows).enumerate() {
            let columns = self.scale.scales.iter().zip(self.scale.sums);
            let columns = columns.zip(self.scale.bias);
            for ((number, sum), ((scale, weights), bias)) in
                numbers.iter_mut().zip(sums).zip(columns)
            {
                *number = (sum - self.offset * weights) as f32 * (row_scale * scale) + bias;
            }
            // SAFETY: the columns belong to a panel that only this thread has, and the previous slice is no
            // longer used.
            let values = unsafe { self.output.row(row, self.columns) };
            activate(self.activation, &numbers, values);
        }
    }
}
