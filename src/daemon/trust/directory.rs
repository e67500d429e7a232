//! The names under which the app-server may know a directory.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::blocking::Pool;

/// How long the file system may take to resolve a path.
const PATH_LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

static POOL: Pool = Pool::new("trust", 4, 28);

/// A directory, by all the names that a table of projects may have for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directory {
    /// The path as it was given, without `.`, `..`, doubled and trailing slashes: the app-server writes it so, and does
    /// not find another spelling (measured on 0.171.0).
    pub(super) lexical: String,
    /// The same without symbolic links, where this machine has it.
    canonical: Option<String>,
    /// The roots of its repository: the nearest directory with a `.git`, and for a worktree that of the main one.
    roots: Vec<String>,
}

impl Directory {
    /// Resolves a path, for [`PATH_LOOKUP_TIMEOUT`] at most; what the file system does not answer in that time is left out.
    pub(super) async fn resolve(path: &str) -> Self {
        let lexical = normalized(Path::new(path));
        let looked_at = lexical.clone();
        let found = POOL.run(PATH_LOOKUP_TIMEOUT, move || on_disk(&looked_at)).await;
        let (canonical, roots) = found.unwrap_or_default();
        Self { lexical: text(&lexical), canonical, roots }
    }

    /// Its own names.
    pub(super) fn own_names(&self) -> impl Iterator<Item = &str> {
        let canonical = self.canonical.as_deref().filter(|canonical| *canonical != self.lexical);
        std::iter::once(self.lexical.as_str()).chain(canonical)
    }

    /// Where it is: an answer about a symbolic link must not hold for what the link leads to later.
    pub(super) fn real_path(&self) -> &str {
        self.canonical.as_deref().unwrap_or(&self.lexical)
    }

    /// Its own names, then those of the roots of its repository.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.own_names().chain(self.roots.iter().map(String::as_str))
    }

    #[cfg(test)]
    pub(super) fn named(lexical: &str, roots: &[&str]) -> Self {
        let roots = roots.iter().map(|root| (*root).to_owned()).collect();
        Self { lexical: lexical.to_owned(), canonical: None, roots }
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The path without what does not lead anywhere else.
fn normalized(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            // Above the root is the root.
            Component::ParentDir => drop(normal.pop()),
            other => normal.push(other),
        }
    }
    normal
}

/// What only the file system knows: the path without symbolic links, and the roots of the repository.
fn on_disk(path: &Path) -> (Option<String>, Vec<String>) {
    let canonical = fs::canonicalize(path).ok();
    let mut roots = Vec::new();
    for start in [Some(path), canonical.as_deref()].into_iter().flatten() {
        let Some(root) = start.ancestors().find(|ancestor| ancestor.join(".git").exists()) else { continue };
        roots.push(text(root));
        roots.extend(main_worktree(root).as_deref().map(text));
    }
    (canonical.as_deref().map(text), roots)
}

/// The root of the main worktree, where this is another one: its `.git` is a file that leads to
/// `MAIN/.git/worktrees/NAME`.
fn main_worktree(root: &Path) -> Option<PathBuf> {
    let link = fs::read_to_string(root.join(".git")).ok()?;
    let target = root.join(link.trim().strip_prefix("gitdir:")?.trim());
    let worktrees = target.parent().filter(|parent| parent.ends_with(".git/worktrees"))?;
    fs::canonicalize(worktrees.parent()?.parent()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_normalized_like_the_app_server_does() {
        for (given, written) in [
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b"),
            ("//a//b/.", "/a/b"),
            ("/a/./x/../b", "/a/b"),
            ("/../a", "/a"),
            ("/a/b ", "/a/b "),
            ("/", "/"),
        ] {
            assert_eq!(text(&normalized(Path::new(given))), written, "{given}");
        }
    }
}
