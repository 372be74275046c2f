//! The emulator behind [`Device`](crate::Device): the kernels' own sources, compiled as C++ and run on
//! the CPU.
//!
//! The emulator keeps the asynchrony of a GPU: enqueued work runs only when the host waits for it. A host
//! that reads too early or overwrites too soon therefore gets wrong results here, too. Device memory ends
//! at a protected page, so a kernel that reads beyond its buffer crashes.

mod emulator;
mod kernel;
mod memory;
mod product;
mod signal;
mod stream;

pub(crate) use emulator::Emulator;
