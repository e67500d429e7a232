//! Scratch directories for tests: under the target directory, so that nothing in the machine's temporary directory
//! interferes with them, and separate from the git repository that contains them.

use std::fs::OpenOptions;
use std::path::Path;

use tempfile::{Builder, TempDir};

/// Creates a directory whose name begins with `name`; it is removed when dropped.
///
/// Codex and git search every parent directory for a `.git` and would find the one of this repository. An empty *file*
/// of that name stops both: git rejects it ("invalid gitfile format"), and Codex ends its search without a repository,
/// so a workspace is a separate project (measured with 0.140.0, 0.169.0 and 0.171.0). An empty directory of that name
/// does not stop Codex 0.169.0, which continues its search.
pub(crate) fn directory(name: &str) -> TempDir {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let marker = scratch.join(".git");
    // Created once and never written to, so that concurrent tests do not disturb each other.
    if !marker.is_file() {
        OpenOptions::new().write(true).create(true).truncate(false).open(&marker).unwrap();
    }
    // The names are short: the path of a Unix socket has 108 bytes on Linux and 104 on macOS.
    Builder::new().prefix(&format!("{name}-")).tempdir_in(scratch).unwrap()
}
