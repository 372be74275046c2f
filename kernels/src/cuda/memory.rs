//! Memory on the device and pinned memory of the host.

use cudarc::driver::{CudaSlice, PinnedHostSlice};

use crate::backend::{PinnedRegion, Region};

/// Device memory.
#[derive(Debug)]
pub(super) struct CudaMemory {
    pub(super) address: u64,
    pub(super) _slice: CudaSlice<u8>,
}

impl Region for CudaMemory {
    fn address(&self) -> u64 {
        self.address
    }
}

/// Pinned host memory.
#[derive(Debug)]
pub(super) struct CudaPinned {
    pub(super) pointer: *mut u8,
    pub(super) _slice: PinnedHostSlice<u8>,
}

// SAFETY: plain host memory; the slice may be moved between threads.
unsafe impl Send for CudaPinned {}
// SAFETY: a shared reference only gives the address of the memory.
unsafe impl Sync for CudaPinned {}

impl PinnedRegion for CudaPinned {
    fn pointer(&self) -> *mut u8 {
        self.pointer
    }
}
