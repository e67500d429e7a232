//! Tests of the boundary between lines read from files and live lines, in every order of steps.
//!
//! The actors are the recorder (append, publish, begin a new segment, remove the oldest one, recover) and subscribers,
//! each a list of steps on the real objects; every interleaving of the lists is played from the beginning.
//! What one step does to what is shared, it does under one lock or with one call to the system, or it reads files that
//! others only add to, so this finds what a concurrency checker would find that switches at these points: a subscriber's
//! step is two of them, what memory has, and what the files have when memory has it no more.

use super::*;
use crate::journal::recovery::Recovered;
use crate::journal::subscription::{Polled, Reading};
use crate::storage::Operation;

/// One step of the recorder.
#[derive(Debug, Clone, Copy)]
enum Write {
    Append,
    Publish,
    Rotate,
    RemoveOldest,
    /// From now on every call of this kind fails; a write that fails has written the half before.
    Fail(Operation),
    /// Syncs; the result is ignored.
    Sync,
    /// Tries to recover the log; the result is ignored.
    TryToRecover,
    /// All is well again, and the log is brought up to date.
    Recover,
}

/// A subscriber and what it got.
struct Reader {
    subscription: Subscription,
    began: u64,
    behind: Option<Reading>,
    got: Vec<u64>,
    gone: bool,
}

struct World {
    journal: Journal,
    faults: Arc<Faults>,
    appended: Vec<Line>,
    /// The newest event that was written when it was appended.
    written: u64,
    readers: Vec<Reader>,
    lost: Option<(u64, u64)>,
    _directory: tempfile::TempDir,
}

/// The state before the first step.
#[derive(Debug, Clone, Copy)]
struct Beginning {
    /// How many events, one by one.
    events: u64,
    /// How many of them memory keeps.
    memory: usize,
    /// Where subscribers begin.
    cursors: &'static [u64],
    /// How many lines a subscriber takes at most in one step.
    most: usize,
}

