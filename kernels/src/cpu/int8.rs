//! Products of 8-bit whole numbers: dynamic activations, per-channel weights.
//!
//! Each row of activations is scaled so that its largest magnitude is 127 and rounded; each
//! output's weights were treated so at load. The products are summed exactly in 32 bits and
//! scaled once at the end, so every machine gives the same answer, whatever its instructions.
//!
//! `vpdpbusd` (AVX-512 VNNI) multiplies unsigned by signed bytes, four products a lane: the
//! activations carry an offset of 128, and 128 times the sum of the weights is taken off again.
//! Without it, pairs of 16-bit numbers are multiplied and added (`pmaddwd`, SSE2's and AVX2's
//! widest product that cannot overflow).

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::activations::{Quantized, Shared, stride};
use super::buffer::{Buffer, product};
use super::elementwise::{activate, largest_magnitude};
use super::float::Left;
use super::panels::Output;
use super::{Isa, int8_kernels};
use crate::Activation;

/// The largest magnitude of a code.
const CODE_MAX: f32 = 127.0;
/// What makes a code unsigned.
const OFFSET: i32 = 128;
/// Inputs are padded to a multiple of this, which both kernels' groups divide.
const INPUTS_MULTIPLE: usize = 4;
/// The widest rows of int8 products: with more, a sum of 255 · 127 an input could overflow 32 bits.
pub const INPUTS_MAX: usize = 65_536;

/// Columns in a panel of int8 weights.
pub(super) fn panel_width(isa: Isa) -> usize {
    if isa.has_vnni() { 32 } else { 16 }
}

/// Inputs whose weights lie side by side in a panel.
fn group(isa: Isa) -> usize {
    if isa.has_vnni() { 4 } else { 2 }
}

/// Rows of codes.
#[derive(Debug)]
pub(super) enum Codes {
    /// `code + 128`, for VNNI.
    Unsigned(Buffer<u8>, usize),
    /// In 16 bits, for products of pairs.
    Words(Buffer<i16>, usize),
}

impl Codes {
    pub(super) fn new(isa: Isa, width: usize) -> Self {
        let width = width.next_multiple_of(INPUTS_MULTIPLE);
        match isa.has_vnni() {
            true => Self::Unsigned(Buffer::default(), stride(width, 1)),
            false => Self::Words(Buffer::default(), stride(width, 2)),
        }
    }

    pub(super) fn resize(&mut self, rows: usize) {
        match self {
            Self::Unsigned(codes, stride) => codes.resize(product([rows, *stride])),
            Self::Words(codes, stride) => codes.resize(product([rows, *stride])),
        }
    }
}

impl Quantized {
    pub(super) fn shared(&mut self) -> SharedRows {
        SharedRows {
            codes: match &mut self.codes {
                Codes::Unsigned(codes, stride) => {
                    SharedCodes::Unsigned(Shared(codes.as_mut_slice().as_mut_ptr()), *stride)
                }
                Codes::Words(codes, stride) => {
                    SharedCodes::Words(Shared(codes.as_mut_slice().as_mut_ptr()), *stride)
                }
            },
            scales: Shared(self.scales.as_mut_slice().as_mut_ptr()),
        }
    }
}

/// Rows of codes that threads write at the same time.
#[derive(Clone, Copy)]
pub(super) struct SharedRows {
    codes: SharedCodes,
    scales: Shared<f32>,
}

#[derive(Clone, Copy)]
enum SharedCodes {
    Unsigned(Shared<u8>, usize),
    Words(Shared<i16>, usize),
}

/// Where the codes of one row go.
pub(super) struct RowPlace<'a> {
    codes: RowCodes<'a>,
    scale: &'a mut f32,
}

enum RowCodes<'a> {
    Unsigned(&'a mut [u8]),
    Words(&'a mut [i16]),
}

impl SharedRows {
    /// # Safety
    /// The row exists, and nobody else uses it while this lives.
    pub(super) unsafe fn row<'a>(self, row: usize) -> RowPlace<'a> {
        // SAFETY: the caller's promise, for both kinds of codes and the scale.
        unsafe {
            let codes = match self.codes {
                SharedCodes::Unsigned(codes, stride) => {
                    let place = codes.at(row * stride);
                    RowCodes::Unsigned(std::slice::from_raw_parts_mut(place, stride))
                }
                SharedCodes::Words(codes, stride) => {
                    let place = codes.at(row * stride);
                    RowCodes::Words(std::slice::from_raw_parts_mut(place, stride))
                }
            };
            let scale = &mut *self.scales.at(row);
            RowPlace { codes, scale }
        }
    }
}

/// Writes the codes of one row.
pub(super) fn quantize(isa: Isa, row: &[f32], place: RowPlace<'_>) {
    isa.dispatch(Quantize { row, place });
}

struct Quantize<'a> {
    row: &'a [f32],
    place: RowPlace<'a>,
}

impl WithSimd for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let largest = largest_magnitude(self.row);
        *self.place.scale = largest / CODE_MAX;
        let factor = factor(largest);
        match self.place.codes {
            RowCodes::Unsigned(codes) => {
                for (code, value) in codes.iter_mut().zip(self.row) {
                    *code = (nearest(value * factor) + OFFSET) as u8;
                }
            }
            RowCodes::Words(codes) => {
                for (code, value) in codes.iter_mut().zip(self.row) {
                    *code = nearest(value * factor) as i16;
                }
            }
        }
    }
}

