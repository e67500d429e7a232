use serde_json::json;

use super::*;
use crate::history::record::{Filter, FilterFields};

fn event(seq: u64) -> EventText {
    event_of(seq, "app-server.notification", "s")
}

fn event_of(seq: u64, event_type: &str, session_id: &str) -> EventText {
    let detail = json!({ "sessionId": session_id, "turnId": format!("turn-{seq}") });
    let text = json!({ "seq": seq, "type": event_type, "detail": detail }).to_string();
    EventText { seq, text: text.into() }
}

fn connected(after: u64) -> Step {
    Step::Connected { after }
}

fn events(seqs: impl IntoIterator<Item = u64>) -> Vec<Step> {
    seqs.into_iter().map(|seq| Step::Event(event(seq))).collect()
}

fn run(steps: impl IntoIterator<Item = Step>) -> Run {
    let steps = steps.into_iter().collect();
    Run { client: "c".to_owned(), epoch: "e".to_owned(), filter: Filter::default(), steps }
}

/// A run of one connection after sequence number 0 with these events.
fn plain(seqs: impl IntoIterator<Item = u64>) -> Run {
    run([vec![connected(0)], events(seqs)].concat())
}

fn known(seqs: impl IntoIterator<Item = u64>) -> Known {
    seqs.into_iter().map(|seq| (seq, FilterFields::of(&event(seq).text))).collect()
}

fn history(runs: Vec<Run>, log: impl IntoIterator<Item = u64>) -> History {
    History {
        runs,
        acknowledgements: Vec::new(),
        epoch: "e".to_owned(),
        log: log.into_iter().map(event).collect(),
        sessions: Vec::new(),
    }
}

#[track_caller]
fn assert_rejected(verdict: Verdict, name: &str) {
    let contradiction = verdict.expect_err("the validator accepted an invalid history");
    assert!(contradiction.starts_with(name), "{contradiction}");
}

#[test]
fn validators_accept_a_consistent_history() {
    let resumed = run([
        vec![connected(1)],
        events([2, 3]),
        vec![connected(3), Step::Bookmark(4), connected(4)],
        // After a kill the sequence numbers continue with a skip.
        events([1001]),
    ]
    .concat());
    let mut filtered = plain([2, 4]);
    filtered.filter.types = vec!["none".to_owned()];
    filtered.steps = vec![connected(0), Step::Bookmark(1001)];
    // The filtered client does not receive event 4, because its filter does not match the type.
    let mut history = history(vec![resumed, plain([1, 2, 3]), filtered], [1, 2, 3, 1001]);
    assert_eq!(contradictions(&history), [""; 0]);
    history.runs.push(plain([1, 2, 3, 4]));
    assert!(
        !contradictions(&history).is_empty(),
        "event 4 is known, but neither the log nor each client has it"
    );
}

#[test]
fn ordered_rejects_decreasing_sequence_numbers() {
    assert_rejected(ordered(&plain([1, 3, 2])), "ordered");
    assert_rejected(ordered(&plain([1, 2, 2])), "ordered");
    assert_rejected(ordered(&run([vec![connected(5)], events([5])].concat())), "ordered");
    assert_rejected(
        ordered(&run([vec![connected(0)], events([1, 2]), vec![connected(2)], events([2])].concat())),
        "ordered",
    );
    assert_rejected(ordered(&run([connected(0), Step::Bookmark(9), Step::Bookmark(8)])), "ordered");
    assert_eq!(ordered(&plain([1, 2, 900])), Ok(()));
}

#[test]
fn unique_rejects_two_texts_for_one_sequence_number() {
    let mut other = plain([1, 2]);
    other.steps.push(Step::Event(event_of(3, "another", "s")));
    assert_rejected(unique(&[plain([1, 2, 3]), other.clone()], "e", &[]), "unique");
    assert_rejected(unique(&[other.clone()], "e", &[event(3)]), "unique");
    other.epoch = "f".to_owned();
    assert_eq!(unique(&[plain([1, 2, 3]), other], "e", &[event(3)]), Ok(()), "epochs are independent");
}

#[test]
fn nothing_missing_rejects_skipped_events() {
    let all = known(1..=5);
    assert_rejected(nothing_missing(&plain([1, 2, 4]), &all), "nothing missing");
    assert_rejected(nothing_missing(&plain([2, 3]), &all), "nothing missing");
    assert_rejected(nothing_missing(&run([connected(0), Step::Bookmark(1)]), &all), "nothing missing");
    // An event that is skipped between two connections is missing too.
    let skipped = run([vec![connected(0)], events([1, 2]), vec![connected(2)], events([4])].concat());
    assert_rejected(nothing_missing(&skipped, &all), "nothing missing");
    assert_rejected(nothing_missing(&run([]), &all), "nothing missing");
    assert_eq!(nothing_missing(&plain([1, 2, 3]), &all), Ok(()), "later events may still arrive");
    assert_eq!(
        nothing_missing(&plain([1, 2, 900]), &known([1, 2, 900])),
        Ok(()),
        "events 3 to 899 are not known"
    );
    assert_eq!(nothing_missing(&run([connected(3)]), &all), Ok(()));
}

