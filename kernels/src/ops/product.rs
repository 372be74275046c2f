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
pub const SKINNY_ROWS_MAX: usize = 64;

impl Device {
    /// `y = x · wᵀ (+ bias)` through the library of matrix products.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn product(
        &self,
        shape: &ProductShape,
        x: &Buffer,
        w: &Buffer,
        bias: Option<&Buffer>,
        y: &Buffer,
    ) -> Result<(), DeviceError> {
        let operands = self.operands(shape, x, w, bias, y);
        // SAFETY: `operands` has checked the sizes.
        unsafe { self.backend().product(shape, operands) }
    }

    /// Chooses the fastest algorithm for the shape by trying, a few milliseconds at a time; true
    /// when all have been tried. Overwrites `y`, waits.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn tune(
        &self,
        shape: &ProductShape,
        x: &Buffer,
        w: &Buffer,
        bias: Option<&Buffer>,
        y: &Buffer,
    ) -> Result<bool, DeviceError> {
        let operands = self.operands(shape, x, w, bias, y);
        // SAFETY: `operands` has checked the sizes.
        unsafe { self.backend().tune(shape, operands) }
    }

    fn operands(
        &self,
        shape: &ProductShape,
        x: &Buffer,
        w: &Buffer,
        bias: Option<&Buffer>,
        y: &Buffer,
    ) -> ProductOperands {
        check(x.len() >= shape.rows * shape.inner, "product x");
        check(w.len() == shape.outer * shape.inner, "product w");
        check(y.len() >= shape.rows * shape.outer, "product y");
        check(bias.is_some() == shape.bias, "product bias");
        check(
            bias.is_none_or(|bias| bias.len() == shape.outer),
            "product bias length",
        );
        let mut buffers = vec![x, w, y];
        buffers.extend(bias);
        check(buffers.iter().all(|b| b.dtype() == shape.dtype), "one type");
        self.uses(&buffers);
        ProductOperands {
            x: x.address(),
            w: w.address(),
            bias: bias.map_or(0, Buffer::address),
            y: y.address(),
        }
    }

    /// A product for few rows, with LayerNorm before and activation and residual after; f16 and
    /// bf16, `rows.max` up to [`SKINNY_ROWS_MAX`], inner a multiple of 32, outer of 8.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn skinny(&self, rows: &Rows, skinny: &Skinny<'_>) -> Result<(), DeviceError> {
        let (inner, outer) = skinny.check(rows);
        let dtype = skinny.x.dtype();
        let row_tiles = rows.max.div_ceil(16).next_power_of_two();
        // Wide outputs have columns enough for every multiprocessor at two tiles a block.
        let wide = outer >= 2048 && outer.is_multiple_of(16) && row_tiles < 4;
        let column_tiles = if wide { 2 } else { 1 };
        let kind = if skinny.norm.is_some() {
            "norm"
        } else {
            "plain"
        };
        let name = format!("skinny_{kind}_{}_{row_tiles}_{column_tiles}", dtype.name());
        let tile = row_tiles * 16 * column_tiles * 8;
        let grid = Launch {
            blocks: (outer / (column_tiles * 8)) as u32,
            threads: 256,
            // Eight warps' sums, and two statistics a row.
            shared_bytes: ((8 * tile + row_tiles * 32) * 4) as u32,
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