impl World {
    fn new(beginning: Beginning) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let faults = Arc::new(Faults::default());
        // Segments are begun and removed by steps only.
        let limits = Limits { segment_bytes: 1 << 30, total_bytes: 1 };
        let journal = open_with(directory.path(), faults.disk(), limits).journal;
        journal.log.tail.keep(beginning.memory);
        let mut world = Self {
            journal,
            faults,
            appended: Vec::new(),
            written: 0,
            readers: Vec::new(),
            lost: None,
            _directory: directory,
        };
        for number in 0..beginning.events {
            if number == beginning.events / 2 {
                world.write(Write::Rotate);
            }
            world.write(Write::Append);
            world.write(Write::Publish);
        }
        for &cursor in beginning.cursors {
            let mut subscription = world.journal.log().follow(cursor);
            subscription.most = beginning.most;
            world.readers.push(Reader {
                subscription,
                began: cursor,
                behind: None,
                got: Vec::new(),
                gone: false,
            });
        }
        world
    }

    fn write(&mut self, step: Write) {
        let journal = &mut self.journal;
        match step {
            Write::Append => {
                // Two at once, so that half a write can be a whole line, and of different lengths, so that no offset of
                // one line is by chance that of another.
                let message = "x".repeat(journal.next_seq as usize * 7 % 40);
                self.appended.extend(journal.append("t", [entry(&message), entry("")].into_iter()));
                if journal.failing().is_none() {
                    self.written = journal.next_seq - 1;
                }
            }
            Write::Publish => journal.publish(std::mem::take(&mut self.appended)),
            Write::Rotate => {
                if journal.size > 0 && journal.failing().is_none() {
                    // One that fails leaves the old file as the one that is written.
                    let _ = journal.rotate_at(journal.next_seq);
                }
            }
            Write::RemoveOldest => journal.remove_oldest(0),
            Write::Fail(operation) => {
                let kind = std::io::ErrorKind::StorageFull;
                let first = 1 + u64::from(operation == Operation::Write);
                self.faults.plan(Some(Plan { operation, first, forever: true, kind }));
            }
            Write::Sync => {
                if journal.sync.sync().is_ok() {
                    let on_disk = on_disk(journal, 0);
                    assert_eq!(
                        on_disk,
                        (1..=self.written).collect::<Vec<_>>(),
                        "the lines that a sync reported as durable"
                    );
                }
            }
            Write::TryToRecover => drop(journal.recover()),
            Write::Recover => {
                self.faults.plan(None);
                let Recovered { lost } = journal.recover().unwrap();
                self.lost = self.lost.or(lost);
            }
        }
    }

    /// Half a step of a subscriber.
    fn read(&mut self, number: usize) {
        let Self { readers, journal, lost, .. } = self;
        let reader = &mut readers[number];
        let next = match reader.behind.take() {
            Some(reading) => reader.subscription.take(reading.read().unwrap()),
            None => match reader.subscription.poll() {
                Polled::Lines(next) => next,
                Polled::Pending => return,
                Polled::Behind(reading) => {
                    reader.behind = Some(reading);
                    return;
                }
            },
        };
        match next {
            Next::Lines(lines) => {
                assert!(!lines.is_empty() && !reader.gone);
                reader.got.extend(seqs(&lines));
                let latest = journal.log.tail.latest();
                assert!(reader.subscription.cursor() <= latest, "delivered before it was published");
            }
            Next::Missing(hole) => {
                // What memory has dropped while the disk failed is lost before the recovery reports it.
                let is_lost = lost.is_some_and(|(first, last)| first <= hole.from && hole.through <= last);
                let is_here = |seq: &u64| (hole.from..=hole.through).contains(seq);
                let in_memory = journal.log.tail.from(hole.from).iter().any(|line| is_here(&line.seq));
                let on_disk = on_disk(journal, hole.from - 1).iter().any(is_here);
                assert!(is_lost || (!in_memory && !on_disk), "{hole:?} are called missing");
                reader.subscription.jump(hole.through);
            }
            Next::Expired => {
                let next = reader.subscription.cursor() + 1;
                let in_memory = journal.log.tail.oldest().is_some_and(|oldest| oldest <= next);
                let on_disk = on_disk(journal, next - 1).first() == Some(&next);
                assert!(!in_memory && !on_disk, "{next} is called gone and is there");
                reader.gone = true;
            }
        }
    }

    /// Lets all readers finish and checks the lines they received.
    fn check(&mut self) {
        let latest = self.journal.log.tail.latest();
        for number in 0..self.readers.len() {
            for _ in 0..200 {
                let reader = &self.readers[number];
                if reader.gone || reader.subscription.cursor() == latest {
                    break;
                }
                self.read(number);
            }
            let reader = &self.readers[number];
            let is_lost = |seq: &u64| self.lost.is_some_and(|(first, last)| (first..=last).contains(seq));
            let all: Vec<u64> = (reader.began + 1..=latest).collect();
            // Lost lines may have been received live by some readers, but always in order.
            let received: Vec<u64> =
                all.iter().copied().filter(|seq| !is_lost(seq) || reader.got.contains(seq)).collect();
            let expected =
                if reader.gone { &received[..reader.got.len().min(received.len())] } else { &received[..] };
            assert_eq!(reader.got, expected, "subscriber {number}, gone: {}", reader.gone);
        }
    }
}

/// Plays every interleaving; how many there are.
fn explore(beginning: Beginning, recorder: &[Write], reads: usize) -> usize {
    let mut left = vec![recorder.len()];
    left.extend(beginning.cursors.iter().map(|_| reads));
    let mut schedules = Vec::new();
    schedule(&mut left, &mut Vec::new(), &mut schedules);
    for schedule in &schedules {
        let played = std::panic::catch_unwind(|| {
            let mut world = World::new(beginning);
            let mut steps = recorder.iter();
            for &actor in schedule {
                match actor.checked_sub(1) {
                    None => steps.next().into_iter().for_each(|&step| world.write(step)),
                    Some(reader) => world.read(reader),
                }
            }
            world.check();
        });
        assert!(
            played.is_ok(),
            "in the order {schedule:?} (0 is the recorder) of {recorder:?} after {beginning:?}"
        );
    }
    schedules.len()
}

