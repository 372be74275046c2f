//! Rows of activations as 8-bit integers, with a scale for each row: `value ≈ scale · code`.

use pulp::{Simd, WithSimd};

use super::buffer::{Buffer, Number, checked_product, row_stride};
use super::elementwise::largest_magnitude;
use super::isa::Isa;
use super::shared::SharedPointer;

/// The largest magnitude of a code.
pub(super) const CODE_MAX: f32 = 127.0;
/// The offset that makes a code unsigned.
pub(super) const OFFSET: i32 = 128;
/// Inputs are padded to a multiple of this, which both kernels' groups divide.
pub(super) const INPUTS_MULTIPLE: usize = 4;
/// Quantized rows.
#[derive(Debug)]
pub(super) struct QuantizedRows {
    pub(super) codes: Codes,
    /// The scale of each row.
    pub(super) scales: Buffer<f32>,
}

/// The codes of all rows, in the format that the machine's instructions multiply.
#[derive(Debug)]
pub(super) enum Codes {
    /// `code + 128`, for VNNI.
    Unsigned(CodeRows<u8>),
    /// Signed codes of 16 bits, for products of pairs.
    Words(CodeRows<i16>),
}

/// Rows of codes in one format.
#[derive(Debug)]
pub(super) struct CodeRows<T: Number> {
    codes: Buffer<T>,
    /// Distance between the starts of two rows.
    stride: usize,
}

impl<T: Number> CodeRows<T> {
    fn new(width: usize) -> Self {
        Self {
            codes: Buffer::default(),
            stride: row_stride(width, size_of::<T>()),
        }
    }

    fn resize(&mut self, rows: usize) {
        self.codes.resize(checked_product([rows, self.stride]));
    }

    /// The codes from row `first` on, and the stride between rows.
    pub(super) fn rows_from(&self, first: usize) -> (&[T], usize) {
        (&self.codes.as_slice()[first * self.stride..], self.stride)
    }

    fn shared(&mut self) -> SharedCodeRows<T> {
        SharedCodeRows {
            codes: SharedPointer::new(self.codes.as_mut_slice()),
            stride: self.stride,
        }
    }
}

impl QuantizedRows {
    pub(super) fn new(isa: Isa, width: usize) -> Self {
        let width = width.next_multiple_of(INPUTS_MULTIPLE);
        Self {
            codes: match isa.has_vnni() {
                true => Codes::Unsigned(CodeRows::new(width)),
                false => Codes::Words(CodeRows::new(width)),
            },
            scales: Buffer::default(),
        }
    }

    pub(super) fn resize(&mut self, rows: usize) {
        match &mut self.codes {
            Codes::Unsigned(codes) => codes.resize(rows),
            Codes::Words(codes) => codes.resize(rows),
        }
        self.scales.resize(rows);
    }

    /// The rows, for threads that write them at the same time.
    pub(super) fn shared(&mut self) -> SharedQuantizedRows {
        SharedQuantizedRows {
            codes: match &mut self.codes {
                Codes::Unsigned(codes) => SharedCodes::Unsigned(codes.shared()),
                Codes::Words(codes) => SharedCodes::Words(codes.shared()),
            },
            scales: SharedPointer::new(self.scales.as_mut_slice()),
        }
    }
}

/// Quantized rows that threads write at the same time.
#[derive(Clone, Copy)]
pub(super) struct SharedQuantizedRows {
    codes: SharedCodes,
    scales: SharedPointer<f32>,
}

#[derive(Clone, Copy)]
enum SharedCodes {
    Unsigned(SharedCodeRows<u8>),
    Words(SharedCodeRows<i16>),
}

#[derive(Clone, Copy)]
struct SharedCodeRows<T> {
    codes: SharedPointer<T>,
    stride: usize,
}

impl<T> SharedCodeRows<T> {
    /// # Safety
    /// The row exists, and nothing else uses it during `'a`.
    unsafe fn row<'a>(self, row: usize) -> &'a mut [T] {
        // SAFETY: the caller's promise.
        unsafe {
            let start = self.codes.at(row * self.stride);
            std::slice::from_raw_parts_mut(start, self.stride)
        }
    }
}

/// One quantized row, to be written.
pub(super) struct QuantizedRowMut<'a> {
    codes: CodesMut<'a>,
    scale: &'a mut f32,
}

enum CodesMut<'a> {
    Unsigned(&'a mut [u8]),
    Words(&'a mut [i16]),
}

impl SharedQuantizedRows {
    /// # Safety
    /// The row exists, and nothing else uses it during `'a`.
    pub(super) unsafe fn row<'a>(self, row: usize) -> QuantizedRowMut<'a> {
        // SAFETY: the caller's promise, for both formats of codes and the scale.
        unsafe {
            QuantizedRowMut {
                codes: match self.codes {
                    SharedCodes::Unsigned(codes) => CodesMut::Unsigned(codes.row(row)),
                    SharedCodes::Words(codes) => CodesMut::Words(codes.row(row)),
                },
                scale: &mut *self.scales.at(row),
            }
        }
    }
}

/// Quantizes one row.
pub(super) fn quantize(isa: Isa, row: &[f32], quantized: QuantizedRowMut<'_>) {
    isa.dispatch(Quantize { row, quantized });
}

struct Quantize<'a> {
    row: &'a [f32],
    quantized: QuantizedRowMut<'a>,
}

impl WithSimd for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let largest = largest_magnitude(self.row);
        *self.quantized.scale = largest / CODE_MAX;
        let factor = factor(largest);
        match self.quantized.codes {
            CodesMut::Unsigned(codes) => {
                for (code, value) in codes.iter_mut().zip(self.row) {
                    *code = (nearest(value * factor) + OFFSET) as u8;
                }
            }
            CodesMut::Words(codes) => {
                for (code, value) in codes.iter_mut().zip(self.row) {
                    *code = nearest(value * factor) as i16;
                }
            }
        }
    }
}

/// The factor from values to codes, for a row whose largest magnitude is given. It is 0 for a row of zeros,
/// and for a row with a NaN or an infinity, whose scale is NaN and makes every result NaN.
#[inline(always)]
pub(super) fn factor(largest: f32) -> f32 {
    let factor = CODE_MAX / largest;
    match factor.is_finite() {
        true => factor,
        false => 0.0,
    }
}

/// The nearest integer, ties to even, of a value between -2²¹ and 2²¹.
#[inline(always)]
pub(super) fn nearest(value: f32) -> i32 {
    // Adding 1.5·2²³ puts the nearest integer into the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    (value + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32
}
