//! A memory bound proportional to the input: a decoder may use a small multiple of the input's length.

use std::alloc::System;

use cap::Cap;

/// An allocation beyond the limit fails and ends the run, which libFuzzer reports.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, 256 << 20);

/// Bytes for every case, for example for messages.
const ROOM: usize = 256 << 10;

/// Bytes for each byte of JSON: a value of two bytes takes 32, and lists grow by doubling.
#[allow(dead_code, reason = "each target has its own program")]
pub(crate) const JSON: usize = 128;

/// Bytes for each byte of TOML: its parser's memory is proportional to the file, with a large factor.
#[allow(dead_code, reason = "each target has its own program")]
pub(crate) const TOML: usize = 2048;

/// Removes the limit when a panic is reported: without memory for the report, the process would hang.
pub(crate) fn init() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        ALLOCATOR
            .set_limit(usize::MAX)
            .expect("there is no such limit");
        hook(panic);
    }));
}

/// Runs a target on a case, with a limit of `each` bytes of memory for each byte of the case.
pub(crate) fn run(target: fn(&[u8]), data: &[u8], each: usize) {
    let limit = ALLOCATOR.allocated() + ROOM + each * data.len();
    ALLOCATOR
        .set_limit(limit)
        .expect("it is above what is allocated");
    target(data);
}
