//! The fuzz target `scaler_replicas` of `targets/`.
#![no_main]

mod bounded;

libfuzzer_sys::fuzz_target!(
    init: bounded::init(),
    |data: &[u8]| bounded::run(intentd_fuzz::scaler_replicas, data, bounded::JSON)
);
