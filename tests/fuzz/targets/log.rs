//! Fuzz target for `codexd::fuzzing::log`.

#![no_main]

use std::sync::LazyLock;

use tempfile::TempDir;

static DIRECTORY: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

libfuzzer_sys::fuzz_target!(|data: &[u8]| codexd::fuzzing::log(data, DIRECTORY.path()));
