//! Patches and diffs: how many lines they change, and their lines for a terminal.

use anstyle::Style;
use serde_json::Value;

use super::terminal::{BAD, FAINT, GOOD, OutputTarget, STRONG, sanitize_for_terminal};

/// How many lines are added and removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LineCounts {
    pub(crate) added: usize,
    pub(crate) removed: usize,
}

impl LineCounts {
    /// The counts of a unified diff.
    fn of_diff(diff: &str) -> Self {
        let count = |sign: char, header: &str| {
            diff.lines().filter(|line| line.starts_with(sign) && !line.starts_with(header)).count()
        };
        Self { added: count('+', "+++ "), removed: count('-', "--- ") }
    }

    /// Such as `+12 −3`; empty if nothing is changed.
    pub(crate) fn text(self) -> String {
        let parts = [('+', self.added), ('−', self.removed)];
        let parts =
            parts.iter().filter(|(_, count)| *count > 0).map(|(sign, count)| format!("{sign}{count}"));
        parts.collect::<Vec<_>>().join(" ")
    }
}

/// How many files the diff of a turn changes, and how many lines.
pub(crate) fn diff_totals(diff: &str) -> (usize, LineCounts) {
    let files = diff.lines().filter(|line| line.starts_with("diff --git ")).count();
    (files, LineCounts::of_diff(diff))
}

/// Such as `7 files +21 −111`; empty if no file is changed.
pub(crate) fn totals_text(files: usize, counts: LineCounts) -> String {
    let files = match files {
        0 => return String::new(),
        1 => "1 file".to_owned(),
        files => format!("{files} files"),
    };
    format!("{files} {}", counts.text()).trim_end().to_owned()
}

/// One file of a patch, as an item of Codex has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileChange {
    /// What happens to the file: `add`, `update`, `delete`, or a kind of a newer Codex.
    pub(crate) kind: String,
    path: String,
    new_path: Option<String>,
    diff: String,
}

impl FileChange {
    /// The files of a patch.
    pub(crate) fn all(changes: &Value) -> Vec<Self> {
        let change = |change: &Value| {
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let kind = &change["kind"];
            Self {
                kind: text(&kind["type"]).or(text(kind)).unwrap_or_else(|| "change".to_owned()),
                path: text(&change["path"]).unwrap_or_else(|| "?".to_owned()),
                new_path: text(&kind["move_path"]),
                diff: text(&change["diff"]).unwrap_or_default(),
            }
        };
        changes.as_array().into_iter().flatten().map(change).collect()
    }

    /// The lines that it adds and removes. Codex gives the text of a file that is added or deleted, else a diff.
    pub(crate) fn counts(&self) -> LineCounts {
        let lines = self.diff.lines().count();
        match self.kind.as_str() {
            "add" => LineCounts { added: lines, removed: 0 },
            "delete" => LineCounts { added: 0, removed: lines },
            _ => LineCounts::of_diff(&self.diff),
        }
    }

    /// Such as `update src/main.rs +3 −1`, with a path relative to `cwd`.
    pub(crate) fn summary(&self, cwd: Option<&str>) -> String {
        let moved = self.new_path.as_deref().map(|path| format!(" -> {}", relative(path, cwd)));
        let text = format!("{} {}{}", self.kind, relative(&self.path, cwd), moved.unwrap_or_default());
        format!("{text} {}", self.counts().text()).trim_end().to_owned()
    }

    /// Its lines as a diff: each with the sign of what happens to it.
    pub(crate) fn diff(&self) -> impl Iterator<Item = String> {
        let sign = match self.kind.as_str() {
            "add" => "+",
            "delete" => "-",
            _ => "",
        };
        self.diff.lines().map(move |line| format!("{sign}{line}"))
    }
}

/// What a line of a diff looks like.
pub(crate) fn diff_style(line: &str) -> Style {
    match line.chars().next() {
        Some('+') => GOOD,
        Some('-') => BAD,
        Some('@') => FAINT,
        _ => Style::new(),
    }
}

/// A whole patch for a person who decides about it: every file with its lines.
pub(crate) fn patch_lines(changes: &[FileChange], cwd: Option<&str>, screen: &OutputTarget) -> Vec<String> {
    let file = |change: &FileChange| {
        let head = screen.paint(STRONG, &sanitize_for_terminal(&change.summary(cwd)));
        let lines = change.diff().map(|line| {
            let line = sanitize_for_terminal(&line.replace('\t', "    "));
            screen.paint(diff_style(&line), &line)
        });
        std::iter::once(head).chain(lines).collect::<Vec<_>>()
    };
    changes.iter().flat_map(file).collect()
}

/// The totals of a patch.
pub(crate) fn patch_totals(changes: &[FileChange]) -> String {
    let counts = changes.iter().map(FileChange::counts).fold(LineCounts::default(), |sum, counts| {
        LineCounts { added: sum.added + counts.added, removed: sum.removed + counts.removed }
    });
    totals_text(changes.len(), counts)
}

/// A path below `cwd` without it.
pub(crate) fn relative<'a>(path: &'a str, cwd: Option<&str>) -> &'a str {
    cwd.and_then(|cwd| path.strip_prefix(cwd)?.strip_prefix('/'))
        .filter(|rest| !rest.is_empty())
        .unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn summary_counts_lines_of_each_kind_of_change() {
        let changes = FileChange::all(&json!([
            { "path": "/p/a.txt", "kind": { "type": "add" }, "diff": "one\ntwo\n" },
            { "path": "/p/b.txt", "kind": { "type": "update", "move_path": "/p/c.txt" },
              "diff": "--- a\n+++ b\n@@ -1,2 +1,2 @@\n same\n-old\n+new\n+newer\n" },
            { "path": "/q/d.txt", "kind": { "type": "delete" }, "diff": "gone\n" },
            { "path": "/pe", "kind": "update" },
        ]));
        let shown: Vec<String> = changes.iter().map(|change| change.summary(Some("/p"))).collect();
        assert_eq!(
            shown,
            ["add a.txt +2", "update b.txt -> c.txt +2 −1", "delete /q/d.txt −1", "update /pe"]
        );
        assert_eq!(patch_totals(&changes), "4 files +4 −2");
        let lines = patch_lines(&changes[..1], Some("/p"), &OutputTarget::terminal(80, false));
        assert_eq!(lines, ["add a.txt +2", "+one", "+two"]);
    }

    #[test]
    fn diff_totals_counts_files_and_lines() {
        let diff = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1,2 @@\n-a\n+b\n+c\ndiff --git a/y b/y\n+++ b/y\n+d\n";
        let (files, counts) = diff_totals(diff);
        assert_eq!(totals_text(files, counts), "2 files +3 −1");
        assert_eq!(totals_text(0, LineCounts::default()), "");
    }
}
