//! Tests the state machine of a turn with events in any order, with losses and duplicates.
//!
//! A model of two sessions on one thread: each turn that the daemon submits has an answer, a start, a completion and
//! a check of the thread.
//! The test delivers these in any order, loses some, and delivers some twice; then it checks the thread as the daemon
//! does until no turn is open.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{MAX_UNCLEAR_CHECKS, ThreadReport, Verdict};
use crate::ids::{SessionId, ThreadId, TurnId};
use crate::state::{EventDetail, Phase, SessionStatus, State};

const THREAD: &str = "t";

fn thread() -> ThreadId {
    ThreadId::new(THREAD)
}

/// An event of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    Accepted,
    Started,
    Item,
    RetriedError,
    LastError,
    Completed,
    Idle,
    Active,
}

const DELIVERIES: [Delivery; 8] = [
    Delivery::Accepted,
    Delivery::Started,
    Delivery::Item,
    Delivery::RetriedError,
    Delivery::LastError,
    Delivery::Completed,
    Delivery::Idle,
    Delivery::Active,
];

/// The owner of a turn: the first or the second session, or another client of the app-server (`None`).
fn owner(turn: usize) -> Option<&'static str> {
    [Some("a"), Some("b"), None][turn % 3]
}

fn turn_id(turn: usize) -> TurnId {
    TurnId::new(format!("turn-{turn}"))
}

/// How it really ended.
fn status(turn: usize) -> &'static str {
    ["completed", "interrupted", "failed"][turn % 3]
}

/// The event of a delivery; `None` for the acceptance of a turn of another client, which has no event.
fn event_of(turn: usize, delivery: Delivery) -> Option<(&'static str, Value)> {
    let about = json!({ "threadId": THREAD, "turnId": turn_id(turn) });
    let with = |more: Value| {
        let mut detail = about.clone();
        detail.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        detail
    };
    Some(match delivery {
        Delivery::Accepted => ("turn.accepted", with(json!({ "sessionId": owner(turn)? }))),
        Delivery::Started => ("app-server.turn.started", with(json!({ "status": "inProgress" }))),
        Delivery::Item => {
            let item = json!({ "type": "agentMessage", "id": "i", "text": "text" });
            let params = with(json!({ "item": item }));
            ("app-server.notification", json!({ "notificationMethod": "item/completed", "params": params }))
        }
        Delivery::RetriedError => ("app-server.turn.error", with(json!({ "willRetry": true, "error": {} }))),
        Delivery::LastError => ("app-server.turn.error", with(json!({ "willRetry": false, "error": {} }))),
        Delivery::Completed => ("app-server.turn.completed", with(json!({ "status": status(turn) }))),
        Delivery::Idle | Delivery::Active => {
            let kind = if delivery == Delivery::Idle { "idle" } else { "active" };
            let detail = json!({ "threadId": THREAD, "status": { "type": kind } });
            ("app-server.thread.status.changed", detail)
        }
    })
}

/// The records, the ends that were counted, and the events that were written.
struct Model {
    state: State,
    seq: u64,
    ends: Vec<(TurnId, String)>,
    /// The turns that were open at some time; one whose first event is its end never was.
    open: BTreeSet<TurnId>,
    settled: usize,
}

impl Model {
    fn new() -> Self {
        let mut model =
            Self { state: State::default(), seq: 0, ends: Vec::new(), open: BTreeSet::new(), settled: 0 };
        for session_id in ["a", "b"] {
            let session = json!({
                "sessionId": session_id, "purpose": "duplex", "threadId": THREAD, "status": "active",
                "endpoint": "stdio://test", "childPid": 7, "createdAt": "T0", "updatedAt": "T0", "cwd": "/w",
                "model": "m", "modelProvider": "p", "serviceTier": null, "reasoningEffort": null,
                "currentTurnId": null, "lastTurnId": null, "lastTurnStatus": null, "metadata": {},
            });
            let detail = json!({ "sessionId": session_id, "threadId": THREAD, "session": session });
            model.write("session.created", detail);
        }
        model
    }

    fn write(&mut self, event_type: &str, detail: Value) {
        self.seq += 1;
        let event = EventDetail::read(event_type, &detail).unwrap();
        if let Some(end) = self.state.turn_end(&event) {
            self.ends.push((end.turn.turn_id.clone(), end.status.to_owned()));
        }
        let over_before = self.over();
        self.state.apply(self.seq, &format!("T{}", self.seq).as_str().into(), "", Some(&event));
        for (turn_id, phase, status) in over_before {
            let now = self.state.turns.get(&thread(), &turn_id).unwrap();
            let ends = ["turn.settled", "app-server.turn.completed"];
            let may_change = phase == Phase::CutOff && ends.contains(&event_type);
            assert!(
                may_change || now.status == status,
                "{turn_id} was {status} and is {} by {event_type}",
                now.status
            );
        }
        self.open.extend(self.state.turns.open().map(|turn| turn.turn_id.clone()));
        self.check();
    }

