//! Matrix products: the library's, and our own for a few rows.

use super::{Activation, Norm, Rows, check, int, optional};
use crate::backend::{Argument, DeviceError, Launch, ProductOperands, ProductShape};
use crate::device::Device;
use crate::memory::Buffer;

/// A product for few rows with all that surrounds it; see `cuda/skinny.cu`.
#[derive(Debug)]
pub struct Skinny<'a> {
    /// `[.., inner]`
    pub x: &'a Buffer,
    /// Which rows of `x`; row r where not given.
    pub x_rows: Option<&'a Buffer>,
    /// LayerNorm of x's rows before the product, and where to put the normalized rows.
    pub norm: Option<(&'a Norm, Option<&'a Buffer>)>,
    /// `[outer, inner]`
    pub w: &'a Buffer,
    /// `[outer]`
    pub bias: &'a Buffer,
    /// Of product and bias.
    pub activation: Activation,
    /// Added at the end, `[.., outer]`, with which of its rows.
    pub residual: Option<(&'a Buffer, Option<&'a Buffer>)>,
    /// `[rows, outer]`
    pub y: &'a Buffer,
}

/// Rows up to which [`Device::skinny`] works.
pub const SKINNY_ROWS_MAX: usize = 32;

/// A product for the library.
#[derive(Debug)]
pub struct Product<'a> {
    /// Sizes, and which of the operands below there are.
    pub shape: ProductShape,
    /// `[rows, inner]`
    pub x: &'a Buffer,
    /// `[outer, inner]`
    pub w: Buffer,
    /// `[outer]`
    pub bias: Option<Buffer>,
    /// `[rows, outer]`
    pub residual: Option<&'a Buffer>,
    /// `[rows, outer]`
    pub y: &'a Buffer,
}

impl Product<'_> {
    fn operands(&self, device: &Device) -> ProductOperands {
        let Self { shape, x, w, y, .. } = self;
        let (bias, residual) = (self.bias.as_ref(), self.residual);
        check(x.len() >= shape.rows * shape.inner, "product x");
        check(w.len() == shape.outer * shape.inner, "product w");
        check(y.len() >= shape.rows * shape.outer, "product y");
        check(bias.is_some() == shape.bias, "product bias");
        check(residual.is_some() == shape.residual, "product residual");
        check(
            bias.is_none_or(|bias| bias.len() == shape.outer),
            "product bias length",
        );
        check(
            residual.is_none_or(|residual| residual.len() >= shape.rows * shape.outer),
            "product residual length",
        );
        check(
            [*x, w]
                .iter()
                .chain(&residual)
                .all(|b| b.address() != y.address()),
            "a product's result is none of its operands",
        );
        let mut buffers = vec![*x, w, *y];
        buffers.extend(bias);
        buffers.extend(residual);
        check(buffers.iter().all(|b| b.dtype() == shape.dtype), "one type");
        device.uses(&buffers);
        ProductOperands {
            x: x.address(),
            w: w.address(),
            bias: bias.map_or(0, Buffer::address),
            residual: residual.map_or(0, Buffer::address),
            y: y.address(),
        }
    }
}

impl Device {
    /// `y = x · wᵀ (+ bias) (+ residual)` through the library of matrix products.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn product(&self, product: &Product<'_>) -> Result<(), DeviceError> {
        let operands = product.operands(self);
        // SAFETY: `operands` has checked the sizes.
        unsafe { self.backend().product(&product.shape, operands) }
    }

    /// Chooses the fastest algorithm for the shape by trying, a few milliseconds at a time; true
    /// when all have been tried. Overwrites `y`, waits.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn tune(&self, product: &Product<'_>) -> Result<bool, DeviceError> {
        let operands = product.operands(self);
        // SAFETY: `operands` has checked the sizes.
        unsafe { self.backend().tune(&product.shape, operands) }
    }

    /// A product for few rows, with LayerNorm before and activation and residual after; f16 and
    /// bf16, `rows.max` up to [`SKINNY_ROWS_MAX`], inner a multiple of 32, outer of 8.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn skinny(&self, rows: &Rows, skinny: &Skinny<'_>) -> Result<(), DeviceError> {
        let (inner, outer) = skinny.check(rows);
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
        // SAFETY: sizes were checked; row numbers come from a laid-out batch and lie inside it.
        unsafe { self.launch(&name, grid, &buffers, &arguments) }
    }
}

/// What a block of the kernel does: sixteens of rows, eights of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SkinnyTile {
    rows: usize,
    columns: usize,
}

impl SkinnyTile {
    /// As few columns as leave one block a multiprocessor at most: then the weights of the whole
    /// product are under way at once, and the next kernel finds room beside it.
    fn new(rows: usize, outer: usize, multiprocessors: usize) -> Self {
        let rows = rows.div_ceil(16).max(1);
        // What the kernels are compiled for.
        let most = if rows == 1 { 4 } else { 3 };
        let mut fitting = (1..=most).filter(|columns| outer.is_multiple_of(columns * 8));
        let one_wave = |columns: &usize| outer / (columns * 8) <= multiprocessors;
        let columns = fitting.clone().find(one_wave).or(fitting.next_back());
        Self {
            rows,
            columns: columns.unwrap_or(1),
        }
    }

    /// Eight warps' sums, their rows padded as in `cuda/skinny.cu`, and two statistics a row; the bias.
    fn shared_bytes(self) -> usize {
        let columns = self.columns * 8;
        let padding = if columns.is_multiple_of(16) { 8 } else { 0 };
        let rows = self.rows * 16;
        (8 * rows * (columns + padding + 2) + columns) * size_of::<f32>()
    }
}

impl<'a> Skinny<'a> {
    /// Inner and outer dimension, after a check of everything.
    fn check(&self, rows: &Rows) -> (usize, usize) {
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
        (inner, outer)
    }

    /// Everything of the type that is computed in.
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
        // BERT-base: output, queries-keys-values, feed-forward; BERT-large; widths that nothing divides.
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
        assert_eq!(
            SkinnyTile::new(16, 3072, 40).columns,
            4,
            "as wide as there is"
        );
    }

    #[test]
    fn the_largest_tile_leaves_room_for_the_longest_gains() {
        for (rows, columns) in [(1, 4), (2, 2), (2, 3)] {
            let tile = SkinnyTile { rows, columns };
            assert!(tile.shared_bytes() + 2 * 2048 * 2 <= 48 << 10, "{tile:?}");
        }
    }
}
