//! Counters that the recorder updates as it records events: turn durations and restarts of the app-server.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::histogram::Histogram;

use crate::codex::protocol::values;
use crate::state::{ChildEvent, EventDetail, State, TurnEvent};
use crate::timestamp::Timestamp;

/// The outcomes of turns: the app-server's status values, and `other` for unknown ones.
pub(crate) const OUTCOMES: [&str; 4] =
    [values::TURN_COMPLETED, values::TURN_INTERRUPTED, values::TURN_FAILED, "other"];
/// The upper bounds of the histogram buckets, in seconds.
const DURATION_BUCKETS: [f64; 11] = [1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

/// Counters since the daemon's start; the recorder writes them, `/metrics` reads them.
#[derive(Debug)]
pub(crate) struct TurnMetrics {
    /// The durations of turns in seconds, in the order of [`OUTCOMES`].
    turns: [Histogram; OUTCOMES.len()],
    restarts: AtomicU64,
    /// The time of the newest event of the previous run.
    before: Option<Timestamp>,
}

impl TurnMetrics {
    /// Counters at zero; `before` is the time of the newest event of the previous run.
    pub(crate) fn new(before: Option<Timestamp>) -> Self {
        Self {
            turns: OUTCOMES.map(|_| Histogram::new(DURATION_BUCKETS)),
            restarts: AtomicU64::new(0),
            before,
        }
    }

    /// Counts an event that is about to be applied to the records; `at` is its time.
    pub(crate) fn note(&self, state: &State, at: &Timestamp, event: &EventDetail) {
        if matches!(event, EventDetail::Child(ChildEvent::Backoff(_) | ChildEvent::CrashLoop(_))) {
            self.restarts.fetch_add(1, Ordering::Relaxed);
        } else if let Some(end) = state.turn_end(event) {
            let known = OUTCOMES.iter().position(|outcome| *outcome == end.status);
            let [.., other] = &self.turns;
            let turns = known.and_then(|index| self.turns.get(index)).unwrap_or(other);
            let began = &end.turn.started_at;
            // A turn that ended with the previous run did not run while codexd was down.
            let before = self.before.as_ref().filter(|before| *before >= began);
            let was_cut = matches!(event, EventDetail::Turn(TurnEvent::Missing(_)));
            turns.observe(seconds(began, before.filter(|_| was_cut).or(end.at).unwrap_or(at)));
        }
    }

    /// The durations of turns in seconds, by outcome; clones share their counts.
    pub(crate) fn turns(&self) -> Vec<(&'static str, Histogram)> {
        OUTCOMES.into_iter().zip(self.turns.iter().cloned()).collect()
    }

    /// How many times the app-server terminated unexpectedly or could not be started.
    pub(crate) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }
}

