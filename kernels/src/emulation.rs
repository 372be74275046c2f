//! What the emulator is to play, and what it tells afterwards.

/// What device the emulator plays.
#[derive(Debug, Clone)]
pub struct Emulation {
    /// Bytes of device memory.
    pub memory_bytes: usize,
    /// As a GPU would tell: (7, 5) for Turing.
    pub compute_capability: (u32, u32),
    /// Number of launches after which the context is lost, as after an illegal address.
    pub lost_after: Option<u64>,
    /// Decides on the order in which warps run.
    pub seed: u64,
}

impl Default for Emulation {
    fn default() -> Self {
        Self {
            memory_bytes: 1 << 32,
            compute_capability: (8, 0),
            lost_after: None,
            seed: 1,
        }
    }
}

/// What the emulator has been asked for so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Allocations of device memory.
    pub allocations: u64,
    /// Kernels and products enqueued one by one (not as part of a graph).
    pub launches: u64,
    /// Graphs recorded.
    pub captures: u64,
    /// Graphs enqueued.
    pub replays: u64,
    /// Times that the host waited for work that was not yet done.
    pub waits: u64,
}
