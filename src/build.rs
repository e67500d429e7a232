//! The build script: finds the commit that `codexd --version` shows.
//!
//! The commit is left out where it is unknown: without git, outside a clone, and in debug builds, which would have to be
//! recompiled after every commit.

#![expect(clippy::disallowed_methods, reason = "it runs before the program is compiled")]

use std::env;
use std::path::Path;
use std::process::Command;

/// The environment variable that sets the commit, for builds outside a clone; empty leaves the commit out.
const COMMIT: &str = "CODEXD_COMMIT";
/// The sources of the program; if they differ from the commit, the version ends with `-dirty`.
const SOURCES: [&str; 3] = ["src", "Cargo.toml", "Cargo.lock"];

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-changed=src/build.rs");
    println!("cargo::rerun-if-env-changed={COMMIT}");
    let variable = |name| env::var(name).map_err(|error| format!("{name}: {error}"));
    let (directory, version) = (variable("CARGO_MANIFEST_DIR")?, variable("CARGO_PKG_VERSION")?);
    let commit = match env::var(COMMIT) {
        Ok(commit) => checked(commit)?,
        Err(_) if variable("PROFILE")? == "release" => {
            let directory = Path::new(&directory);
            reasons(directory).iter().for_each(|path| println!("cargo::rerun-if-changed={path}"));
            commit_of(directory).unwrap_or_default()
        }
        Err(_) => String::new(),
    };
    println!("cargo::rustc-env=CODEXD_BUILD_COMMIT={commit}");
    println!("cargo::rustc-env=CODEXD_LONG_VERSION={}", long_version(&version, &commit));
    Ok(())
}

/// The output of `codexd --version`.
pub(crate) fn long_version(version: &str, commit: &str) -> String {
    if commit.is_empty() { version.to_owned() } else { format!("{version} ({commit})") }
}

/// Checks a commit from [`COMMIT`].
pub(crate) fn checked(commit: String) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._+".contains(c);
    match commit.chars().all(is_plain) {
        true => Ok(commit),
        false => Err(format!("{COMMIT} may have letters, digits and -._+ in it, and is {commit:?}.")),
    }
}

/// The first seven digits of the commit of a clone, with `-dirty` if its sources were changed since.
///
/// Always seven: git shows more digits in a clone where seven are ambiguous, and the same commit has to give the same
/// program everywhere.
pub(crate) fn commit_of(directory: &Path) -> Option<String> {
    let output = git(directory, &["rev-parse", "HEAD", "--show-prefix"])?;
    let mut lines = output.lines();
    let commit: String = lines.next()?.chars().take(7).collect();
    // Sources in a subdirectory of another clone do not belong to its commit.
    if lines.next().is_some_and(|prefix| !prefix.is_empty()) {
        return None;
    }
    let changes =
        git(directory, &[&["--no-optional-locks", "status", "--porcelain", "--"], &SOURCES[..]].concat())?;
    Some(if changes.is_empty() { commit } else { format!("{commit}-dirty") })
}

/// The files whose change can change the version.
pub(crate) fn reasons(directory: &Path) -> Vec<String> {
    let mut reasons = SOURCES.map(str::to_owned).to_vec();
    let branch = git(directory, &["rev-parse", "--symbolic-full-name", "HEAD"]).unwrap_or_default();
    for name in ["HEAD", "logs/HEAD", "packed-refs", branch.trim()] {
        let path = git(directory, &["rev-parse", "--git-path", name]).unwrap_or_default();
        let path = path.trim();
        // A missing file would make cargo run this script each time.
        if !path.is_empty() && directory.join(path).is_file() {
            reasons.push(path.to_owned());
        }
    }
    reasons
}

/// The output of git in this directory; `None` without git or outside a clone.
fn git(directory: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(directory).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