#[test]
fn resumable_requires_the_next_event_after_reconnect() {
    let all = known(1..=9);
    let resumed =
        |at, first| run([vec![connected(0)], events([1, 2]), vec![connected(at)], events([first])].concat());
    assert_eq!(resumable(&resumed(2, 3), &all), Ok(()));
    assert_rejected(resumable(&resumed(2, 4), &all), "resumable");
    assert_rejected(resumable(&resumed(2, 2), &all), "resumable");
    assert_rejected(resumable(&resumed(3, 4), &all), "resumable");
    assert_rejected(resumable(&run([vec![connected(4)], events([6])].concat()), &all), "resumable");
    assert_rejected(resumable(&plain([1]), &known([])), "resumable");
}

#[test]
fn filters_exact_rejects_unmatched_events() {
    let log = [
        event_of(1, "turn.accepted", "a"),
        event_of(2, "turn.accepted", "b"),
        event_of(3, "child.error", "a"),
    ];
    let all: Known = log.iter().map(|event| (event.seq, FilterFields::of(&event.text))).collect();
    let got = |types: &[&str], session: Option<&str>, seqs: &[u64]| {
        let steps = seqs.iter().map(|seq| Step::Event(log[*seq as usize - 1].clone()));
        let mut run = run(std::iter::once(connected(0)).chain(steps));
        run.filter.types = types.iter().map(|&start| start.to_owned()).collect();
        run.filter.session = session.map(|id| (id.to_owned(), "thread".to_owned()));
        run
    };
    assert_eq!(filters_exact(&got(&["turn."], None, &[1, 2]), &all), Ok(()));
    assert_eq!(filters_exact(&got(&["x", "child"], Some("a"), &[3]), &all), Ok(()));
    assert_rejected(filters_exact(&got(&["turn."], None, &[1, 2, 3]), &all), "filters exact");
    assert_rejected(filters_exact(&got(&[], Some("a"), &[1, 2]), &all), "filters exact");
    assert_rejected(filters_exact(&got(&["turn."], Some("c"), &[1]), &all), "filters exact");
    assert_rejected(nothing_missing(&got(&[], Some("a"), &[3]), &all), "nothing missing");
    assert_rejected(nothing_missing(&got(&["turn."], None, &[2]), &all), "nothing missing");
}

#[test]
fn unbroken_rejects_a_gap() {
    let mut broken = plain([1, 2]);
    assert_eq!(unbroken(&[broken.clone()]), Ok(()));
    broken.steps.push(Step::Gap("expired".to_owned()));
    assert_rejected(unbroken(&[broken]), "unbroken");
}

#[test]
fn kept_rejects_received_events_missing_from_the_log() {
    assert_eq!(kept(&history(vec![plain([1, 2])], [1, 2, 3])), Ok(()));
    assert_rejected(kept(&history(vec![plain([1, 2])], [1, 3])), "kept");
    assert_rejected(kept(&history(vec![plain([1, 2, 3, 4])], [1, 2, 3])), "kept");
    let mut other_log = history(vec![plain([1, 2])], []);
    other_log.epoch = "f".to_owned();
    assert_eq!(kept(&other_log), Ok(()));
}

#[test]
fn acknowledged_requires_log_entry_and_session_record() {
    let session = Acknowledgement::Session { session_id: "a".to_owned(), thread_id: "t".to_owned() };
    let turn = Acknowledgement::Turn { session_id: "a".to_owned(), turn_id: "turn-2".to_owned() };
    let mut history = history(Vec::new(), []);
    history.log = vec![event_of(1, "session.created", "a"), event_of(2, "turn.accepted", "a")];
    history.sessions = vec![json!({ "sessionId": "a" })];
    let both = [session.clone(), turn.clone()];
    assert_eq!(acknowledged(&both, &history), Ok(()));
    let elsewhere = Acknowledgement::Turn { session_id: "b".to_owned(), turn_id: "turn-2".to_owned() };
    assert_rejected(acknowledged(&[elsewhere], &history), "acknowledged");
    history.sessions.clear();
    assert_rejected(acknowledged(&both, &history), "acknowledged");
    history.sessions = vec![json!({ "sessionId": "a" })];
    history.log.pop();
    assert_rejected(acknowledged(&both, &history), "acknowledged");
    assert_eq!(acknowledged(&[session], &history), Ok(()));
    assert_rejected(acknowledged(&[turn], &history), "acknowledged");
}
