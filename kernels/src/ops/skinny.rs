//! Our own matrix product for a few rows (`cuda/skinny.cu`).

use super::launch::{check, int, optional};
use super::norm::Norm;
use crate::activation::Activation;
use crate::backend::{Argument, DeviceError, Launch};
use crate::batch::RowCount;
use crate::device::Device;
use crate::memory::Buffer;

/// A matrix product for few rows, fused with LayerNorm, activation and residual.
#[derive(Debug)]
pub struct Skinny<'a> {
    /// `[.., inner]`
    pub x: &'a Buffer,
    /// For each output row, the row of `x` to read; the row with the same number if absent.
    pub x_rows: Option<&'a Buffer>,
    /// LayerNorm of the rows of `x` before the product, and the buffer for the normalized rows.
    pub norm: Option<(&'a Norm, Option<&'a Buffer>)>,
    /// `[outer, inner]`
    pub w: &'a Buffer,
    /// `[outer]`
    pub bias: &'a Buffer,
    /// Activation of the sum of product and bias.
    pub activation: Activation,
    /// Added after the activation, `[.., outer]`, with the row numbers in it.
    pub residual: Option<(&'a Buffer, Option<&'a Buffer>)>,
    /// `[rows, outer]`
    pub y: &'a Buffer,
}

/// The most rows of [`Device::skinny`].
pub const SKINNY_ROWS_MAX: usize = 32;

impl Device {
    /// A product for few rows, with LayerNorm before and activation and residual after it.
    ///
    /// Supports f16 and bf16, `rows.max` up to [`SKINNY_ROWS_MAX`], an inner dimension that is a multiple
    /// of 32 and an outer dimension that is a multiple of 8.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn skinny(&self, rows: &RowCount, skinny: &Skinny<'_>) -> Result<(), DeviceError> {
        let SkinnyShape { inner, outer } = skinny.check(rows);
        let dtype = skinny.x.dtype();
        let tile = SkinnyTile::new(rows.max, outer, self.facts().multiprocessors as usize);
        let kind = if skinny.norm.is_some() {
            "norm"
        } else {
            "plain"
        };
        let SkinnyTile {
            rows: r,
            columns: c,
        } = tile;
        let name = format!("skinny_{kind}_{}_{r}_{c}", dtype.name());
        let gains = skinny.norm.map_or(0, |_| 2 * inner * dtype.bytes());
        let grid = Launch {
            blocks: (outer / (c * 8)) as u32,
            threads: 256,
            shared_bytes: (tile.shared_bytes() + gains) as u32,
            overlaps: true,
        };
        let norm = skinny.norm.map(|(norm, _)| norm);
        let arguments = [
            rows.count.argument(),
            skinny.x.argument(),
            optional(skinny.x_rows),
            optional(norm.map(|norm| &norm.gamma)),
            optional(norm.map(|norm| &norm.beta)),
            Argument::F32(norm.map_or(0.0, |norm| norm.eps)),
            optional(skinny.norm.and_then(|(_, normalized)| normalized)),
            skinny.w.argument(),
            skinny.bias.argument(),
            Argument::U32(skinny.activation as u32),
            optional(skinny.residual.map(|(residual, _)| residual)),
            optional(skinny.residual.and_then(|(_, rows)| rows)),
            skinny.y.argument(),
            int(inner),
            int(outer),
        ];
        let mut buffers = skinny.values();
        buffers.push(&rows.count);
        buffers.extend(skinny.row_numbers());
        // SAFETY: the sizes were checked; row numbers come from a packed batch and lie inside it.
        unsafe { self.launch(&name, grid, &buffers, &arguments) }
    }
}

/// The part of the result that one block of the kernel computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SkinnyTile {
    /// In units of 16 rows.
    rows: usize,
    /// In units of 8 columns.
    columns: usize,
}

