//! The fuzz target `request_body` of `targets/`.
#![no_main]

/// An allocation beyond this limit fails and ends the run, which libFuzzer reports.
#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, 256 << 20);

libfuzzer_sys::fuzz_target!(|data: &[u8]| intentd_fuzz::request_body(data));
