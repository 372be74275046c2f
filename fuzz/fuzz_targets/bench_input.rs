//! The fuzz target `bench_input` of `targets/`.
#![no_main]

mod bounded;

libfuzzer_sys::fuzz_target!(
    init: bounded::init(),
    |data: &[u8]| bounded::run(intentd_fuzz::bench_input, data, bounded::JSON)
);
