//! Fuzz target for `codexd::fuzzing::head`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codexd::fuzzing::head(data));
