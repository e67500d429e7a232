//! See `codexd::fuzzing::head`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codexd::fuzzing::head(data));
