//! Grids and arguments of kernel launches.

use crate::backend::{Argument, Launch};
use crate::memory::Buffer;

/// Asserts a condition on the arguments of a kernel.
pub(super) fn check(condition: bool, what: &str) {
    assert!(condition, "kernel arguments: {what}");
}

/// The number of blocks of `threads` for `items` with `each` threads per item.
pub(super) fn blocks(items: usize, each: usize, threads: u32) -> u32 {
    (items * each).div_ceil(threads as usize) as u32
}

/// A launch that may overlap with the kernel before it.
pub(super) fn launch(blocks: u32, threads: u32) -> Launch {
    Launch {
        blocks,
        threads,
        shared_bytes: 0,
        overlaps: true,
    }
}

/// A launch for a kernel that reads the result of a copy: it begins when all earlier work has ended.
pub(super) fn after_copy(blocks: u32, threads: u32) -> Launch {
    Launch {
        overlaps: false,
        ..launch(blocks, threads)
    }
}

/// A size as a kernel argument.
pub(super) fn int(value: usize) -> Argument {
    Argument::I32(i32::try_from(value).expect("sizes of a model fit 31 bits"))
}

/// The buffer's address, or a null pointer.
pub(super) fn optional(buffer: Option<&Buffer>) -> Argument {
    buffer.map_or(Argument::Address(0), Buffer::argument)
}
