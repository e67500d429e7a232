//! The queues on a simulated clock: random histories of turns, usage limits, kills, sleep and changes of the clock.
//!
//! The daemon of the simulation is the records, their fold, and the decisions of this module; it looks at them when an
//! event is recorded and when its alarm rings, as the turn watch does. What it must guarantee: each queued turn starts once,
//! none before its time, one at a time while a usage limit is known, and each turn that is to be continued is so once.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp as Time};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::held::holds_after_failure;
use super::schedule::Schedule;
use super::usage_limit::{changes, next_to_start, requested_trial, trial};
use crate::codex::protocol::{errors, usage_limits};
use crate::daemon::events;
use crate::daemon::tests::new_session;
use crate::ids::ThreadId;
use crate::state::snapshot::RecordsFile;
use crate::state::{EventDetail, NewEvent, OnUsageLimit, QueuedTurn, State, TurnEvent};
use crate::timestamp::Timestamp;

const SESSIONS: usize = 3;
const MINUTE: i64 = 60_000;

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// A client queues a turn, which may wait for a time, in minutes from now.
    Queue { session: usize, not_before: Option<i64>, on_usage_limit: OnUsageLimit },
    /// The turn that runs in a session ends: with a failure while the usage limit is reached.
    End { session: usize },
    /// Time passes, in minutes; timers run.
    Wait(i64),
    /// The machine sleeps: time passes, and timers that are due ring when it wakes.
    Sleep(i64),
    /// Somebody sets the clock, by minutes.
    SetClock(i64),
    /// SIGKILL, and a start from the last snapshot and the log.
    Kill,
    /// The state files are written.
    Snapshot,
    /// The account reaches its limit for so many minutes; whether Codex reports the end.
    Limit { minutes: i64, is_reported: bool },
    /// A client removes the last turn of a queue.
    Withdraw { session: usize },
    /// A client resumes a queue.
    Resume { session: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let session = || 0..SESSIONS;
    let on_usage_limit = prop_oneof![
        3 => Just(OnUsageLimit::Hold), 2 => Just(OnUsageLimit::Continue), 1 => Just(OnUsageLimit::Fail)
    ];
    let step = prop_oneof![
        5 => (session(), prop::option::of(-30..600_i64), on_usage_limit).prop_map(
            |(session, not_before, on_usage_limit)| Step::Queue { session, not_before, on_usage_limit }
        ),
        6 => session().prop_map(|session| Step::End { session }),
        4 => (1..400_i64).prop_map(Step::Wait),
        2 => (1..900_i64).prop_map(Step::Sleep),
        2 => (-300..300_i64).prop_map(Step::SetClock),
        3 => Just(Step::Kill),
        2 => Just(Step::Snapshot),
        2 => (10..400_i64, any::<bool>()).prop_map(|(minutes, is_reported)| Step::Limit { minutes, is_reported }),
        1 => session().prop_map(|session| Step::Withdraw { session }),
        1 => session().prop_map(|session| Step::Resume { session }),
    ];
    prop::collection::vec(step, 1..60)
}

struct World {
    /// The clock, which can be set.
    now: Time,
    /// What has passed, whatever the clock says, in milliseconds.
    passed: i64,
    /// Until when the account is at its limit, by `passed`, and whether Codex reports it.
    limit: Option<(i64, bool)>,
    state: State,
    /// Every event: number, time, type, detail.
    log: Vec<(u64, Timestamp, String, Value)>,
    snapshot: Option<Value>,
    alarm: Option<Time>,
    /// The turns that were queued, with their times, in order; without those that were withdrawn.
    queued: BTreeMap<String, Option<Time>>,
    started: Vec<String>,
    /// The turns that are to be continued.
    continued: BTreeSet<String>,
    /// How many were queued by clients.
    next_id: usize,
}

