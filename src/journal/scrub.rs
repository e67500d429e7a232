//! Looking for damage in the middle of the log.

use std::io;
use std::path::PathBuf;
use std::sync::PoisonError;

use super::continuity::Hole;
use super::line::seq_of;
use super::log::Log;
use super::segments::{Position, checked_seq};

/// Events that the log has no more: a run of lines that cannot be read, or lines that are not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file with the lines, or the one that begins or goes on behind what is not there.
    pub path: PathBuf,
    /// Which damage this is: the first number of its segment, and its offset in bytes.
    pub key: (u64, u64),
    /// The last good event before it; 0 when there is none.
    pub after: u64,
    /// The first good event behind it, if there is one.
    pub before: Option<u64>,
    /// How many bytes it takes; 0 for lines that are not there.
    pub bytes: u64,
    /// The numbers of the events that are missing, as far as lines on both sides tell.
    pub missing: Option<Hole>,
}

impl Damage {
    /// The numbers that are missing, if lines on both sides tell them.
    pub(super) fn hole(&self) -> Option<Hole> {
        self.missing
    }
}

impl Log {
    /// Reads every line up to number `through` once and returns what is damaged.
    ///
    /// A line is damaged when it is no JSON, has no number, or a number that cannot follow the one before it; lines are
    /// missing where the numbers jump over some that were not skipped after a crash.
    pub fn scrub(&self, through: u64) -> io::Result<Vec<Damage>> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut damage: Vec<Damage> = Vec::new();
        let mut last = segments.first().map_or(0, |segment| segment.first_seq.saturating_sub(1));
        for segment in segments {
            let mut position = match Position::find(&segment, 0) {
                Ok(position) => position,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let (mut open, found) = (false, position.found);
            position.scan(|offset, json| {
                match checked_seq(json).filter(|&seq| seq > last && found.can_have(offset, seq)) {
                    Some(seq) => {
                        let missing = self.continuity.hole(last, seq);
                        match damage
                            .last_mut()
                            .filter(|damaged| damaged.before.is_none() && damaged.after == last)
                        {
                            Some(damaged) => (damaged.before, damaged.missing) = (Some(seq), missing),
                            None if missing.is_some() => damage.push(Damage {
                                path: segment.path.clone(),
                                key: (segment.first_seq, offset),
                                after: last,
                                before: Some(seq),
                                bytes: 0,
                                missing,
                            }),
                            None => {}
                        }
                        open = false;
                        last = seq;
                    }
                    // A line that is there twice, after its file could not be synced, is no damage.
                    None if seq_of(json).is_some_and(|seq| seq <= last) && checked_seq(json).is_some() => {}
                    None => {
                        let bytes = json.len() as u64 + 1;
                        match damage.last_mut().filter(|_| open) {
                            Some(damaged) => damaged.bytes += bytes,
                            None => damage.push(Damage {
                                path: segment.path.clone(),
                                key: (segment.first_seq, offset),
                                after: last,
                                before: None,
                                bytes,
                                missing: None,
                            }),
                        }
                        open = true;
                    }
                }
                last < through
            })?;
        }
        Ok(damage)
    }
}
