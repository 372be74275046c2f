//! A pointer to memory that a team writes together.

/// A pointer that threads share; each thread writes to a different part of the memory.
pub(super) struct SharedPointer<T>(*mut T);

impl<T> Clone for SharedPointer<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SharedPointer<T> {}

// SAFETY: only a pointer; every use of it states why no other thread accesses the same memory.
unsafe impl<T: Send> Sync for SharedPointer<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for SharedPointer<T> {}

impl<T> SharedPointer<T> {
    /// The start of `values`.
    pub(super) fn new(values: &mut [T]) -> Self {
        Self(values.as_mut_ptr())
    }

    /// The address of element `offset`.
    ///
    /// # Safety
    /// `offset` is inside the memory that the pointer was made for.
    #[inline(always)]
    pub(super) unsafe fn at(self, offset: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }

    /// The pointer to element `offset`.
    ///
    /// # Safety
    /// `offset` is inside that memory, or at its end.
    #[inline(always)]
    pub(super) unsafe fn add(self, offset: usize) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { self.0.add(offset) })
    }
}
