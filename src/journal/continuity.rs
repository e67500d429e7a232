//! Which numbers the log has no lines for, and which of those are missing.
//!
//! After a crash the numbers that were reserved and perhaps given are skipped: `event-log.json` has the list, and in a log
//! without it the `state.recovered` behind each such jump says it.
//! Every other number between two lines had a line that is gone: a hole.
//! All who read lines compare neighbours, which costs one subtraction for each step of a reader.

use std::sync::atomic::AtomicU8;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use super::damage::{Damage, Hole};
use super::line::Line;

/// Rows of numbers, each with its first and its last one.
type Ranges = Vec<(u64, u64)>;

/// What is known of the numbers without lines.
#[derive(Debug, Default)]
pub(super) struct Continuity {
    /// First and last numbers of what was skipped, rising.
    skipped: RwLock<Vec<(u64, u64)>>,
    /// Holes that were told of, with first and last number.
    told: Mutex<Vec<(u64, u64)>>,
    /// The state of the scrub, as `scrub.rs` defines it.
    pub(super) scrub: AtomicU8,
    pub(super) report: OnceLock<Report>,
}

/// Tells the owner of the log about damage that was not told before.
pub(super) struct Report(pub(super) Box<dyn Fn(Vec<Damage>) + Send + Sync>);

impl std::fmt::Debug for Report {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Report")
    }
}

impl Continuity {
    pub(super) fn new(skipped: Vec<(u64, u64)>, told: Vec<(u64, u64)>) -> Self {
        Self { skipped: RwLock::new(skipped), told: Mutex::new(told), ..Self::default() }
    }

    /// What is missing between a line (or cursor) and the next line.
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

    /// The first hole in a row of lines after `cursor`, and how many lines come before it.
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

    /// Whether all of a hole was told.
    pub(super) fn is_told(&self, hole: Hole) -> bool {
        self.told().iter().any(|&(first, last)| first <= hole.from && hole.through <= last)
    }

    /// Remembers that a hole is told; `false` when it was told before.
    pub(super) fn tell(&self, hole: Hole) -> bool {
        let is_new = !self.is_told(hole);
        if is_new {
            self.told().push((hole.from, hole.through));
        }
        is_new
    }

    /// What is to be kept in `event-log.json` of what concerns events from `oldest` on: the skipped numbers and the
    /// holes that were told.
    pub(super) fn kept(&self, oldest: u64) -> (Ranges, Ranges) {
        let concerns = |&(_, last): &(u64, u64)| last >= oldest;
        let skipped = self.skipped.read().unwrap_or_else(PoisonError::into_inner);
        let kept = skipped.iter().copied().filter(concerns).collect();
        (kept, self.told().iter().copied().filter(concerns).collect())
    }

    fn told(&self) -> MutexGuard<'_, Vec<(u64, u64)>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seq: u64) -> Line {
        Line::from_json(seq, format!("{{\"seq\":{seq}}}").as_bytes())
    }

    #[test]
    fn only_numbers_that_were_not_skipped_are_missing() {
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
    fn lines_are_handed_out_up_to_the_first_hole() {
        let continuity = Continuity::new(vec![(11, 100)], Vec::new());
        let first = |cursor, seqs: &[u64]| {
            let lines: Vec<_> = seqs.iter().map(|&seq| line(seq)).collect();
            continuity.first_hole(cursor, &lines).map(|(index, hole)| (index, hole.from, hole.through))
        };
        assert_eq!(first(0, &[]), None);
        assert_eq!(first(8, &[9, 10, 101, 102]), None);
        assert_eq!(first(8, &[10, 101]), Some((0, 9, 9)));
        assert_eq!(first(8, &[9, 10, 101, 104]), Some((3, 102, 103)));
        assert!(continuity.tell(Hole { from: 5, through: 9 }));
        assert!(!continuity.tell(Hole { from: 6, through: 9 }), "it was told before");
        assert_eq!(continuity.kept(9), (vec![(11, 100)], vec![(5, 9)]));
        assert_eq!(continuity.kept(10), (vec![(11, 100)], vec![]));
    }
}
