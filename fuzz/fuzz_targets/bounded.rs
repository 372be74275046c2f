//! Memory by the length of the input: what a decoder takes is a small multiple of what was sent.

use std::alloc::System;

use cap::Cap;

/// What wants more than the limit gets nothing, which ends the run, and libFuzzer reports it.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, 256 << 20);

/// Bytes for any case, such as for messages.
const ROOM: usize = 256 << 10;

/// Bytes for each byte of JSON: a value takes 32 and may be one of two bytes, and lists grow by doubling.
#[allow(dead_code, reason = "each target has its own program")]
pub(crate) const JSON: usize = 128;

/// Bytes for each byte of TOML: what its parser takes grows with the file, but that steeply.
#[allow(dead_code, reason = "each target has its own program")]
pub(crate) const TOML: usize = 2048;

/// Lets a panic be written: with too little memory for that, the process would hang.
pub(crate) fn init() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        ALLOCATOR
            .set_limit(usize::MAX)
            .expect("there is no such limit");
        hook(panic);
    }));
}

/// Runs a target on a case, within `each` bytes of memory for each of its bytes.
pub(crate) fn run(target: fn(&[u8]), data: &[u8], each: usize) {
    let limit = ALLOCATOR.allocated() + ROOM + each * data.len();
    ALLOCATOR
        .set_limit(limit)
        .expect("it is above what is allocated");
    target(data);
}