/// The seconds between two RFC 3339 times; 0 when the clock was set back.
fn seconds(from: &Timestamp, to: &Timestamp) -> f64 {
    match (from.time(), to.time()) {
        (Some(from), Some(to)) => to.duration_since(from).as_secs_f64().max(0.0),
        // codexd wrote both, so this does not happen.
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const BEGAN: &str = "2026-01-02T03:04:05.000Z";
    const ENDED: &str = "2026-01-02T03:04:07.500Z";

    /// Counts and applies these events: the first two at `BEGAN`, the others at `ENDED`.
    fn turn_metrics(events: &[(&str, Value)]) -> TurnMetrics {
        turn_metrics_after(None, events)
    }

    fn turn_metrics_after(before: Option<&str>, events: &[(&str, Value)]) -> TurnMetrics {
        let (turn_metrics, mut state) = (TurnMetrics::new(before.map(Timestamp::from)), State::default());
        for (seq, (event_type, detail)) in (1..).zip(events) {
            let at = Timestamp::from(if seq < 3 { BEGAN } else { ENDED });
            let event = EventDetail::read(event_type, detail).unwrap();
            turn_metrics.note(&state, &at, &event);
            state.apply(seq, &at, "", Some(&event));
        }
        turn_metrics
    }

    fn opened() -> (&'static str, Value) {
        let session = json!({
            "sessionId": "s", "purpose": "duplex", "threadId": "t", "status": "active", "endpoint": "stdio",
            "childPid": 1, "createdAt": BEGAN, "updatedAt": BEGAN, "cwd": "/", "model": "m", "modelProvider": "p",
            "serviceTier": null, "reasoningEffort": null, "currentTurnId": null, "lastTurnId": null,
            "lastTurnStatus": null, "metadata": {},
        });
        ("session.created", json!({ "sessionId": "s", "threadId": "t", "session": session }))
    }

    fn started() -> (&'static str, Value) {
        ("app-server.turn.started", json!({ "threadId": "t", "turnId": "u", "status": "inProgress" }))
    }

    fn completed(status: &str) -> (&'static str, Value) {
        (
            "app-server.turn.completed",
            json!({ "threadId": "t", "turnId": "u", "status": status, "error": null }),
        )
    }

    fn counts(turn_metrics: &TurnMetrics) -> Vec<(&'static str, u64, f64)> {
        let turns = turn_metrics.turns().into_iter();
        turns
            .map(|(outcome, turns)| (outcome, turns.count(), turns.sum()))
            .filter(|turn| turn.1 > 0)
            .collect()
    }

    #[test]
    fn turn_metrics_count_a_turn_by_status_and_duration() {
        for (status, outcome) in [
            ("completed", "completed"),
            ("interrupted", "interrupted"),
            ("failed", "failed"),
            ("abandoned", "other"),
        ] {
            let turn_metrics = turn_metrics(&[opened(), started(), completed(status)]);
            assert_eq!(counts(&turn_metrics), [(outcome, 1, 2.5)], "{status}");
        }
    }

    #[test]
    fn turn_metrics_count_each_end_once() {
        let missing = ("app-server.turn.completed.missing", json!({ "sessionId": "s", "turnId": "u" }));
        let settled = ("turn.settled", json!({ "sessionId": "s", "turnId": "u", "status": "completed" }));
        let counts_of = |last: &[(&'static str, Value)]| {
            let events: Vec<_> = [opened(), started()].into_iter().chain(last.iter().cloned()).collect();
            counts(&turn_metrics(&events))
        };
        assert_eq!(counts_of(&[missing.clone(), settled.clone()]), [("failed", 1, 2.5)]);
        assert_eq!(counts_of(&[settled, missing]), [("completed", 1, 2.5)]);
        assert_eq!(counts_of(&[completed("completed"), completed("completed")]), [("completed", 1, 2.5)]);
        let other = json!({ "threadId": "elsewhere", "turnId": "u", "status": "completed", "error": null });
        assert_eq!(counts_of(&[("app-server.turn.completed", other)]), []);
        let goes_on = json!({ "sessionId": "s", "turnId": "u", "status": "inProgress" });
        assert_eq!(counts_of(&[("turn.settled", goes_on)]), []);
    }

    #[test]
    fn turn_metrics_end_a_cut_off_turn_with_its_run() {
        let missing = ("app-server.turn.completed.missing", json!({ "sessionId": "s", "turnId": "u" }));
        let of = |before| counts(&turn_metrics_after(Some(before), &[opened(), started(), missing.clone()]));
        assert_eq!(of("2026-01-02T03:04:06.000Z"), [("failed", 1, 1.0)]);
        // It began in this run.
        assert_eq!(of("2026-01-02T03:04:04.000Z"), [("failed", 1, 2.5)]);
    }

    #[test]
    fn turn_metrics_count_a_shared_turn_once() {
        let (event_type, mut second) = opened();
        second["sessionId"] = json!("z");
        second["session"]["sessionId"] = json!("z");
        let missing =
            |session| ("app-server.turn.completed.missing", json!({ "sessionId": session, "turnId": "u" }));
        let turn_metrics =
            turn_metrics(&[opened(), (event_type, second), started(), missing("s"), missing("z")]);
        assert_eq!(counts(&turn_metrics), [("failed", 1, 0.0)]);
    }

    #[test]
    fn turn_metrics_count_each_scheduled_restart() {
        let backoff = |event_type| {
            (event_type, json!({ "until": ENDED, "deaths": 1, "cause": "It exited.", "stderrTail": [] }))
        };
        let turn_metrics = turn_metrics(&[backoff("child.backoff"), backoff("child.crash_loop")]);
        assert_eq!(turn_metrics.restarts(), 2);
    }

    #[test]
    fn turn_metrics_clamp_negative_durations() {
        let (began, ended) = (BEGAN.into(), ENDED.into());
        assert_eq!((seconds(&began, &ended), seconds(&ended, &began)), (2.5, 0.0));
    }
}
