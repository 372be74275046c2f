//! Rows of results that the threads of a team write together.

use std::marker::PhantomData;

use super::shared::SharedPointer;

/// Rows of sums that threads write at the same time, each into columns of its own.
#[derive(Clone, Copy)]
pub(super) struct OutputRows<'a> {
    pointer: SharedPointer<f32>,
    /// Numbers from row to row.
    stride: usize,
    /// Numbers from the pointer to the end of the memory.
    end: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

impl<'a> OutputRows<'a> {
    /// Rows that begin `stride` numbers apart in `values`.
    pub(super) fn new(values: &'a mut [f32], stride: usize) -> Self {
        Self {
            end: values.len(),
            pointer: SharedPointer::new(values),
            stride,
            borrow: PhantomData,
        }
    }

    /// From this row and column on.
    #[inline(always)]
    pub(super) fn part(self, row: usize, column: usize) -> Self {
        let offset = row * self.stride + column;
        assert!(offset <= self.end, "inside the output");
        Self {
            // SAFETY: inside the memory, as asserted.
            pointer: unsafe { self.pointer.add(offset) },
            end: self.end - offset,
            ..self
        }
    }

    /// The first `columns` of a row.
    ///
    /// # Safety
    /// Nobody else has these columns: they are those of a panel that `Team::share` handed to the
    /// calling thread, which holds one row of it at a time; or the output is exclusive.
    #[inline(always)]
    pub(super) unsafe fn row(&self, row: usize, columns: usize) -> &'a mut [f32] {
        let offset = row * self.stride;
        assert!(offset + columns <= self.end, "inside the output");
        // SAFETY: inside the memory, as asserted, which is borrowed for 'a; that nobody else has
        // this part of it is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.at(offset), columns) }
    }
}
