//! The fuzz target `inference_grpc` of `targets/`.
#![no_main]

mod bounded;

libfuzzer_sys::fuzz_target!(
    init: bounded::init(),
    |data: &[u8]| bounded::run(intentd_fuzz::inference_grpc, data, bounded::JSON)
);