/// All orders in which actors with so many steps left can take them.
fn schedule(left: &mut [usize], taken: &mut Vec<usize>, schedules: &mut Vec<Vec<usize>>) {
    if left.iter().all(|&steps| steps == 0) {
        schedules.push(taken.clone());
    }
    for actor in 0..left.len() {
        if left[actor] > 0 {
            left[actor] -= 1;
            taken.push(actor);
            schedule(left, taken, schedules);
            taken.pop();
            left[actor] += 1;
        }
    }
}

use Write::{Append, Fail, Publish, Recover, RemoveOldest, Rotate, Sync, TryToRecover};

#[test]
fn subscriber_gets_each_line_once_in_every_order() {
    let beginning = Beginning { events: 4, memory: 2, cursors: &[0], most: 2 };
    assert_eq!(explore(beginning, &[Append, Publish, Rotate, Append, Append, Publish], 6), 924);
    let beginning = Beginning { events: 3, memory: 1, cursors: &[1], most: 1 };
    assert_eq!(explore(beginning, &[Append, Publish, Rotate, Append, Publish], 6), 462);
}

#[test]
fn unpublished_lines_are_never_delivered() {
    let beginning = Beginning { events: 3, memory: 2, cursors: &[0], most: 100 };
    assert_eq!(explore(beginning, &[Append, Publish, Append, Rotate, Append, Publish], 4), 210);
}

#[test]
fn two_subscribers_do_not_affect_each_other() {
    let beginning = Beginning { events: 2, memory: 1, cursors: &[0, 2], most: 2 };
    assert_eq!(explore(beginning, &[Append, Publish, Rotate, Append, Publish], 2), 756);
}

#[test]
fn subscriber_overtaken_by_rotation_gets_gone_in_every_order() {
    let beginning = Beginning { events: 4, memory: 1, cursors: &[0], most: 1 };
    let recorder = [Append, Publish, RemoveOldest, Rotate, Append, Publish, RemoveOldest];
    assert_eq!(explore(beginning, &recorder, 4), 330);
}

#[test]
fn full_disk_hides_no_loss_in_any_order() {
    let beginning = Beginning { events: 3, memory: 2, cursors: &[0], most: 1 };
    let full = Fail(Operation::Write);
    assert_eq!(explore(beginning, &[full, Append, Publish, Recover, Append, Publish], 6), 924);
    // More than memory holds: what is lost is named.
    let recorder = [full, Append, Publish, Append, Publish, Recover, Append, Publish];
    assert_eq!(explore(Beginning { cursors: &[4], ..beginning }, &recorder, 4), 495);
    assert_eq!(explore(Beginning { cursors: &[4], most: 100, ..beginning }, &recorder, 4), 495);
}

#[test]
fn rewrite_after_failed_sync_hides_no_loss_in_any_order() {
    let beginning = Beginning { events: 4, memory: 2, cursors: &[0], most: 1 };
    let recorder = [Fail(Operation::Sync), Sync, Recover, Append, Publish, Rotate, Append, Publish];
    assert_eq!(explore(beginning, &recorder, 4), 495);
}

#[test]
fn nothing_counts_as_synced_during_a_rewrite() {
    let beginning = Beginning { events: 4, memory: 100, cursors: &[], most: 1 };
    for operation in [Operation::Write, Operation::Open, Operation::Rename] {
        let recorder = [
            Fail(Operation::Sync),
            Sync,
            Fail(operation),
            TryToRecover,
            Sync,
            TryToRecover,
            Sync,
            Recover,
            Sync,
        ];
        assert_eq!(explore(beginning, &recorder, 0), 1);
    }
}
