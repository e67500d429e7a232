//! Moves an event log to another directory, before it is opened.

use std::io;
use std::path::Path;

use super::meta::META_FILE;
use super::segments::{ACTIVE_FILE, sealed};
use crate::storage::Disk;

/// The directory that the log is in: `directory`, or `earlier` if it has not been moved from there completely.
pub fn find<'a>(directory: &'a Path, earlier: &'a Path) -> &'a Path {
    let has = |directory: &Path, name: &str| directory.join(name).exists();
    let is_earlier = [ACTIVE_FILE, META_FILE].iter().any(|name| has(earlier, name));
    if is_earlier && !has(directory, ACTIVE_FILE) { earlier } else { directory }
}

/// Creates the directory `to`, and moves the log and the directory `attachments` there from `from`, unless there is a log
/// already; returns whether it moved one.
///
/// The active file is the last, so a move that was cut off is continued.
pub fn relocate(disk: &Disk, from: &Path, to: &Path) -> io::Result<bool> {
    disk.create_directory(to)?;
    if find(to, from) != from {
        return Ok(false);
    }
    let attachments = from.join("attachments");
    if attachments.is_dir() {
        disk.move_directory(&attachments, &to.join("attachments"))?;
    }
    let mut names: Vec<_> =
        sealed(from)?.iter().filter_map(|segment| Some(segment.path.file_name()?.to_owned())).collect();
    names.extend(["events.torn", "events.unsynced", META_FILE, ACTIVE_FILE].map(Into::into));
    for name in names {
        match disk.move_file(&from.join(&name), &to.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved?,
        }
    }
    disk.sync_directory(to)?;
    disk.sync_directory(from)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;
    use std::sync::Arc;

    use super::*;
    use crate::storage::Operation;
    use crate::storage::faults::{Faults, Plan};

    const NAMES: [&str; 6] = [
        "attachments/one",
        "events-00000000000000000001.jsonl",
        "events-00000000000000000009.jsonl",
        "events.torn",
        META_FILE,
        ACTIVE_FILE,
    ];

    fn write(directory: &Path) {
        fs::create_dir(directory.join("attachments")).unwrap();
        for name in NAMES {
            fs::write(directory.join(name), name).unwrap();
        }
        fs::write(directory.join("stderr.log"), "").unwrap();
    }

    fn assert_moved(from: &Path, to: &Path) {
        for name in NAMES {
            assert_eq!(fs::read_to_string(to.join(name)).unwrap(), name);
        }
        let left: Vec<_> = fs::read_dir(from).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["stderr.log"]);
    }

    #[test]
    fn relocate_continues_after_each_cut() {
        let faults = Arc::new(Faults::default());
        for kind in [ErrorKind::Other, ErrorKind::CrossesDevices] {
            for first in 1.. {
                let directory = tempfile::tempdir().unwrap();
                let (from, to) = (directory.path().join("from"), directory.path().join("to"));
                fs::create_dir(&from).unwrap();
                write(&from);
                faults.plan(Some(Plan { operation: Operation::Rename, first, forever: false, kind }));
                let moved = relocate(&faults.disk(), &from, &to);
                let is_cut = faults.failed() > 0 && kind == ErrorKind::Other;
                assert_eq!(moved.is_err(), is_cut, "{moved:?}");
                faults.plan(None);
                if is_cut {
                    assert_eq!(find(&to, &from), from);
                    assert!(relocate(&faults.disk(), &from, &to).unwrap());
                }
                assert_moved(&from, &to);
                assert_eq!(find(&to, &from), to);
                // A log that an older version began meanwhile stays where it is.
                fs::write(from.join(ACTIVE_FILE), "other").unwrap();
                assert!(!relocate(&faults.disk(), &from, &to).unwrap());
                assert_eq!(fs::read_to_string(to.join(ACTIVE_FILE)).unwrap(), ACTIVE_FILE);
                if first > 20 {
                    break;
                }
            }
        }
        assert_eq!(
            find(Path::new("/nonexistent/to"), Path::new("/nonexistent/from")),
            Path::new("/nonexistent/to")
        );
    }
}
