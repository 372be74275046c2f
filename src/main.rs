//! The `intentd` program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// mimalloc keeps the memory of large batches. glibc's allocator returns it and requests it again each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    intentd::cli::main()
}
