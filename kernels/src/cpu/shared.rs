//! A pointer to memory that the threads of a team write together.

/// A pointer that threads share; each of them writes elsewhere.
pub(super) struct SharedPointer<T>(*mut T);

impl<T> Clone for SharedPointer<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SharedPointer<T> {}

// SAFETY: it is only a pointer; whoever follows it says why nobody else does.
unsafe impl<T: Send> Sync for SharedPointer<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for SharedPointer<T> {}

impl<T> SharedPointer<T> {
    /// The start of `values`.
    pub(super) fn new(values: &mut [T]) -> Self {
        Self(values.as_mut_ptr())
    }

    /// # Safety
    /// `offset` is inside what the pointer points to.
    pub(super) unsafe fn at(self, offset: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }

    /// The pointer `offset` numbers further on.
    ///
    /// # Safety
    /// As for [`at`](Self::at), or `offset` is just behind the end.
    pub(super) unsafe fn add(self, offset: usize) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { self.0.add(offset) })
    }
}
