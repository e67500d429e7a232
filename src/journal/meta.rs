//! `event-log.json`: the description of the log, which is needed before the log is read.
//!
//! It holds the epoch, the numbers that may have been published, and the damage that was reported. `open` reads it, the writer
//! and the recovery replace it, and `backup` reads that of another process. A file of a newer layout is never changed; one that
//! cannot be read is moved aside.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cursor::is_epoch;
use super::line::MAX_PLAUSIBLE_SEQ;
use crate::storage::{Disk, FileMark};

/// The name of the file.
pub(super) const META_FILE: &str = "event-log.json";
/// The version of the file's layout.
pub(crate) const VERSION: u32 = 1;

/// The content of `event-log.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Meta {
    /// The version of the layout.
    pub(crate) format_version: u32,
    /// The epoch: it identifies the log.
    pub(crate) epoch: String,
    /// No higher number was ever assigned to an event.
    pub(crate) reserved_through: u64,
    /// All events up to this number were on disk.
    pub(crate) synced_through: u64,
    /// The damage that was reported: the first number of a segment, and an offset in it.
    #[serde(default)]
    pub(crate) damage: Vec<(u64, u64)>,
    /// Numbers that were skipped after a crash, first and last; absent in files of earlier versions.
    #[serde(default)]
    pub(crate) skipped: Option<Vec<(u64, u64)>>,
    /// Numbers of missing events that were reported, first and last.
    #[serde(default)]
    pub(crate) missing: Vec<(u64, u64)>,
}

/// The content as it is written.
#[derive(Serialize)]
struct Stored<'a> {
    #[serde(flatten)]
    meta: &'a Meta,
    file: FileMark,
}

/// The rest of the content. Serde's `flatten` cannot read arbitrary-precision numbers, so the content is parsed twice.
#[derive(Deserialize)]
struct Marked {
    /// The mark of the file that was written; absent in files of earlier versions.
    #[serde(default)]
    file: Option<FileMark>,
}

/// The version of the layout; its key is the same in every layout.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FormatVersion {
    format_version: u32,
}

/// Reads and writes `event-log.json`.
#[derive(Debug)]
pub(crate) struct MetaFile {
    path: PathBuf,
    disk: Disk,
}

/// The result of reading the file.
#[derive(Debug)]
pub(crate) enum Found {
    /// It was read.
    Good(Meta),
    /// It was read, and is a copy of the file that was written; it may be an old copy.
    Copied(Meta),
    /// A newer version of the program wrote it.
    Newer(u32),
    /// There is no file.
    Missing,
    /// It cannot be used, for this reason; [`MetaFile::load`] moved it aside.
    Bad(String),
}

impl Meta {
    /// The description of a new, empty log.
    pub(crate) fn new() -> Self {
        let epoch = uuid::Uuid::new_v4().simple().to_string().chars().take(12).collect();
        Self {
            format_version: VERSION,
            epoch,
            reserved_through: 0,
            synced_through: 0,
            damage: Vec::new(),
            skipped: None,
            missing: Vec::new(),
        }
    }

    /// Whether the epoch can be part of a cursor and the numbers are plausible.
    fn is_plausible(&self) -> bool {
        is_epoch(&self.epoch) && self.reserved_through.max(self.synced_through) <= MAX_PLAUSIBLE_SEQ
    }
}

impl MetaFile {
    pub(crate) fn new(directory: &Path, disk: Disk) -> Self {
        Self { path: directory.join(META_FILE), disk }
    }

    pub(crate) fn load(&self) -> io::Result<Found> {
        let reason = if std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| !found.is_file() && !found.is_symlink())
        {
            "it is not a file".to_owned()
        } else {
            let Some(text) = self.disk.read(&self.path)? else { return Ok(Found::Missing) };
            if let Some(version) = newer(&text) {
                return Ok(Found::Newer(version));
            }
            let both = serde_json::from_slice::<Meta>(&text)
                .and_then(|meta| Ok((meta, serde_json::from_slice::<Marked>(&text)?)));
            match both {
                Ok((meta, _)) if !meta.is_plausible() => "its values are impossible".to_owned(),
                Ok((meta, Marked { file })) => {
                    let is_copy = match file {
                        Some(mark) => !mark.is_same(FileMark::at(&self.path)?),
                        None => false,
                    };
                    return Ok(if is_copy { Found::Copied(meta) } else { Found::Good(meta) });
                }
                Err(error) => error.to_string(),
            }
        };
        let moved = self.disk.set_aside(&self.path)?;
        Ok(Found::Bad(format!("{reason}; it was moved to {}", moved.display())))
    }

    /// Reads the file of another process; unlike [`MetaFile::load`] it never moves the file.
    pub(super) fn peek(&self) -> io::Result<Found> {
        let Some(text) = self.disk.read(&self.path)? else { return Ok(Found::Missing) };
        if let Some(version) = newer(&text) {
            return Ok(Found::Newer(version));
        }
        Ok(match serde_json::from_slice::<Meta>(&text) {
            Ok(meta) if meta.is_plausible() => Found::Good(meta),
            Ok(_) => Found::Bad("its values are impossible".to_owned()),
            Err(error) => Found::Bad(error.to_string()),
        })
    }

    /// Writes a file that [`MetaFile::load`] recognizes as a copy wherever it is moved; returns its size in bytes.
    pub(super) fn save_as_copy(&self, meta: &Meta) -> io::Result<u64> {
        let text = text(meta, FileMark::NONE)?;
        self.disk.replace(&self.path, &text)?;
        Ok(text.len() as u64)
    }

    pub(crate) fn save(&self, meta: &Meta) -> io::Result<()> {
        self.disk.replace_marked(&self.path, |file| text(meta, file))
    }
}

fn text(meta: &Meta, file: FileMark) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(&Stored { meta, file })?;
    text.push(b'\n');
    Ok(text)
}

/// The version of the layout if it is newer than [`VERSION`].
fn newer(text: &[u8]) -> Option<u32> {
    let FormatVersion { format_version } = serde_json::from_slice(text).ok()?;
    (format_version > VERSION).then_some(format_version)
}
