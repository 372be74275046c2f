//! Products with f32 arithmetic: rows times panels of f32 or bf16 weights.
//!
//! The right side is cut into panels of two vector registers' worth of columns; inside a panel
//! the values of one input lie side by side. The kernel keeps a tile of `ROWS × panel` sums in
//! registers and walks once through the inputs, so each value that is loaded from the panel
//! serves all rows of the tile.

use std::any::TypeId;
use std::ops::Range;

use pulp::{Scalar256b, Simd, WithSimd};

use super::Isa;
use super::elementwise::activate;
use super::panels::Output;
use crate::Activation;

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

/// The left side: `count` rows of `inputs` values, `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
    pub(super) count: usize,
}

/// The values of panels.
#[derive(Clone, Copy)]
pub(super) enum Values<'a> {
    /// `[panels][inputs][width]`.
    F32(&'a [f32]),
    /// `[panels][inputs / 2][width]`: two consecutive inputs in the halves of a word, the first
    /// in the low one. An odd last input stands alone, with zero above it.
    Bf16(&'a [u32]),
}

/// The right side, and what the sums start at, if not zero.
#[derive(Clone, Copy)]
pub(super) struct Right<'a> {
    pub(super) values: Values<'a>,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) inputs: usize,
    /// Columns that exist; the last panel may be wider.
    pub(super) columns: usize,
}

/// `output = activation(rows · panels[range] + bias)`.
pub(super) struct Product<'a> {
    pub(super) left: Left<'a>,
    pub(super) right: Right<'a>,
    pub(super) range: Range<usize>,
    pub(super) output: Output<'a>,
    pub(super) activation: Activation,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // 32 registers hold 12 rows of two vectors and what feeds them, 16 hold 6 (5 where
        // weights are widened first), and arrays of eight are two registers each.
        match self.right.values {
            _ if is_generic::<S>() => self.tiles::<S, 3>(simd),
            _ if S::F32_LANES >= 16 || cfg!(target_arch = "aarch64") => self.tiles::<S, 12>(simd),
            Values::F32(_) => self.tiles::<S, 6>(simd),
            Values::Bf16(_) => self.tiles::<S, 5>(simd),
        }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn tiles<S: Simd, const ROWS: usize>(self, simd: S) {
        let Right {
            inputs, columns, ..
        } = self.right;
        let (width, rows) = (2 * S::F32_LANES, self.left.count);
        // Tiles of equal height: 13 rows are 7 + 6, not 12 + 1.
        let tiles = rows.div_ceil(ROWS);
        for panel in self.range {
            let column = panel * width;
            let side = Side {
                values: match self.right.values {
                    Values::F32(values) => {
                        Values::F32(&values[panel * inputs * width..][..inputs * width])
                    }
                    Values::Bf16(values) => {
                        let size = inputs.div_ceil(2) * width;
                        Values::Bf16(&values[panel * size..][..size])
                    }
                },
                bias: self.right.bias.map(|bias| &bias[column..][..width]),
                columns: width.min(columns - column),
            };
            for tile in 0..tiles {
                let (start, end) = (rows * tile / tiles, rows * (tile + 1) / tiles);
                let left = Left {
                    values: &self.left.values[start * self.left.stride..],
                    count: end - start,
                    ..self.left
                };
                let output = self.output.part(start, column);
                tile_of::<S, ROWS>(simd, left, inputs, side, output);
                for row in 0..end - start {
                    activate(self.activation, output.row(row, side.columns));
                }
            }
        }
    }
}

/// One panel of the right side.
#[derive(Clone, Copy)]
struct Side<'a> {
    values: Values<'a>,
    bias: Option<&'a [f32]>,
    columns: usize,
}

/// Turns a tile's height into a constant, so that its sums live in registers.
#[inline(always)]
fn tile_of<S: Simd, const ROWS: usize>(
    simd: S,
    left: Left<'_>,
    inputs: usize,
    side: Side<'_>,
    output: Output<'_>,
) {
    macro_rules! heights {
        ($($height:literal)*) => {
            match left.count {
                $($height if $height <= ROWS => {
                    kernel::<S, $height>(simd, left, inputs, side, output)
                })*
                _ => unreachable!("a tile has 1 to ROWS rows"),
            }
        };
    }
    heights!(1 2 3 4 5 6 7 8 9 10 11 12);
}

