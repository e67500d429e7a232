//! Fuzz target for `codexd::fuzzing::query`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codexd::fuzzing::query(data));
