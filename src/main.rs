//! The `intentd` program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// glibc's allocator gives memory of large batches back and takes it anew each time; mimalloc
/// keeps it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    intentd::cli::main()
}
