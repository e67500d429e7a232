//! What must be known about the log before it is read: which log it is, and which numbers may have been told.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cursor::is_epoch;
use super::line::MAX_PLAUSIBLE_SEQ;
use crate::storage::{Disk, FileMark};

/// The version of the file's layout.
pub(crate) const VERSION: u32 = 1;

/// What `event-log.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Meta {
    /// The layout's version.
    pub(crate) format_version: u32,
    /// The name of the log.
    pub(crate) epoch: String,
    /// No number above this was ever given to an event.
    pub(crate) reserved_through: u64,
    /// Everything up to this was on disk.
    pub(crate) synced_through: u64,
    /// Damage that was reported: a segment's first number, and the offset in it.
    #[serde(default)]
    pub(crate) damage: Vec<(u64, u64)>,
    /// Numbers that were skipped after a crash, first and last; absent in files of earlier versions.
    #[serde(default)]
    pub(crate) skipped: Option<Vec<(u64, u64)>>,
    /// Numbers of events that are missing and were told of, first and last.
    #[serde(default)]
    pub(crate) missing: Vec<(u64, u64)>,
}

/// The file's text as it is written.
#[derive(Serialize)]
struct Stored<'a> {
    #[serde(flatten)]
    meta: &'a Meta,
    file: FileMark,
}

/// What else the text says: serde's `flatten` cannot read numbers that are kept to the digit, so it is read twice.
#[derive(Deserialize)]
struct Marked {
    /// The file that the text was written into; absent in files of earlier versions.
    #[serde(default)]
    file: Option<FileMark>,
}

/// The version of the layout, which every version of it says in the same way.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FormatVersion {
    format_version: u32,
}

/// The file.
#[derive(Debug)]
pub(crate) struct MetaFile {
    path: PathBuf,
    disk: Disk,
}

/// What was found.
#[derive(Debug)]
pub(crate) enum Found {
    /// It was read.
    Good(Meta),
    /// It was read, and is a copy of the file that was written: of an older one, as far as anybody knows.
    Copied(Meta),
    /// A newer version of the program wrote it.
    Newer(u32),
    /// There is none.
    Missing,
    /// It was moved out of the way, for this reason.
    Bad(String),
}

impl Meta {
    /// The description of a log that begins now.
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

    /// Whether the name can be part of a cursor and the numbers leave room for more.
    fn can_be(&self) -> bool {
        is_epoch(&self.epoch) && self.reserved_through.max(self.synced_through) <= MAX_PLAUSIBLE_SEQ
    }
}

impl MetaFile {
    pub(crate) fn new(directory: &Path, disk: Disk) -> Self {
        Self { path: directory.join("event-log.json"), disk }
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
                Ok((meta, _)) if !meta.can_be() => "it says what cannot be".to_owned(),
                Ok((meta, Marked { file })) => {
                    let is_copy = match file {
                        Some(mark) => mark != FileMark::at(&self.path)?,
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

    /// What the file of another process says; it is left where it is, whatever that is.
    pub(super) fn peek(&self) -> io::Result<Found> {
        let Some(text) = self.disk.read(&self.path)? else { return Ok(Found::Missing) };
        if let Some(version) = newer(&text) {
            return Ok(Found::Newer(version));
        }
        Ok(match serde_json::from_slice::<Meta>(&text) {
            Ok(meta) if meta.can_be() => Found::Good(meta),
            Ok(_) => Found::Bad("it says what cannot be".to_owned()),
            Err(error) => Found::Bad(error.to_string()),
        })
    }

    /// Writes what [`MetaFile::load`] takes for a copy, wherever it is moved; returns its size in bytes.
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

/// The version of the layout when it is one that this program does not know.
fn newer(text: &[u8]) -> Option<u32> {
    let FormatVersion { format_version } = serde_json::from_slice(text).ok()?;
    (format_version > VERSION).then_some(format_version)
}
