//! Memory with a guard page behind it.

use std::ffi::c_void;

use super::stream::SharedStream;
use crate::backend::{PinnedRegion, Region};

/// Zeroed memory that ends, except for up to 15 bytes of alignment, where a protected page begins.
#[derive(Debug)]
pub(super) struct GuardedMemory {
    mapping: *mut c_void,
    mapped: usize,
    start: usize,
    bytes: usize,
}

// SAFETY: plain memory; every use of its address is bound by the contract of `Backend`.
unsafe impl Send for GuardedMemory {}
// SAFETY: as above.
unsafe impl Sync for GuardedMemory {}

impl GuardedMemory {
    pub(super) fn new(bytes: usize) -> Option<Self> {
        const PAGE: usize = 4096;
        let room = bytes.next_multiple_of(16).next_multiple_of(PAGE);
        let mapped = room + PAGE;
        let (protection, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a new anonymous mapping at an address that the system chooses.
        let mapping = unsafe { libc::mmap(std::ptr::null_mut(), mapped, protection, flags, -1, 0) };
        if mapping == libc::MAP_FAILED {
            return None;
        }
        let memory = Self {
            mapping,
            mapped,
            start: mapping as usize + room - bytes.next_multiple_of(16),
            bytes,
        };
        // SAFETY: the last page of the mapping above.
        let guarded = unsafe { libc::mprotect(mapping.byte_add(room), PAGE, libc::PROT_NONE) };
        (guarded == 0).then_some(memory)
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl PinnedRegion for GuardedMemory {
    fn pointer(&self) -> *mut u8 {
        self.start as *mut u8
    }
}

impl Drop for GuardedMemory {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, unmapped once.
        unsafe { libc::munmap(self.mapping, self.mapped) };
    }
}

/// Emulated device memory.
#[derive(Debug)]
pub(super) struct EmulatedMemory {
    pub(super) memory: GuardedMemory,
    pub(super) stream: SharedStream,
}

impl Region for EmulatedMemory {
    fn address(&self) -> u64 {
        self.memory.pointer() as u64
    }
}

impl Drop for EmulatedMemory {
    fn drop(&mut self) {
        let mut stream = self.stream.lock();
        // Enqueued work may use the memory. A lost device does no more work.
        let _ = stream.run_all_enqueued();
        stream.allocated -= self.memory.bytes();
    }
}
