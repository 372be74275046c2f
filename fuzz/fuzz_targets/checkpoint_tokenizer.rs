//! The fuzz target `checkpoint_tokenizer` of `targets/`.
#![no_main]

/// An allocation beyond this limit fails and ends the run, which libFuzzer reports.
#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, 256 << 20);

// libFuzzer's own hook ends the run at every panic, including those of the tokenizer library that the server
// catches. An uncaught panic still ends the run without that hook.
libfuzzer_sys::fuzz_target!(
    init: std::panic::set_hook(Box::new(|_| {})),
    |data: &[u8]| intentd_fuzz::checkpoint_tokenizer(data)
);
