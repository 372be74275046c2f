//! `checkpoint_tokenizer` of `targets/`.
#![no_main]

/// A decoder that wants more memory than this ends the run, which libFuzzer reports.
#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, 256 << 20);

// libFuzzer's own hook ends the run at each panic, also at those of the tokenizer library that the
// server catches. What is not caught still ends it, without this hook.
libfuzzer_sys::fuzz_target!(
    init: std::panic::set_hook(Box::new(|_| {})),
    |data: &[u8]| intentd_fuzz::checkpoint_tokenizer(data)
);
