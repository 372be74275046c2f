//! The one matrix product of this engine: rows times panels.
//!
//! The right side is cut into panels of two vector registers' worth of columns; inside a panel
//! the values of one input lie side by side. The kernel keeps a tile of `ROWS × panel` sums in
//! registers and walks once through the inputs, so each value that is loaded from the panel
//! serves all rows of the tile.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

/// Columns in a panel on this machine: two vector registers.
pub(super) fn panel_width() -> usize {
    struct Width;
    impl WithSimd for Width {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            2 * S::F32_LANES
        }
    }
    Arch::new().dispatch(Width)
}

/// The left side: `count` rows of `inputs` values, `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
    pub(super) count: usize,
}

/// The right side: `[panels][inputs][panel_width]`, and what the sums start at, if not zero.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a> {
    pub(super) values: &'a [f32],
    pub(super) bias: Option<&'a [f32]>,
    pub(super) inputs: usize,
    /// Columns that exist; the last panel may be wider.
    pub(super) columns: usize,
}

/// The result: rows `stride` apart, beginning at the first column that is computed.
pub(super) struct Output<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) stride: usize,
}

/// `output = rows · panels[range] + bias`.
pub(super) fn multiply(
    arch: Arch,
    rows: Rows<'_>,
    panels: Panels<'_>,
    range: Range<usize>,
    output: Output<'_>,
) {
    arch.dispatch(Product {
        rows,
        panels,
        range,
        output,
    });
}

struct Product<'a> {
    rows: Rows<'a>,
    panels: Panels<'a>,
    range: Range<usize>,
    output: Output<'a>,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // 32 registers hold 12 rows of two vectors and what feeds them, 16 hold 6.
        if S::F32_LANES >= 16 {
            self.tiles::<S, 12>(simd)
        } else {
            self.tiles::<S, 6>(simd)
        }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn tiles<S: Simd, const ROWS: usize>(self, simd: S) {
        let Panels {
            inputs, columns, ..
        } = self.panels;
        let (width, rows) = (2 * S::F32_LANES, self.rows.count);
        // Tiles of equal height: 13 rows are 7 + 6, not 12 + 1.
        let tiles = rows.div_ceil(ROWS);
        let first = self.range.start * width;
        for panel in self.range {
            let column = panel * width;
            let side = Side {
                panel: &self.panels.values[panel * inputs * width..][..inputs * width],
                bias: self.panels.bias.map(|bias| &bias[column..][..width]),
                columns: width.min(columns - column),
            };
            for tile in 0..tiles {
                let (start, end) = (rows * tile / tiles, rows * (tile + 1) / tiles);
                let left = Rows {
                    values: &self.rows.values[start * self.rows.stride..],
                    count: end - start,
                    ..self.rows
                };
                let stride = self.output.stride;
                let values = &mut self.output.values[start * stride + column - first..];
                tile_of::<S, ROWS>(simd, left, inputs, side, &mut Output { values, stride });
            }
        }
    }
}

/// One panel of the right side.
#[derive(Clone, Copy)]
struct Side<'a> {
    panel: &'a [f32],
    bias: Option<&'a [f32]>,
    columns: usize,
}

/// Turns a tile's height into a constant, so that its sums live in registers.
#[inline(always)]
fn tile_of<S: Simd, const ROWS: usize>(
    simd: S,
    rows: Rows<'_>,
    inputs: usize,
    side: Side<'_>,
    output: &mut Output<'_>,
) {
    macro_rules! heights {
        ($($height:literal)*) => {
            match rows.count {
                $($height if $height <= ROWS => {
                    kernel::<S, $height>(simd, rows, inputs, side, output)
                })*
                _ => unreachable!("a tile has 1 to ROWS rows"),
            }
        };
    }
    heights!(1 2 3 4 5 6 7 8 9 10 11 12);
}

/// `ROWS` rows times one panel.
#[inline(always)]
fn kernel<S: Simd, const ROWS: usize>(
    simd: S,
    rows: Rows<'_>,
    inputs: usize,
    side: Side<'_>,
    output: &mut Output<'_>,
) {
    let (panel, _) = S::as_simd_f32s(side.panel);
    let panel = &panel.as_chunks::<2>().0[..inputs];
    let rows: [&[f32]; ROWS] =
        std::array::from_fn(|row| &rows.values[row * rows.stride..][..inputs]);
    let start = match side.bias {
        Some(bias) => {
            let (bias, _) = S::as_simd_f32s(bias);
            [bias[0], bias[1]]
        }
        None => [simd.splat_f32s(0.0); 2],
    };
    let mut sums = [start; ROWS];
    for (input, [low, high]) in panel.iter().enumerate() {
        for (sum, row) in sums.iter_mut().zip(rows) {
            let value = simd.splat_f32s(row[input]);
            sum[0] = simd.mul_add_e_f32s(value, *low, sum[0]);
            sum[1] = simd.mul_add_e_f32s(value, *high, sum[1]);
        }
    }
    for (row, [low, high]) in sums.into_iter().enumerate() {
        let values = &mut output.values[row * output.stride..][..side.columns];
        if side.columns == 2 * S::F32_LANES {
            let (values, _) = S::as_mut_simd_f32s(values);
            (values[0], values[1]) = (low, high);
        } else {
            let (first, second) = values.split_at_mut(side.columns.min(S::F32_LANES));
            simd.partial_store_f32s(first, low);
            simd.partial_store_f32s(second, high);
        }
    }
}