    fn over(&self) -> Vec<(TurnId, Phase, String)> {
        let thread_id = thread();
        let over = self.state.turns.of(&thread_id).filter(|turn| turn.is_over());
        over.map(|turn| (turn.turn_id.clone(), turn.phase, turn.status.to_string())).collect()
    }

    /// Asserts what is true at any moment.
    fn check(&self) {
        let running = self.state.turns.running(&thread());
        let shown = running.filter(|turn| turn.phase != Phase::Failing).map(|turn| &turn.turn_id);
        for session in
            self.state.sessions.in_thread(&thread()).filter(|session| session.status == SessionStatus::Active)
        {
            assert_eq!(session.current_turn_id.as_ref(), shown, "{}", session.session_id);
        }
        for turn in self.state.turns.of(&thread()) {
            assert_eq!(turn.is_over(), turn.status != "inProgress", "{turn:?}");
            assert_eq!(turn.is_over(), turn.completed_at.is_some(), "{turn:?}");
        }
        let open = self.state.turns.open().count();
        assert_eq!(open, self.state.turns.of(&thread()).filter(|turn| !turn.is_over()).count());
    }

    /// Checks the thread as often as the daemon does, when nothing runs in it any more, and settles the turns that have
    /// ended; `listed` returns whether the thread lists a turn.
    fn check_thread(&mut self, listed: impl Fn(usize) -> bool, turns: usize) {
        for unclear in 0..=MAX_UNCLEAR_CHECKS {
            let list: Vec<_> = (0..turns)
                .filter(|turn| listed(*turn))
                .map(|turn| (turn_id(turn), status(turn).to_owned(), None))
                .collect();
            let report = ThreadReport { is_active: false, turns: list };
            let open: Vec<_> = self.state.turns.open().cloned().collect();
            for turn in open {
                if let Verdict::Ended { status, error } = report.verdict(&turn.turn_id, unclear) {
                    self.settled += 1;
                    let session = self.state.session_for(&turn).unwrap().session_id.clone();
                    let detail = json!({
                        "sessionId": session, "threadId": THREAD, "turnId": turn.turn_id, "status": status,
                        "error": error,
                    });
                    self.write("turn.settled", detail);
                }
            }
        }
    }
}

/// A sequence of deliveries, each with its turn.
fn deliveries(turns: usize) -> impl Strategy<Value = Vec<(usize, Delivery)>> {
    let all: Vec<_> = (0..turns).flat_map(|turn| DELIVERIES.map(|delivery| (turn, delivery))).collect();
    // Each delivery once or twice, in any order; what is left out is lost.
    let twice: Vec<_> = all.iter().chain(&all).copied().collect();
    let most = twice.len();
    prop::sample::subsequence(twice, 0..=most).prop_shuffle()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn turn_ends_once_with_lost_late_and_duplicate_events(
        deliveries in deliveries(4),
        cut_at in prop::option::of(0..64usize),
        close_at in prop::option::of(0..64usize),
        listed in prop::collection::vec(any::<bool>(), 4),
    ) {
        let mut model = Model::new();
        for (index, (turn, delivery)) in deliveries.into_iter().enumerate() {
            if close_at == Some(index) {
                model.write("session.closed", json!({ "sessionId": "b" }));
            }
            if cut_at == Some(index) {
                // The end of the connection ends what is open.
                let open: Vec<_> = model.state.turns.open().cloned().collect();
                for turn in open {
                    let session = model.state.session_for(&turn).unwrap().session_id.clone();
                    let detail = json!({ "sessionId": session, "threadId": THREAD, "turnId": turn.turn_id });
                    model.write("app-server.turn.completed.missing", detail);
                }
            }
            if let Some((event_type, detail)) = event_of(turn, delivery) {
                model.write(event_type, detail);
            }
        }
        let open = model.state.turns.open().count();
        model.check_thread(|turn| listed[turn], 4);
        prop_assert_eq!(model.state.turns.open().count(), 0, "each turn ends");
        prop_assert_eq!(model.settled, open, "what was open is settled once, and nothing else is written");
        model.check_thread(|turn| listed[turn], 4);
        prop_assert_eq!(model.settled, open, "and nothing is written afterwards");
        let mut ended: Vec<_> = model.ends.iter().map(|(turn_id, _)| turn_id.clone()).collect();
        ended.sort();
        let count = ended.len();
        ended.dedup();
        prop_assert_eq!(ended.len(), count, "no turn ends twice: {:?}", model.ends);
        for turn in model.state.turns.of(&thread()) {
            if turn.started_by.is_some() {
                let number: usize = turn.turn_id.as_str().strip_prefix("turn-").unwrap().parse().unwrap();
                prop_assert_eq!(turn.started_by.as_ref().map(SessionId::as_str), owner(number));
            }
            prop_assert!(turn.is_over());
        }
        prop_assert_eq!(&ended, &model.open.iter().cloned().collect::<Vec<_>>(), "each open turn ended");
        for session in model.state.sessions.in_thread(&thread()) {
            prop_assert_eq!(&session.current_turn_id, &None);
            prop_assert_ne!(session.last_turn_status.as_deref(), Some("inProgress"));
        }
    }
}
