//! The fuzz target `event_record` of `targets/`.
#![no_main]

mod bounded;

libfuzzer_sys::fuzz_target!(
    init: bounded::init(),
    |data: &[u8]| bounded::run(intentd_fuzz::event_record, data, bounded::JSON)
);
