//! Rows of results that a team writes together.

use std::marker::PhantomData;

use super::shared::SharedPointer;

/// Rows of results that threads write at the same time, each into columns of its own.
#[derive(Clone, Copy)]
pub(super) struct OutputRows<'a> {
    pointer: SharedPointer<f32>,
    /// Distance between the starts of two rows.
    stride: usize,
    /// Distance from the pointer to the end of the memory.
    end: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

impl<'a> OutputRows<'a> {
    /// The rows in `values`, whose starts are `stride` apart.
    pub(super) fn new(values: &'a mut [f32], stride: usize) -> Self {
        Self {
            end: values.len(),
            pointer: SharedPointer::new(values),
            stride,
            borrow: PhantomData,
        }
    }

    /// The part from this row and column on.
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
    /// Nothing else uses these columns: they belong to a panel that `Team::share` gave to the calling
    /// thread, which uses one row of it at a time, or nothing else uses the output at all.
    #[inline(always)]
    pub(super) unsafe fn row(&self, row: usize, columns: usize) -> &'a mut [f32] {
        let offset = row * self.stride;
        assert!(offset + columns <= self.end, "inside the output");
        // SAFETY: inside the memory, as asserted, which is borrowed for 'a. The caller promises that
        // nothing else uses this part of it.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.at(offset), columns) }
    }
}
