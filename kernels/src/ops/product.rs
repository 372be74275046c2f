//! Matrix products by the library (cuBLASLt).

use super::launch::check;
use crate::backend::{DeviceError, ProductOperands, ProductShape};
use crate::device::Device;
use crate::memory::Buffer;

/// A matrix product by the library.
#[derive(Debug)]
pub struct Product<'a> {
    /// Sizes, and which of the optional operands are present.
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
        device.note_use(&buffers);
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
    /// `y = x · wᵀ (+ bias) (+ residual)`, computed by the library.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn product(&self, product: &Product<'_>) -> Result<(), DeviceError> {
        let operands = product.operands(self);
        // SAFETY: `operands` has checked the sizes.
        unsafe { self.backend().product(&product.shape, operands) }
    }

    /// Searches for the fastest algorithm for the shape, a few milliseconds per call; returns true
    /// when all have been tried. Overwrites `y` and waits for the device.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn tune(&self, product: &Product<'_>) -> Result<bool, DeviceError> {
        let operands = product.operands(self);
        // SAFETY: `operands` has checked the sizes.
        unsafe { self.backend().tune(&product.shape, operands) }
    }
}
