//! Runs every kernel from its CUDA source in the emulator, and compares it with its oracle.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![cfg_attr(
    not(has_emulator),
    allow(dead_code, reason = "nothing runs without the emulator")
)]

#[cfg(has_emulator)]
mod attention;
#[cfg(has_emulator)]
mod device;
#[cfg(has_emulator)]
mod rows;
#[cfg(has_emulator)]
mod skinny;
#[cfg(has_emulator)]
mod support;

#[cfg(not(has_emulator))]
#[test]
fn skipped() {
    eprintln!("skipped: no C++ compiler when this package was built, hence no emulator");
}
