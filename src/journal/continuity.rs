//! Which sequence numbers have no line, and which of those are missing.
//!
//! After a crash, numbers that were reserved and may have been used are skipped. `event-log.json` lists them; in a log
//! without it, the `state.recovered` event after each gap does. Every other number without a line is a hole: its line was
//! lost. Each reader compares neighbouring numbers, which costs one subtraction per step.

use std::sync::atomic::AtomicU8;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use super::damage::{Damage, Hole};
use super::line::Line;

/// Ranges of numbers, each with its first and last one.
type Ranges = Vec<(u64, u64)>;

/// What is known about numbers without lines.
#[derive(Debug, Default)]
pub(super) struct Continuity {
    /// The skipped ranges, ascending.
    skipped: RwLock<Vec<(u64, u64)>>,
    /// The holes that were reported.
    reported: Mutex<Vec<(u64, u64)>>,
    /// The state of the scrub, as `scrub.rs` defines it.
    pub(super) scrub: AtomicU8,
    pub(super) report: OnceLock<Report>,
}

/// Reports damage that was not reported before to the owner of the log.
pub(super) struct Report(pub(super) Box<dyn Fn(Vec<Damage>) + Send + Sync>);

impl std::fmt::Debug for Report {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Report")
    }
}

impl Continuity {
    pub(super) fn new(skipped: Vec<(u64, u64)>, reported: Vec<(u64, u64)>) -> Self {
        Self { skipped: RwLock::new(skipped), reported: Mutex::new(reported), ..Self::default() }
    }

    /// The hole between a line (or cursor) and the next line.
    pub(super) fn hole(&self, before: u64, next: u64) -> Option<Hole> {
        let (mut from, mut through) = (before + 1, next.checked_sub(1)?);
        if from > through {
            return None;
        }
        let skipped = self.skipped.read().unwrap_or_else(PoisonError::into_inner);
        for &(first, last) in skipped.iter() {
            if first <= from && from <= last {
                from = last + 1;
            }
        }
        for &(first, last) in skipped.iter().rev() {
            if first <= through && through <= last {
                through = first - 1;
            }
        }
        (from <= through).then_some(Hole { from, through })
    }

    /// The first hole in the lines after `cursor`, and the number of lines before it.
    pub(super) fn first_hole(&self, cursor: u64, lines: &[Line]) -> Option<(usize, Hole)> {
        let last = lines.last()?.seq;
        // Numbers rise, so none is missing when there are as many lines as numbers.
        if last - cursor == lines.len() as u64 {
            return None;
        }
        let mut before = cursor;
        lines.iter().enumerate().find_map(|(index, line)| {
            let hole = self.hole(before, line.seq);
            before = line.seq;
            hole.map(|hole| (index, hole))
        })
    }

    /// Whether all of a hole was reported.
    pub(super) fn is_reported(&self, hole: Hole) -> bool {
        self.reported().iter().any(|&(first, last)| first <= hole.from && hole.through <= last)
    }

    /// Marks a hole as reported; `false` when it already was.
    pub(super) fn mark_reported(&self, hole: Hole) -> bool {
        let is_new = !self.is_reported(hole);
        if is_new {
            self.reported().push((hole.from, hole.through));
        }
        is_new
    }

    /// The ranges for `event-log.json` that concern events from `oldest` on: the skipped numbers and the reported holes.
    pub(super) fn kept(&self, oldest: u64) -> (Ranges, Ranges) {
        let concerns = |&(_, last): &(u64, u64)| last >= oldest;
        let skipped = self.skipped.read().unwrap_or_else(PoisonError::into_inner);
        let kept = skipped.iter().copied().filter(concerns).collect();
        (kept, self.reported().iter().copied().filter(concerns).collect())
    }

    fn reported(&self) -> MutexGuard<'_, Vec<(u64, u64)>> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seq: u64) -> Line {
        Line::from_json(seq, format!("{{\"seq\":{seq}}}").as_bytes())
    }

    #[test]
    fn continuity_reports_only_unskipped_numbers_as_missing() {
        let continuity = Continuity::new(vec![(11, 100), (201, 300)], Vec::new());
        let hole = |before, next| continuity.hole(before, next).map(|hole| (hole.from, hole.through));
        assert_eq!(hole(5, 6), None);
        assert_eq!(hole(10, 101), None, "all of them were skipped");
        assert_eq!(hole(50, 101), None, "a cursor among them");
        assert_eq!(hole(9, 101), Some((10, 10)), "one before them is missing");
        assert_eq!(hole(10, 103), Some((101, 102)));
        assert_eq!(hole(9, 302), Some((10, 301)));
        assert_eq!(hole(199, 200), None);
        assert_eq!(hole(5, 5), None);
        assert_eq!(hole(0, 0), None);
    }

    #[test]
    fn lines_are_delivered_up_to_the_first_missing_line() {
        let continuity = Continuity::new(vec![(11, 100)], Vec::new());
        let first = |cursor, seqs: &[u64]| {
            let lines: Vec<_> = seqs.iter().map(|&seq| line(seq)).collect();
            continuity.first_hole(cursor, &lines).map(|(index, hole)| (index, hole.from, hole.through))
        };
        assert_eq!(first(0, &[]), None);
        assert_eq!(first(8, &[9, 10, 101, 102]), None);
        assert_eq!(first(8, &[10, 101]), Some((0, 9, 9)));
        assert_eq!(first(8, &[9, 10, 101, 104]), Some((3, 102, 103)));
        assert!(continuity.mark_reported(Hole { from: 5, through: 9 }));
        assert!(!continuity.mark_reported(Hole { from: 6, through: 9 }), "it was reported before");
        assert_eq!(continuity.kept(9), (vec![(11, 100)], vec![(5, 9)]));
        assert_eq!(continuity.kept(10), (vec![(11, 100)], vec![]));
    }
}