impl SkinnyTile {
    /// The fewest columns with which each multiprocessor has at most one block. The loads of all weights of
    /// the product are then in flight at once, and the next kernel finds room on the multiprocessors.
    fn new(rows: usize, outer: usize, multiprocessors: usize) -> Self {
        let rows = rows.div_ceil(16).max(1);
        // The widths that the kernels are compiled for.
        let most = if rows == 1 { 4 } else { 3 };
        let mut fitting = (1..=most).filter(|columns| outer.is_multiple_of(columns * 8));
        let one_wave = |columns: &usize| outer / (columns * 8) <= multiprocessors;
        let columns = fitting.clone().find(one_wave).or(fitting.next_back());
        Self {
            rows,
            columns: columns.unwrap_or(1),
        }
    }

    /// Bytes for the sums of eight warps, with rows padded as in `cuda/skinny.cu`, two statistics per row,
    /// and the bias.
    fn shared_bytes(self) -> usize {
        let columns = self.columns * 8;
        let padding = if columns.is_multiple_of(16) { 8 } else { 0 };
        let rows = self.rows * 16;
        (8 * rows * (columns + padding + 2) + columns) * size_of::<f32>()
    }
}

/// The dimensions of a product's weight.
struct SkinnyShape {
    inner: usize,
    outer: usize,
}

impl<'a> Skinny<'a> {
    /// Asserts that all operands fit together.
    fn check(&self, rows: &RowCount) -> SkinnyShape {
        let (outer, max) = (self.bias.len(), rows.max);
        check(outer.is_multiple_of(8) && outer > 0, "skinny outer");
        check(self.w.len().is_multiple_of(outer), "skinny w");
        let inner = self.w.len() / outer;
        check(
            inner.is_multiple_of(32) && max <= SKINNY_ROWS_MAX,
            "skinny inner and rows",
        );
        check(self.x.len() >= max * inner, "skinny x");
        check(self.y.len() >= max * outer, "skinny y");
        if let Some((residual, _)) = self.residual {
            check(residual.len() >= max * outer, "skinny residual");
        }
        if let Some((norm, normalized)) = self.norm {
            let columns = [norm.gamma.len(), norm.beta.len()];
            check(columns == [inner; 2], "skinny norm");
            check(
                normalized.is_none_or(|n| n.len() >= max * inner),
                "skinny normalized",
            );
        }
        check(
            self.row_numbers().all(|rows| rows.len() >= max),
            "skinny row numbers",
        );
        check(
            self.values().iter().all(|b| b.dtype() == self.x.dtype()),
            "one type",
        );
        SkinnyShape { inner, outer }
    }

    /// All operands of the arithmetic's type.
    fn values(&self) -> Vec<&'a Buffer> {
        let mut buffers = vec![self.x, self.w, self.bias, self.y];
        if let Some((norm, normalized)) = self.norm {
            buffers.extend([&norm.gamma, &norm.beta]);
            buffers.extend(normalized);
        }
        buffers.extend(self.residual.map(|(residual, _)| residual));
        buffers
    }

    fn row_numbers(&self) -> impl Iterator<Item = &'a Buffer> {
        let residual_rows = self.residual.and_then(|(_, rows)| rows);
        [self.x_rows, residual_rows].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_bert_are_one_wave_of_blocks_on_a_large_device() {
        let columns = |rows, outer| SkinnyTile::new(rows, outer, 132).columns;
        // BERT-base: output, queries-keys-values, feed-forward; BERT-large; widths without a wide divisor.
        let expected = [
            (768, 1),
            (2304, 3),
            (3072, 3),
            (1024, 1),
            (4096, 4),
            (8, 1),
            (1064, 1),
        ];
        for (outer, expected) in expected {
            assert_eq!(columns(12, outer), expected, "{outer}");
        }
        assert_eq!(columns(32, 4096), 2, "32 columns are for 16 rows only");
        assert_eq!(SkinnyTile::new(16, 3072, 40).columns, 4, "the widest");
    }

    #[test]
    fn the_largest_tile_leaves_room_for_the_longest_gains() {
        for (rows, columns) in [(1, 4), (2, 2), (2, 3)] {
            let tile = SkinnyTile { rows, columns };
            assert!(tile.shared_bytes() + 2 * 2048 * 2 <= 48 << 10, "{tile:?}");
        }
    }
}
