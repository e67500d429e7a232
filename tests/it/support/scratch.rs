//! Scratch directories for tests: under the target directory, where nothing in the machine's temporary directory can
//! disturb them, and apart from the git repository that they lie in.

use std::fs::OpenOptions;
use std::path::Path;

use tempfile::{Builder, TempDir};

/// A new directory whose name begins with `name`, removed when dropped.
///
/// Codex and git look for a `.git` in every directory above, and would find the one of this repository. An empty *file* of
/// that name stops both: git refuses it ("invalid gitfile format"), and Codex takes its search as ended without a
/// repository, so that a workspace is a project of its own (measured with 0.140.0, 0.169.0 and 0.171.0). An empty
/// directory of that name does not: Codex 0.169.0 looks past it.
pub(crate) fn directory(name: &str) -> TempDir {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let marker = scratch.join(".git");
    // Created once and never written to, so that tests that come here at once do not disturb each other.
    if !marker.is_file() {
        OpenOptions::new().write(true).create(true).truncate(false).open(&marker).unwrap();
    }
    // Short names: the path of a Unix socket has 108 bytes on Linux and 104 on macOS.
    Builder::new().prefix(&format!("{name}-")).tempdir_in(scratch).unwrap()
}
