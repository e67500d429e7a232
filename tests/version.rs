//! Which commit the build script names.

#![expect(clippy::disallowed_methods, reason = "tests may block: each runs on a thread of its own")]
#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml frees test functions only, and the helpers here serve nothing but tests"
)]

#[path = "../src/build.rs"]
#[expect(dead_code, reason = "cargo alone needs its main function")]
#[expect(clippy::print_stdout, reason = "this is how a build script talks to cargo")]
mod build;

#[path = "it/support/scratch.rs"]
mod scratch;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// Runs git in a clone of the test's own.
fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=nobody", "-c", "user.email=nobody@localhost", "-c", "commit.gpgsign=false"])
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A clone with one commit in which there is what a program is made of; nothing, and loudly so, where there is no git.
fn clone() -> Option<tempfile::TempDir> {
    if let Err(error) = Command::new("git").arg("--version").output() {
        // The test runner keeps to itself what is printed by a test that passes, but not this.
        let _ = writeln!(
            std::io::stderr(),
            "\nSKIPPED: the commit in the version: git cannot be started: {error}"
        );
        return None;
    }
    let directory = scratch::directory("test");
    fs::create_dir(directory.path().join("src")).unwrap();
    for name in ["src/main.rs", "Cargo.toml", "Cargo.lock", "README.md"] {
        fs::write(directory.path().join(name), "first").unwrap();
    }
    git(directory.path(), &["init", "--quiet"]);
    git(directory.path(), &["add", "."]);
    git(directory.path(), &["commit", "--quiet", "--message", "first"]);
    Some(directory)
}

#[test]
fn version_commit_matches_clone_and_marks_changes() {
    let Some(clone) = clone() else { return };
    let directory = clone.path();
    let head = git(directory, &["rev-parse", "HEAD"]);
    let short = head.get(..7).unwrap();
    assert_eq!(build::commit_of(directory).as_deref(), Some(short));
    // What is no part of the program changes nothing.
    fs::write(directory.join("README.md"), "second").unwrap();
    assert_eq!(build::commit_of(directory).as_deref(), Some(short));
    fs::write(directory.join("src/new.rs"), "new").unwrap();
    assert_eq!(build::commit_of(directory), Some(format!("{short}-dirty")));
    git(directory, &["add", "."]);
    git(directory, &["commit", "--quiet", "--message", "second"]);
    let second = build::commit_of(directory).unwrap();
    assert!(second != short && second.len() == 7, "{second}");
}

#[test]
fn version_without_clone_has_no_commit() {
    let Some(clone) = clone() else { return };
    let inner = clone.path().join("src");
    assert_eq!(build::commit_of(&inner), None, "the clone around it is of something else");
    let tarball = scratch::directory("test");
    assert_eq!(build::commit_of(tarball.path()), None);
    assert_eq!(build::reasons(tarball.path()), ["src", "Cargo.toml", "Cargo.lock"]);
}

#[test]
fn build_script_watches_existing_git_files() {
    let Some(clone) = clone() else { return };
    let stamps = || {
        let reasons = build::reasons(clone.path()).into_iter();
        let read = |path: String| (fs::read(clone.path().join(&path)).unwrap_or_default(), path);
        reasons.map(read).collect::<Vec<_>>()
    };
    let before = stamps();
    for (_, path) in &before {
        assert!(clone.path().join(path).exists(), "{path} is not there, so every build would start over");
    }
    assert_eq!(stamps(), before);
    git(clone.path(), &["commit", "--quiet", "--allow-empty", "--message", "second"]);
    assert_ne!(stamps(), before);
}

#[test]
fn version_includes_commit_if_known() {
    assert_eq!(build::long_version("1.2.3", "abc1234"), "1.2.3 (abc1234)");
    assert_eq!(build::long_version("1.2.3", ""), "1.2.3");
    assert_eq!(build::checked("abc1234-dirty".to_owned()).as_deref(), Ok("abc1234-dirty"));
    for bad in ["a b", "a\nb", "(a)", "é"] {
        assert!(build::checked(bad.to_owned()).is_err(), "{bad:?}");
    }
}
