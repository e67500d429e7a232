//! Scrubs the log: finds damaged and missing lines in the middle of it, and reports them to the owner of the log.
//!
//! A scrub runs on its own thread, one at a time: once after the log was opened, and again when a reader meets a hole that was
//! not reported. Each hole is reported once.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::continuity::Report;
use super::damage::{Damage, Hole};
use super::line::seq_of;
use super::log::Log;
use super::segments::checked_seq;

const IDLE: u8 = 0;
const RUNNING: u8 = 1;
/// A scrub was requested while one was running.
const RUNNING_AND_REQUESTED: u8 = 2;

impl Log {
    /// Reads every line up to number `through` once and returns what is damaged.
    ///
    /// A line is damaged if it is not JSON, has no number, or has a number that cannot follow the previous one. Lines are
    /// missing where there is a gap in the numbers that was not skipped after a crash.
    pub fn scrub(&self, through: u64) -> io::Result<Vec<Damage>> {
        let mut damage: Vec<Damage> = Vec::new();
        let mut last = 0;
        let mut next = self.after_segment(0);
        // Not a copy of the list: a rotation gives the name of the active file to another one.
        while let Some(first_seq) = next.filter(|_| last < through) {
            next = self.after_segment(first_seq);
            let Some(mut position) = self.open_segment(first_seq, 0)? else { continue };
            // Files that were removed in the meantime are not missing.
            last = last.max(self.bounds().oldest.saturating_sub(1));
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
                                path: self.path_of(first_seq),
                                key: (first_seq, offset),
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
                    // A line that exists twice because its file could not be synced is not damage.
                    None if seq_of(json).is_some_and(|seq| seq <= last) && checked_seq(json).is_some() => {}
                    None => {
                        let bytes = json.len() as u64 + 1;
                        match damage.last_mut().filter(|_| open) {
                            Some(damaged) => damaged.bytes += bytes,
                            None => damage.push(Damage {
                                path: self.path_of(first_seq),
                                key: (first_seq, offset),
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

    /// The file of the segment that begins at `first_seq`; empty when it was removed.
    fn path_of(&self, first_seq: u64) -> PathBuf {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let segment = segments.iter().find(|segment| segment.first_seq == first_seq);
        segment.map(|segment| segment.path.clone()).unwrap_or_default()
    }
}

impl Log {
    /// Scrubs the whole log on a separate thread, now and whenever a reader meets a hole that was not reported; calls `report`
    /// with the damage that was not reported before.
    ///
    /// `known` is the damage that earlier runs of the program reported, as [`Damage::key`].
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
        self.start_scrub();
    }

    /// Records that a reader met a hole, and starts a scrub unless the hole was reported.
    pub(super) fn report_hole(self: &Arc<Self>, hole: Hole) {
        if !self.continuity.is_reported(hole) {
            self.start_scrub();
        }
    }

    /// Reports damage that was not found by a scrub.
    pub(super) fn report(&self, damage: Vec<Damage>) {
        if let Some(report) = self.continuity.report.get() {
            (report.0)(damage);
        }
    }

    /// Starts a scrub, or repeats the running one.
    pub(super) fn start_scrub(self: &Arc<Self>) {
        let state = &self.continuity.scrub;
        if state.swap(RUNNING_AND_REQUESTED, Ordering::AcqRel) != IDLE {
            return;
        }
        let log = Arc::clone(self);
        let scrub = move || {
            let state = &log.continuity.scrub;
            loop {
                state.store(RUNNING, Ordering::Release);
                match log.scrub(log.bounds().latest) {
                    Ok(mut damage) => {
                        // Damage of earlier runs has no hole that was reported: its lines were skipped then.
                        damage.retain(|damage| {
                            damage.hole().is_none_or(|hole| log.continuity.mark_reported(hole))
                        });
                        log.report(damage);
                    }
                    Err(error) => tracing::warn!(%error, "failed to scrub the event log"),
                }
                if state.compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                    return;
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("scrub".to_owned()).spawn(scrub) {
            tracing::warn!(%error, "failed to start the thread that scrubs the event log");
            state.store(IDLE, Ordering::Release);
        }
    }
}
