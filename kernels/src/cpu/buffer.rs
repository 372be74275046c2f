//! Memory aligned to cache lines, so that no vector lies across two lines.

use std::fmt::{self, Debug, Formatter};
use std::marker::PhantomData;

/// One cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Number types that a [`Buffer`] holds.
///
/// # Safety
/// Every bit pattern is a value of the type, and its size and alignment divide 64.
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

/// A vector of numbers that begins at a cache line. It never frees memory when it shrinks.
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
    /// `len` zeros, in large pages where the operating system supports them.
    pub(super) fn zeros(len: usize) -> Self {
        let mut buffer = Self::default();
        buffer
            .lines
            .reserve_exact(checked_product([len, size_of::<T>()]).div_ceil(64));
        // Before the first write, which allocates the pages.
        ask_for_large_pages(buffer.lines.spare_capacity_mut());
        buffer.resize(len);
        buffer
    }

    /// Changes the length. Existing numbers keep their values, also those that a shorter length had hidden;
    /// new ones are zero.
    ///
    /// # Panics
    /// When the size in bytes exceeds the address space.
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

/// The product of `factors`, as the size of a buffer.
///
/// # Panics
/// When it overflows. Unchecked reads and writes rely on this: they stay inside buffers of such sizes.
pub(super) fn checked_product<const N: usize>(factors: [usize; N]) -> usize {
    let product = factors.into_iter().try_fold(1_usize, usize::checked_mul);
    product.expect("a size that can be addressed")
}

/// The distance between rows of `width` numbers of `size` bytes: whole cache lines.
///
/// Rows whose distance is a multiple of 2 KiB fall into the same few sets of the first-level cache, which
/// then cannot hold a tile of them; one more line avoids that.
pub(super) fn row_stride(width: usize, size: usize) -> usize {
    let line = 64 / size;
    let stride = width.next_multiple_of(line);
    match (stride * size).is_multiple_of(2048) {
        true => stride + line,
        false => stride,
    }
}

/// Asks for 2 MB pages. Every batch reads all weights; large pages need a fraction of the address
/// translations, and allocating them while the weights are loaded takes a fraction of the time.
#[cfg(target_os = "linux")]
fn ask_for_large_pages(memory: &mut [std::mem::MaybeUninit<Line>]) {
    use rustix::mm::{Advice, madvise};
    const PAGE: usize = 2 << 20;
    let range = memory.as_mut_ptr_range();
    // Only whole pages inside this memory, so that the process uses no more of it than otherwise.
    let start = range.start.addr().next_multiple_of(PAGE);
    let end = range.end.addr() / PAGE * PAGE;
    if start < end {
        let place = range.start.with_addr(start).cast();
        // SAFETY: the range lies inside memory that we own, and the advice does not change its contents.
        // Where the advice is not followed, the pages are small.
        let _ = unsafe { madvise(place, end - start, Advice::LinuxHugepage) };
    }
}

#[cfg(not(target_os = "linux"))]
fn ask_for_large_pages(_: &mut [std::mem::MaybeUninit<Line>]) {}