fn session_name(session: usize) -> String {
    format!("s{session}")
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            now: "2026-03-01T00:00:00Z".parse().unwrap(),
            passed: 0,
            limit: None,
            state: State::default(),
            log: Vec::new(),
            snapshot: None,
            alarm: None,
            queued: BTreeMap::new(),
            started: Vec::new(),
            continued: BTreeSet::new(),
            next_id: 0,
        };
        for session in 0..SESSIONS {
            let mut opened = new_session(&session_name(session));
            opened.thread_id = Some(ThreadId::new(format!("t{session}")));
            let opened = events::session_opened(&opened, false, Map::new(), Default::default(), None, None);
            world.record(vec![opened]);
        }
        world
    }

    fn record(&mut self, new_events: Vec<NewEvent>) {
        for event in new_events {
            let (seq, at) = (self.log.len() as u64 + 1, Timestamp::from(self.now));
            let detail = event.json().map_or(Value::Null, |json| serde_json::from_str(&json).unwrap());
            self.state.apply(seq, &at, &event.message(), Some(event.detail()));
            self.log.push((seq, at, event.detail().event_type().to_owned(), detail));
        }
    }

    fn stamp(&self) -> Timestamp {
        self.now.into()
    }

    /// What the turn watch does whenever something was recorded or its alarm rang.
    fn look(&mut self) {
        loop {
            let now = self.stamp();
            let lacking = changes(&self.state, &now);
            if !lacking.is_empty() {
                self.record(lacking);
                assert!(changes(&self.state, &now).is_empty(), "they would be recorded again and again");
                continue;
            }
            let Schedule { due, trials, next } = Schedule::at(&self.state, &now);
            self.alarm = next.and_then(|at| at.time());
            if let Some((provider, _)) = trials.into_iter().next() {
                let chosen = trial(&self.state, &provider, &now);
                assert!(!chosen.is_empty(), "there is a turn to try");
                self.record(chosen);
                continue;
            }
            let Some(thread_id) = due.into_iter().next() else { return };
            self.start(&thread_id);
        }
    }

    fn start(&mut self, thread_id: &ThreadId) {
        let now = self.stamp();
        let (session_id, turn) = next_to_start(&self.state, thread_id, &now).unwrap();
        let (session_id, turn) = (session_id.clone(), turn.clone());
        assert!(turn.not_before.as_ref().is_none_or(|at| *at <= now), "{} is early", turn.queue_id);
        assert!(!self.started.contains(&turn.queue_id), "{} starts again", turn.queue_id);
        let session = self.state.sessions.get(&session_id).unwrap();
        if let Some(limit) = self.state.usage_limit_of(session) {
            let since = limit.since_seq;
            let others = self.state.turns.open().filter(|turn| turn.first_seq > since).count();
            assert_eq!(others, 0, "more than one turn runs while the limit is known");
        }
        self.started.push(turn.queue_id.clone());
        let turn_id = format!("turn-{}", turn.queue_id);
        let accepted = TurnEvent::Accepted {
            session_id: session_id.clone(),
            thread_id: Some(thread_id.clone()),
            turn_id: turn_id.as_str().into(),
            status: None,
            is_newest: None,
            steered: false,
            queue_id: Some(turn.queue_id.clone()),
            on_usage_limit: Some(turn.on_usage_limit),
            idempotency: None,
        };
        let accepted = events::accepted_with_release(&self.state, accepted);
        self.record(accepted);
    }

    fn is_limited(&self) -> bool {
        self.limit.is_some_and(|(until, _)| self.passed < until)
    }

    /// Ends the turn that runs in a thread.
    fn end(&mut self, thread_id: &ThreadId) {
        let Some(turn) = self.state.turns.running(thread_id).cloned() else { return };
        let turn_id = turn.turn_id.clone();
        let (mut status, mut error) = ("completed", Value::Null);
        if self.is_limited() {
            let (until, is_reported) = self.limit.unwrap();
            status = "failed";
            let at = self.now.checked_add(SignedDuration::from_millis(until - self.passed)).unwrap();
            let at = at.to_zoned(jiff::tz::TimeZone::UTC);
            let message = match is_reported {
                true => usage_limits::text_of_reset(&at),
                false => "try again later.".to_owned(),
            };
            error = errors::usage_limit_exceeded(&message);
            // The app-server reports it twice: when it occurs, and with the end of the turn.
            for _ in 0..2 {
                let zoned = self.now.to_zoned(jiff::tz::TimeZone::UTC);
                let holds =
                    super::usage_limit::reached(&self.state, thread_id, Some(&turn_id), &message, &zoned);
                let new = holds.iter().filter_map(|event| match event.detail() {
                    EventDetail::Turn(TurnEvent::Queued { queue_id, .. }) => Some(queue_id.clone()),
                    _ => None,
                });
                for queue_id in new.collect::<Vec<_>>() {
                    assert!(self.continued.insert(queue_id.clone()), "{queue_id} is queued again");
                    self.queued.insert(queue_id, None);
                }
                self.record(holds);
            }
        }
        let completed = json!({ "threadId": thread_id, "turnId": turn_id, "status": status, "error": error });
        let completed = EventDetail::read("app-server.turn.completed", &completed).unwrap();
        self.record(vec![completed.into()]);
        assert!(holds_after_failure(&self.state, thread_id, Some(&turn_id), &error).is_empty());
    }

    fn queue(&mut self, session: usize, not_before: Option<i64>, on_usage_limit: OnUsageLimit) {
        self.next_id += 1;
        let queue_id = format!("q{}", self.next_id);
        let at = not_before.map(|minutes| self.now.checked_add(SignedDuration::from_mins(minutes)).unwrap());
        let turn = QueuedTurn {
            queue_id: queue_id.clone(),
            queued_at: self.stamp(),
            input: Vec::new(),
            settings: Map::new(),
            submitted: false,
            order: 0,
            not_before: at.map(Timestamp::from),
            on_usage_limit,
            continues: None,
        };
        self.queued.insert(queue_id.clone(), at);
        let queued = TurnEvent::Queued {
            session_id: session_name(session).as_str().into(),
            thread_id: Some(ThreadId::new(format!("t{session}"))),
            queue_id,
            position: 1,
            turn: Box::new(turn),
            idempotency: None,
        };
        self.record(vec![queued.into()]);
    }

    fn kill(&mut self) {
        let records: Option<RecordsFile> =
            self.snapshot.clone().map(|records| serde_json::from_value(records).unwrap());
        let mut state = State::restore(records, None);
        for (seq, at, event_type, detail) in &self.log {
            let event = EventDetail::read(event_type, detail);
            state.apply(*seq, at, "", event.as_ref());
        }
        assert_eq!(state.private, self.state.private, "the records are the fold of the events");
        assert_eq!(state.turns, self.state.turns);
        self.state = state;
        self.alarm = None;
    }

    /// Lets time pass; what rings, rings at its time.
    fn wait(&mut self, milliseconds: i64) {
        let end = self.passed + milliseconds;
        while self.passed < end {
            let left = end - self.passed;
            let ring = self.alarm.map(|at| at.duration_since(self.now).as_millis().max(1) as i64);
            let pass = ring.filter(|ring| *ring <= left).unwrap_or(left);
            self.pass(pass);
            if self.alarm.is_some_and(|at| at <= self.now) {
                self.look();
            }
        }
    }

    fn pass(&mut self, milliseconds: i64) {
        self.passed += milliseconds;
        self.now = self.now.checked_add(SignedDuration::from_millis(milliseconds)).unwrap();
    }

    fn ring_if_due(&mut self) {
        if self.alarm.is_some_and(|at| at <= self.now) {
            self.look();
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Queue { session, not_before, on_usage_limit } => {
                self.queue(session, not_before, on_usage_limit);
                self.look();
            }
            Step::End { session } => {
                self.end(&ThreadId::new(format!("t{session}")));
                self.look();
            }
            Step::Wait(minutes) => self.wait(minutes * MINUTE),
            Step::Sleep(minutes) => {
                self.pass(minutes * MINUTE);
                self.ring_if_due();
            }
            Step::SetClock(minutes) => {
                self.now = self.now.checked_add(SignedDuration::from_mins(minutes)).unwrap();
                self.ring_if_due();
            }
            Step::Kill => {
                self.kill();
                self.look();
            }
            Step::Snapshot => {
                self.snapshot = Some(serde_json::to_value(RecordsFile::of(&self.state)).unwrap())
            }
            Step::Limit { minutes, is_reported } => {
                self.limit = Some((self.passed + minutes * MINUTE, is_reported));
            }
            Step::Withdraw { session } => {
                let session_id = session_name(session).as_str().into();
                let last = self.state.private.queue(&session_id).last().map(|turn| turn.queue_id.clone());
                if let Some(queue_id) = last {
                    let rejected = events::turn_rejected(&session_id, Some(&queue_id), None, "withdrawn");
                    let released = events::releases_after_removal(&self.state, &session_id, &[&queue_id]);
                    self.record([vec![rejected], released].concat());
                    self.queued.remove(&queue_id);
                    self.look();
                }
            }
            Step::Resume { session } => self.resume(session),
        }
    }

    fn resume(&mut self, session: usize) {
        let thread_id = ThreadId::new(format!("t{session}"));
        let session = self.state.sessions.get(&session_name(session).as_str().into()).unwrap();
        if session.held.is_none() || self.state.turns.running(&thread_id).is_some() {
            return;
        }
        let other = self.state.usage_limit_of(session).and_then(|limit| self.state.trial_under_way(limit));
        if other.is_some() {
            return;
        }
        let trial = requested_trial(&self.state, &thread_id, &self.stamp());
        let mut resumed = events::released(&self.state, &thread_id, "A client resumed it.");
        resumed.extend(trial);
        self.record(resumed);
        self.look();
    }

    /// Lets everything come to its end, without another limit.
    fn settle(&mut self) {
        self.limit = None;
        for _ in 0..2_000 {
            self.look();
            let running: Vec<_> = self.state.turns.open().map(|turn| turn.thread_id.clone()).collect();
            if !running.is_empty() {
                running.iter().for_each(|thread_id| self.end(thread_id));
            } else if self.alarm.is_some() {
                self.wait(30 * MINUTE);
            } else {
                // codexd has stopped trying.
                (0..SESSIONS).for_each(|session| self.resume(session));
                if self.state.turns.open().next().is_none() {
                    return;
                }
            }
        }
        panic!("it does not come to an end");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn queued_turns_start_once_and_never_early_in_every_history(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.settle();
        let started: BTreeSet<_> = world.started.iter().cloned().collect();
        for queue_id in world.queued.keys() {
            prop_assert!(started.contains(queue_id), "{queue_id} never started");
        }
        prop_assert!(world.state.queued_threads().is_empty());
        prop_assert!(world.state.sessions.iter().all(|session| session.held.is_none()));
    }
}

