//! Memory that begins at a cache line, so that no vector lies across two.

use std::fmt::{self, Debug, Formatter};
use std::marker::PhantomData;

/// One cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Numbers of which every bit pattern is one.
///
/// # Safety
/// Only for types of which each bit pattern is a value, whose alignment divides 64, and whose size
/// divides 64.
pub(super) unsafe trait Number: Copy {}

// SAFETY: every bit pattern of these is a value, and their sizes are 1, 2 and 4.
unsafe impl Number for u8 {}
// SAFETY: as above.
unsafe impl Number for i8 {}
// SAFETY: as above.
unsafe impl Number for i16 {}
// SAFETY: as above.
unsafe impl Number for u32 {}
// SAFETY: as above.
unsafe impl Number for i32 {}
// SAFETY: as above.
unsafe impl Number for f32 {}

/// A vector of numbers that begins at a cache line. It grows and never gives memory back.
pub(super) struct Buffer<T> {
    lines: Vec<Line>,
    len: usize,
    numbers: PhantomData<T>,
}

impl<T> Default for Buffer<T> {
    fn default() -> Self {
        Self {
            lines: Vec::new(),
            len: 0,
            numbers: PhantomData,
        }
    }
}

impl<T: Number> Debug for Buffer<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "[{}; {}]", std::any::type_name::<T>(), self.len)
    }
}

impl<T: Number> Buffer<T> {
    /// Zeros, in large pages where the operating system has them.
    pub(super) fn zeros(len: usize) -> Self {
        let mut buffer = Self::default();
        buffer
            .lines
            .reserve_exact(checked_product([len, size_of::<T>()]).div_ceil(64));
        // Before the first write, which is what takes the pages.
        ask_for_large_pages(buffer.lines.spare_capacity_mut());
        buffer.resize(len);
        buffer
    }

    /// What was there before keeps its value, also what a shorter length had hidden; the rest is
    /// zero.
    ///
    /// # Panics
    /// When that is more than can be addressed.
    pub(super) fn resize(&mut self, len: usize) {
        let lines = checked_product([len, size_of::<T>()]).div_ceil(64);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0; 64]));
        }
        self.len = len;
    }

    pub(super) fn as_slice(&self) -> &[T] {
        // SAFETY: the lines hold at least `len` initialised numbers (see `resize` and `Number`).
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

/// A size.
///
/// # Panics
/// When it is more than can be addressed: everything that is read or written without a check lies
/// in a buffer of such a size.
pub(super) fn checked_product<const N: usize>(factors: [usize; N]) -> usize {
    let product = factors.into_iter().try_fold(1_usize, usize::checked_mul);
    product.expect("a size that can be addressed")
}

/// Rows whose distance is a multiple of 2 KiB fall into the same few sets of the first-level
/// cache, which then cannot hold a tile of them: a line more keeps them apart.
pub(super) fn row_stride(width: usize, size: usize) -> usize {
    let line = 64 / size;
    let stride = width.next_multiple_of(line);
    match (stride * size).is_multiple_of(2048) {
        true => stride + line,
        false => stride,
    }
}

/// Weights are read from end to end in every batch: in pages of 2 MB, that takes a fraction of the
/// look-ups of addresses, and the pages are taken in a fraction of the time when the weights are
/// loaded.
#[cfg(target_os = "linux")]
fn ask_for_large_pages(memory: &mut [std::mem::MaybeUninit<Line>]) {
    use rustix::mm::{Advice, madvise};
    const PAGE: usize = 2 << 20;
    let range = memory.as_mut_ptr_range();
    // Only whole pages inside this memory, so that no more of it is taken than would be.
    let start = range.start.addr().next_multiple_of(PAGE);
    let end = range.end.addr() / PAGE * PAGE;
    if start < end {
        let place = range.start.with_addr(start).cast();
        // SAFETY: the range is inside of memory that is ours; the advice changes nothing in it.
        // Where it is not taken, the pages are small.
        let _ = unsafe { madvise(place, end - start, Advice::LinuxHugepage) };
    }
}

#[cfg(not(target_os = "linux"))]
fn ask_for_large_pages(_: &mut [std::mem::MaybeUninit<Line>]) {}