/// Whether `S` is the plain code for machines whose vectors we do not know.
fn is_generic<S: Simd>() -> bool {
    TypeId::of::<S>() == TypeId::of::<Scalar256b>()
}

/// `sum + value · weights`; two roundings where one would call a library.
#[inline(always)]
fn multiply_add<S: Simd>(simd: S, value: S::f32s, weights: S::f32s, sum: S::f32s) -> S::f32s {
    if is_generic::<S>() {
        simd.add_f32s(simd.mul_f32s(value, weights), sum)
    } else {
        simd.mul_add_e_f32s(value, weights, sum)
    }
}

/// Adds what one input contributes to all sums.
#[inline(always)]
fn step<S: Simd, const ROWS: usize>(
    simd: S,
    sums: &mut [[S::f32s; 2]; ROWS],
    rows: &[&[f32]; ROWS],
    input: usize,
    [low, high]: [S::f32s; 2],
) {
    for (sum, row) in sums.iter_mut().zip(rows) {
        let value = simd.splat_f32s(row[input]);
        sum[0] = multiply_add(simd, value, low, sum[0]);
        sum[1] = multiply_add(simd, value, high, sum[1]);
    }
}

/// The bf16 in the low halves of words, as f32, of which a bf16 is the upper half.
#[inline(always)]
fn low_halves<S: Simd>(simd: S, [first, second]: [S::u32s; 2]) -> [S::f32s; 2] {
    let sixteen = simd.splat_u32s(16);
    [
        simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(first, sixteen)),
        simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(second, sixteen)),
    ]
}

/// The bf16 in the high halves of words, as f32.
#[inline(always)]
fn high_halves<S: Simd>(simd: S, [first, second]: [S::u32s; 2]) -> [S::f32s; 2] {
    let mask = simd.splat_u32s(0xffff_0000);
    [
        simd.transmute_f32s_u32s(simd.and_u32s(first, mask)),
        simd.transmute_f32s_u32s(simd.and_u32s(second, mask)),
    ]
}

/// `ROWS` rows times one panel.
#[inline(always)]
fn kernel<S: Simd, const ROWS: usize>(
    simd: S,
    left: Left<'_>,
    inputs: usize,
    side: Side<'_>,
    output: Output<'_>,
) {
    let mut rows: [&[f32]; ROWS] = [&[]; ROWS];
    for (row, values) in rows.iter_mut().enumerate() {
        *values = &left.values[row * left.stride..][..inputs];
    }
    let start = match side.bias {
        Some(bias) => {
            let (bias, _) = S::as_simd_f32s(bias);
            [bias[0], bias[1]]
        }
        None => [simd.splat_f32s(0.0); 2],
    };
    let mut sums = [start; ROWS];
    match side.values {
        Values::F32(values) => {
            let (panel, _) = S::as_simd_f32s(values);
            let panel = &panel.as_chunks::<2>().0[..inputs];
            for (input, weights) in panel.iter().enumerate() {
                step(simd, &mut sums, &rows, input, *weights);
            }
        }
        Values::Bf16(values) => {
            let (panel, _) = S::as_simd_u32s(values);
            let panel = &panel.as_chunks::<2>().0[..inputs.div_ceil(2)];
            let (pairs, last) = panel.split_at(inputs / 2);
            for (pair, words) in pairs.iter().enumerate() {
                step(simd, &mut sums, &rows, 2 * pair, low_halves::<S>(simd, *words));
                step(simd, &mut sums, &rows, 2 * pair + 1, high_halves::<S>(simd, *words));
            }
            for words in last {
                step(simd, &mut sums, &rows, inputs - 1, low_halves::<S>(simd, *words));
            }
        }
    }
    for (row, sums) in sums.into_iter().enumerate() {
        let values = output.row(row, side.columns);
        if side.columns == 2 * S::F32_LANES {
            let (values, _) = S::as_mut_simd_f32s(values);
            (values[0], values[1]) = (sums[0], sums[1]);
        } else {
            let (first, second) = values.split_at_mut(side.columns.min(S::F32_LANES));
            simd.partial_store_f32s(first, sums[0]);
            simd.partial_store_f32s(second, sums[1]);
        }
    }
}