/// A reported limit of an hour: the turns wait for its end, one is tried, and then the others start.
#[test]
fn one_turn_over_all_sessions_is_tried_after_the_limit() {
    let mut world = World::new();
    world.limit = Some((60 * MINUTE, true));
    for session in [0, 0, 1, 1, 2, 2] {
        world.queue(session, None, OnUsageLimit::Hold);
    }
    world.look();
    assert_eq!(world.started, ["q1", "q3", "q5"]);
    for session in 0..SESSIONS {
        world.step(&Step::End { session });
    }
    let held = |world: &World| world.state.sessions.iter().filter(|session| session.held.is_some()).count();
    assert_eq!((held(&world), world.started.len()), (3, 3));
    world.wait(59 * MINUTE);
    assert_eq!(world.started.len(), 3);
    world.wait(3 * MINUTE);
    assert_eq!(world.started[3..], ["q2"], "one is tried");
    assert_eq!(held(&world), 2);
    world.step(&Step::End { session: 0 });
    assert_eq!(world.started[4..], ["q4", "q6"]);
    assert_eq!(held(&world), 0);
}

/// A limit of which Codex does not report the end, and that lasts: the attempts are bounded, and a client can go on.
#[test]
fn attempts_are_bounded_and_continue_sends_one_new_turn_for_each() {
    let mut world = World::new();
    world.limit = Some((10_000 * MINUTE, false));
    world.queue(0, None, OnUsageLimit::Continue);
    world.queue(0, None, OnUsageLimit::Hold);
    world.look();
    for _ in 0..200 {
        world.step(&Step::End { session: 0 });
        world.wait(20 * MINUTE);
    }
    let tries = ["q1", "queued-continue-turn-q1", "queued-continue-turn-queued-continue-turn-q1"];
    assert_eq!(world.started[..3], tries, "the turn that reached the limit is not sent again");
    assert_eq!(world.started.len(), 6, "one turn and five trials: {:?}", world.started);
    let session = world.state.sessions.get(&"s0".into()).unwrap();
    let held = session.held.as_ref().unwrap();
    assert!(held.until.is_none() && held.reason.contains("5 turns in a row"), "{held:?}");
    world.limit = None;
    world.resume(0);
    assert_eq!(world.started.last().unwrap(), "q2");
    world.step(&Step::End { session: 0 });
    assert!(world.state.private.usage_limits.is_empty());
}

/// A turn with `fail` holds none behind it.
#[test]
fn turn_that_is_to_fail_holds_no_other() {
    let mut world = World::new();
    world.limit = Some((60 * MINUTE, true));
    world.queue(0, None, OnUsageLimit::Fail);
    world.queue(0, None, OnUsageLimit::Hold);
    world.look();
    world.step(&Step::End { session: 0 });
    assert_eq!(world.started, ["q1", "q2"]);
    assert!(world.state.private.usage_limits.is_empty());
}
