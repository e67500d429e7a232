//! Fuzz target for `codexd::fuzzing::redaction`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codexd::fuzzing::redaction(data));
