//! What cargo runs before it compiles codexd: finds out which commit this is.
//!
//! No part of the program.
//! The commit stands in `codexd --version`, and is left out where nobody knows it: without git, outside of a clone, and in
//! debug builds, which would be compiled anew with every commit.

#![expect(clippy::disallowed_methods, reason = "it runs before the program is compiled")]

use std::env;
use std::path::Path;
use std::process::Command;

/// Says which commit it is, for a build outside of a clone; empty says that none shall be named.
const COMMIT: &str = "CODEXD_COMMIT";
/// What the program is made of; where it differs from the commit, the version says so.
const SOURCES: [&str; 3] = ["src", "Cargo.toml", "Cargo.lock"];

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-changed=src/build.rs");
    println!("cargo::rerun-if-env-changed={COMMIT}");
    let variable = |name| env::var(name).map_err(|error| format!("{name}: {error}"));
    let (folder, version) = (variable("CARGO_MANIFEST_DIR")?, variable("CARGO_PKG_VERSION")?);
    let commit = match env::var(COMMIT) {
        Ok(commit) => checked(commit)?,
        Err(_) if variable("PROFILE")? == "release" => {
            let folder = Path::new(&folder);
            reasons(folder).iter().for_each(|path| println!("cargo::rerun-if-changed={path}"));
            commit_of(folder).unwrap_or_default()
        }
        Err(_) => String::new(),
    };
    println!("cargo::rustc-env=CODEXD_BUILD_COMMIT={commit}");
    println!("cargo::rustc-env=CODEXD_LONG_VERSION={}", long_version(&version, &commit));
    Ok(())
}

/// What `codexd --version` says.
pub(crate) fn long_version(version: &str, commit: &str) -> String {
    if commit.is_empty() { version.to_owned() } else { format!("{version} ({commit})") }
}

/// A commit that somebody named.
pub(crate) fn checked(commit: String) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._+".contains(c);
    match commit.chars().all(is_plain) {
        true => Ok(commit),
        false => Err(format!("{COMMIT} may have letters, digits and -._+ in it, and is {commit:?}.")),
    }
}

/// The first seven digits of the commit of a clone, with `-dirty` where its sources were changed since.
///
/// The digits are counted here, because git shows more of them in a clone where seven are not enough, and the same
/// commit shall give the same program everywhere.
pub(crate) fn commit_of(folder: &Path) -> Option<String> {
    let said = git(folder, &["rev-parse", "HEAD", "--show-prefix"])?;
    let mut lines = said.lines();
    let commit: String = lines.next()?.chars().take(7).collect();
    // Sources that lie somewhere in another clone are not that one's.
    if lines.next().is_some_and(|prefix| !prefix.is_empty()) {
        return None;
    }
    let changes =
        git(folder, &[&["--no-optional-locks", "status", "--porcelain", "--"], &SOURCES[..]].concat())?;
    Some(if changes.is_empty() { commit } else { format!("{commit}-dirty") })
}

/// The files whose change can change the commit.
pub(crate) fn reasons(folder: &Path) -> Vec<String> {
    let mut reasons = SOURCES.map(str::to_owned).to_vec();
    let branch = git(folder, &["rev-parse", "--symbolic-full-name", "HEAD"]).unwrap_or_default();
    for name in ["HEAD", "logs/HEAD", "packed-refs", branch.trim()] {
        let path = git(folder, &["rev-parse", "--git-path", name]).unwrap_or_default();
        let path = path.trim();
        // One that is not there would make cargo run this each time.
        if !path.is_empty() && folder.join(path).is_file() {
            reasons.push(path.to_owned());
        }
    }
    reasons
}

/// What git says in this folder; `None` where there is no git, or no clone.
fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
