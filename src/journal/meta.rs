//! What must be known about the log before it is read: which log it is, and which numbers may have been told.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cursor::is_epoch;
use super::opening::BELIEVABLE;
use crate::disk::Disk;

/// The version of the file's layout.
const VERSION: u32 = 1;

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
    /// There is none.
    Missing,
    /// It was moved out of the way, for this reason.
    Bad(String),
}

impl Meta {
    /// The description of a log that begins now.
    pub(crate) fn new() -> Self {
        let epoch = uuid::Uuid::new_v4().simple().to_string().chars().take(12).collect();
        Self { format_version: VERSION, epoch, reserved_through: 0, synced_through: 0, damage: Vec::new() }
    }

    /// Whether the name can be part of a cursor and the numbers leave room for more.
    fn can_be(&self) -> bool {
        is_epoch(&self.epoch) && self.reserved_through.max(self.synced_through) <= BELIEVABLE
    }
}

impl MetaFile {
    pub(crate) fn new(folder: &Path, disk: Disk) -> Self {
        Self { path: folder.join("event-log.json"), disk }
    }

    pub(crate) fn load(&self) -> io::Result<Found> {
        let reason = if std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| !found.is_file() && !found.is_symlink())
        {
            "it is not a file".to_owned()
        } else {
            let Some(text) = self.disk.read(&self.path)? else { return Ok(Found::Missing) };
            match serde_json::from_slice::<Meta>(&text) {
                Ok(meta) if meta.format_version > VERSION => {
                    format!("it has version {} and this codexd knows {VERSION}", meta.format_version)
                }
                Ok(meta) if !meta.can_be() => "it says what cannot be".to_owned(),
                Ok(meta) => return Ok(Found::Good(meta)),
                Err(error) => error.to_string(),
            }
        };
        let moved = self.disk.set_aside(&self.path)?;
        Ok(Found::Bad(format!("{reason}; it was moved to {}", moved.display())))
    }

    pub(crate) fn save(&self, meta: &Meta) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(meta)?;
        text.push(b'\n');
        self.disk.replace(&self.path, &text)
    }
}
