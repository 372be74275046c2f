//! The configuration and the counters of the emulator.

/// The device to emulate.
#[derive(Debug, Clone)]
pub struct Emulation {
    /// Bytes of device memory.
    pub memory_bytes: usize,
    /// Compute capability, major and minor: (7, 5) is Turing.
    pub compute_capability: (u32, u32),
    /// The number of launches after which the context is lost, as after an illegal address.
    pub lost_after: Option<u64>,
    /// Seed for the order in which warps run.
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

/// Counts of the emulator's operations so far.
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
    /// Waits of the host for work that was not yet done.
    pub waits: u64,
}