/// What makes a code of a value, in a row whose largest magnitude is given. Of a row that holds
/// something else than numbers no code means anything: its scale is NaN, and so is the answer.
#[inline(always)]
fn factor(largest: f32) -> f32 {
    let factor = CODE_MAX / largest;
    match factor.is_finite() {
        true => factor,
        false => 0.0,
    }
}

/// The nearest whole number, ties to even, of a value between -2²¹ and 2²¹.
#[inline(always)]
fn nearest(value: f32) -> i32 {
    // In the sum with 1.5·2²³ the low bits of the mantissa are the whole number.
    const ROUND: f32 = 12_582_912.0;
    (value + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32
}

/// Weights of 8 bits in panels.
#[derive(Debug)]
pub(super) struct Int8Panels {
    /// Padded to [`INPUTS_MULTIPLE`].
    inputs: usize,
    width: usize,
    group: usize,
    /// `[panels][inputs / group][width][group]`.
    values: Buffer<i8>,
    /// What one stands for, for each column.
    scales: Buffer<f32>,
    /// The sum of each column's weights.
    sums: Buffer<i32>,
}

impl Int8Panels {
    /// # Panics
    /// When so many inputs could overflow the 32 bits of a sum.
    pub(super) fn zeros(isa: Isa, panels: usize, inputs: usize) -> Self {
        assert!(inputs <= INPUTS_MAX, "{inputs} inputs of int8 products");
        let inputs = inputs.next_multiple_of(INPUTS_MULTIPLE);
        let width = panel_width(isa);
        Self {
            inputs,
            width,
            group: group(isa),
            values: Buffer::zeros(product([panels, inputs, width])),
            scales: Buffer::zeros(panels * width),
            sums: Buffer::zeros(panels * width),
        }
    }

    pub(super) fn shared(&mut self) -> Place {
        Place {
            inputs: self.inputs,
            group: self.group,
            values: Shared(self.values.as_mut_slice().as_mut_ptr()),
            scales: Shared(self.scales.as_mut_slice().as_mut_ptr()),
            sums: Shared(self.sums.as_mut_slice().as_mut_ptr()),
        }
    }
}

/// Where panels are packed.
#[derive(Clone, Copy)]
pub(super) struct Place {
    inputs: usize,
    group: usize,
    values: Shared<i8>,
    scales: Shared<f32>,
    sums: Shared<i32>,
}

impl Place {
    /// Rounds and packs the rows of one panel.
    ///
    /// # Safety
    /// The panel exists, and nobody else uses it.
    pub(super) unsafe fn fill(self, panel: usize, rows: Left<'_>, inputs: usize) {
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

/// The right side of a product.
#[derive(Clone, Copy)]
pub(super) struct Right<'a> {
    pub(super) panels: &'a Int8Panels,
    pub(super) bias: &'a [f32],
    /// Columns that exist; the last panel may be wider.
    pub(super) columns: usize,
}

/// `output = activation(rows · panels[range] + bias)`.
pub(super) fn multiply(
    isa: Isa,
    (rows, count): (&Quantized, usize),
    right: Right<'_>,
    range: Range<usize>,
    output: Output<'_>,
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
    // Tiles of equal height: 15 rows are 8 + 7, not 14 + 1.
    let tiles = count.div_ceil(heights);
    let scales = &rows.scales.as_slice()[..count];
    let mut sums = [[0; 32]; int8_kernels::ROWS_MAX];
    for panel in range {
        let column = panel * width;
        let columns = width.min(right.columns - column);
        let weights = &right.panels.values.as_slice()[panel * inputs * width..][..inputs * width];
        let of_panel = column..column + width;
        let scale = Scale {
            columns: &right.panels.scales.as_slice()[of_panel.clone()],
            sums: &right.panels.sums.as_slice()[of_panel.clone()],
            bias: &right.bias[of_panel],
        };
        for tile in 0..tiles {
            let (start, end) = (count * tile / tiles, count * (tile + 1) / tiles);
            let sums = &mut sums[..end - start];
            let offset = match &rows.codes {
                Codes::Unsigned(codes, stride) => {
                    let codes = (&codes.as_slice()[start * stride..], *stride);
                    int8_kernels::fours(isa, codes, weights, sums);
                    OFFSET
                }
                Codes::Words(codes, stride) => {
                    let codes = (&codes.as_slice()[start * stride..], *stride);
                    int8_kernels::pairs(isa, codes, weights, sums);
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

/// The scales, the sums of weights and the bias of a panel's columns.
#[derive(Clone, Copy)]
struct Scale<'a> {
    columns: &'a [f32],
    sums: &'a [i32],
    bias: &'a [f32],
}

/// How the sums of a tile become numbers again.
struct Rescale<'a, 'b> {
    sums: &'a [[i32; 32]],
    /// What was added to each code of the rows.
    offset: i32,
    /// The scales of the rows.
    rows: &'a [f32],
    scale: Scale<'a>,
    activation: Activation,
    output: Output<'b>,
    columns: usize,
}

impl WithSimd for Rescale<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let mut numbers = [0.0; 32];
        for (row, (sums, row_scale)) in self.sums.iter().zip(self.rows).enumerate() {
            let columns = self.scale.columns.iter().zip(self.scale.sums);
            let columns = columns.zip(self.scale.bias);
            for ((number, sum), ((scale, weights), bias)) in
                numbers.iter_mut().zip(sums).zip(columns)
            {
                *number = (sum - self.offset * weights) as f32 * (row_scale * scale) + bias;
            }
            // SAFETY: these columns are a panel's that was handed to this thread, and the slice
            // before this one is gone.
            let values = unsafe { self.output.row(row, self.columns) };
            activate(self.activation, &numbers, values);
        }
    }
}
