//! Matrix products on the CPU.

use crate::backend::{Dtype, ProductOperands, ProductShape};
use crate::oracle;

/// `y = x · wᵀ + bias + residual` with sums in f32, as cuBLASLt computes it.
pub(super) fn product(shape: &ProductShape, operands: ProductOperands) {
    // SAFETY: the contract of `Backend::product` covers the addresses.
    let read = |address: u64, len: usize| unsafe { read(shape.dtype, address, len) };
    let x = read(operands.x, shape.rows * shape.inner);
    let w = read(operands.w, shape.outer * shape.inner);
    let bias = match shape.bias {
        true => read(operands.bias, shape.outer),
        false => vec![0.0; shape.outer],
    };
    let residual = match shape.residual {
        true => read(operands.residual, shape.rows * shape.outer),
        false => vec![0.0; shape.rows * shape.outer],
    };
    for (row, x) in x.chunks_exact(shape.inner).enumerate() {
        for (column, w) in w.chunks_exact(shape.inner).enumerate() {
            let at = row * shape.outer + column;
            let value = oracle::dot(x, w) + bias[column] + residual[at];
            // SAFETY: as above.
            unsafe { write(shape.dtype, operands.y, at, value) };
        }
    }
}

/// # Safety
/// `address` has `len` values of the type.
unsafe fn read(dtype: Dtype, address: u64, len: usize) -> Vec<f32> {
    let index = 0..len;
    // SAFETY: the caller's promise.
    unsafe {
        match dtype {
            Dtype::F16 => index
                .map(|i| (*(address as *const half::f16).add(i)).to_f32())
                .collect(),
            Dtype::Bf16 => index
                .map(|i| (*(address as *const half::bf16).add(i)).to_f32())
                .collect(),
            Dtype::F32 | Dtype::U32 => index.map(|i| *(address as *const f32).add(i)).collect(),
        }
    }
}

/// # Safety
/// `address` has more than `index` values of the type.
unsafe fn write(dtype: Dtype, address: u64, index: usize, value: f32) {
    // SAFETY: the caller's promise.
    unsafe {
        match dtype {
            Dtype::F16 => *(address as *mut half::f16).add(index) = half::f16::from_f32(value),
            Dtype::Bf16 => *(address as *mut half::bf16).add(index) = half::bf16::from_f32(value),
            Dtype::F32 | Dtype::U32 => *(address as *mut f32).add(index) = value,
        }
    }
}
