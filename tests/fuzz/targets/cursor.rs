//! Fuzz target for `codexd::fuzzing::cursor`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codexd::fuzzing::cursor(data));
