//! Finds the program `fake_codex`, and builds it if necessary.
//!
//! `cargo test` builds examples, but `cargo test --test NAME` and `cargo bench` do not. The first caller in a process
//! builds the program if it is missing or older than its sources.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The path of the program, for the same profile and target as `codexd`.
///
/// # Panics
///
/// The program cannot be built.
pub(crate) fn fake_codex() -> &'static str {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let directory = Path::new(env!("CARGO_BIN_EXE_codexd")).parent().unwrap();
        let program = directory.join("examples/fake_codex");
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake_codex");
        if modified(&program).is_none_or(|built| newest(&sources).is_some_and(|changed| changed > built)) {
            build(directory);
        }
        program.into_os_string().into_string().unwrap()
    })
}

/// Builds the program for `directory`, which is `TARGET_DIR/[TRIPLE/]PROFILE`. Concurrent callers wait for Cargo's
/// lock.
fn build(directory: &Path) {
    let profile = directory.file_name().unwrap().to_str().unwrap();
    let above = directory.parent().unwrap();
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["build", "--quiet", "--example", "fake_codex"])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .args(["--profile", if profile == "debug" { "dev" } else { profile }]);
    // Cargo writes this file into the target directory.
    if above.join("CACHEDIR.TAG").exists() {
        command.arg("--target-dir").arg(above);
    } else {
        command.arg("--target").arg(above.file_name().unwrap());
        command.arg("--target-dir").arg(above.parent().unwrap());
    }
    let status = command.status().unwrap_or_else(|error| panic!("failed to start {command:?}: {error}"));
    assert!(status.success(), "failed to build the program that the tests need, with {command:?}: {status}");
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// The newest modification time in `directory` and below.
fn newest(directory: &Path) -> Option<SystemTime> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.filter_map(|path: PathBuf| if path.is_dir() { newest(&path) } else { modified(&path) }).max()
}
