//! Looking for damage in the middle of the log.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::continuity::Report;
use super::damage::{Damage, Hole};
use super::line::seq_of;
use super::log::Log;
use super::segments::{Position, checked_seq};

const IDLE: u8 = 0;
const RUNNING: u8 = 1;
/// Something was noticed while the log was being read through.
const AGAIN: u8 = 2;

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

impl Log {
    /// Looks through the whole log on a thread of its own, tells `report` what is damaged and was not told before, and
    /// goes on to do so whenever a reader meets a hole that was not told.
    ///
    /// `known` is damage that an earlier run of the program told, as [`Damage::key`] has it.
    pub fn watch(
        self: &Arc<Self>,
        known: Vec<(u64, u64)>,
        report: impl Fn(Vec<Damage>) + Send + Sync + 'static,
    ) {
        let report = move |mut damage: Vec<Damage>| {
            damage.retain(|damage| !known.contains(&damage.key));
            if !damage.is_empty() {
                report(damage);
            }
        };
        // Only the first one counts: a log has one owner.
        let _ = self.continuity.report.set(Report(Box::new(report)));
        self.suspect();
    }

    /// A hole that a reader met: unless it was told, the log is looked through for what became of the lines.
    pub(super) fn met(self: &Arc<Self>, hole: Hole) {
        if !self.continuity.is_reported(hole) {
            self.suspect();
        }
    }

    /// Tells of damage that was found otherwise than by looking through the log.
    pub(super) fn report(&self, damage: Vec<Damage>) {
        if let Some(report) = self.continuity.report.get() {
            (report.0)(damage);
        }
    }

    /// Looks through the log, once at a time.
    pub(super) fn suspect(self: &Arc<Self>) {
        let state = &self.continuity.scrub;
        if state.swap(AGAIN, Ordering::AcqRel) != IDLE {
            return;
        }
        let log = Arc::clone(self);
        let look = move || {
            let state = &log.continuity.scrub;
            loop {
                state.store(RUNNING, Ordering::Release);
                match log.scrub(log.bounds().latest) {
                    Ok(mut damage) => {
                        // Damage of earlier runs has no hole that was told: its lines were passed over then.
                        damage.retain(|damage| {
                            damage.hole().is_none_or(|hole| log.continuity.mark_reported(hole))
                        });
                        log.report(damage);
                    }
                    Err(error) => tracing::warn!(%error, "failed to look through the event log for damage"),
                }
                if state.compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                    return;
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("scrub".to_owned()).spawn(look) {
            tracing::warn!(%error, "failed to start a thread that looks through the event log for damage");
            state.store(IDLE, Ordering::Release);
        }
    }
}
