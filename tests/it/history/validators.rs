//! Invariants of every history; each validator returns the first contradiction it finds.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Included};

use super::record::{Acknowledgement, EventText, History, Known, Run, Step};

/// A contradiction, as a sentence that begins with the name of the validator.
pub(super) type Verdict = Result<(), String>;

/// Runs all validators; returns at most one contradiction per validator and client.
pub(super) fn contradictions(history: &History) -> Vec<String> {
    let mut verdicts = vec![
        unique(&history.runs, &history.epoch, &history.log),
        kept(history),
        acknowledged(&history.acknowledgements, history),
    ];
    let mut epochs: Vec<&str> = history.runs.iter().map(|run| run.epoch.as_str()).collect();
    epochs.sort_unstable();
    epochs.dedup();
    for epoch in epochs {
        let known = history.known(epoch);
        for run in history.runs.iter().filter(|run| run.epoch == epoch) {
            verdicts.extend([
                ordered(run),
                filters_exact(run, &known),
                nothing_missing(run, &known),
                resumable(run, &known),
            ]);
        }
    }
    verdicts.into_iter().filter_map(Result::err).collect()
}

/// Sequence numbers strictly increase over all connections of a client: no duplicate and no reordered event.
pub(super) fn ordered(run: &Run) -> Verdict {
    let mut reached = 0;
    for step in &run.steps {
        match step {
            Step::Event(event) if event.seq <= reached => {
                return Err(format!("ordered: {} received event {} after {reached}", run.client, event.seq));
            }
            Step::Bookmark(seq) if *seq < reached => {
                return Err(format!("ordered: {} received bookmark {seq} after {reached}", run.client));
            }
            _ => reached = step.reaches().unwrap_or(reached),
        }
    }
    Ok(())
}

/// Within one epoch, each sequence number belongs to exactly one event text, for all clients and at all times.
pub(super) fn unique(runs: &[Run], epoch: &str, log: &[EventText]) -> Verdict {
    let mut texts: HashMap<(&str, u64), (&str, &str)> = HashMap::new();
    let in_log = log.iter().map(|event| (epoch, "the log", event));
    let in_runs = runs
        .iter()
        .flat_map(|run| run.events().map(|event| (run.epoch.as_str(), run.client.as_str(), event)));
    for (epoch, source, event) in in_log.chain(in_runs) {
        let (first, text) = texts.entry((epoch, event.seq)).or_insert((source, &event.text));
        if **text != *event.text {
            return Err(format!(
                "unique: event {} is {text} for {first} and {} for {source}",
                event.seq, event.text
            ));
        }
    }
    Ok(())
}

/// A client has every known event that its filter matches, from its start through the number it reached.
pub(super) fn nothing_missing(run: &Run, known: &Known) -> Verdict {
    let Some(Step::Connected { after }) = run.steps.first() else {
        return Err(format!("nothing missing: {} never connected", run.client));
    };
    let has: BTreeSet<u64> = run.events().map(|event| event.seq).collect();
    // A reported gap ends a run and guarantees nothing about the events after it.
    let range = (Excluded(*after), Included(run.reached().max(*after)));
    let missing: Vec<u64> = known
        .range(range)
        .filter(|(seq, fields)| run.filter.matches(fields) && !has.contains(seq))
        .map(|(seq, _)| *seq)
        .collect();
    match missing.first() {
        None => Ok(()),
        Some(first) => Err(format!(
            "nothing missing: {} lacks {2} events between {after} and {1}, the first is {first}",
            run.client,
            run.reached(),
            missing.len()
        )),
    }
}

/// Each connection resumes where the client was: its first event is the next known event that the filter matches.
pub(super) fn resumable(run: &Run, known: &Known) -> Verdict {
    let mut reached = None;
    let mut began = None;
    for step in &run.steps {
        match step {
            Step::Connected { after } => {
                if reached.is_some_and(|reached| reached != *after) {
                    return Err(format!("resumable: {} had {reached:?} and resumed at {after}", run.client));
                }
                began = Some(*after);
            }
            Step::Event(event) => {
                if let Some(after) = began.take() {
                    let next = known
                        .range((Excluded(after), Included(u64::MAX)))
                        .find(|(_, fields)| run.filter.matches(fields))
                        .map(|(seq, _)| *seq);
                    if next != Some(event.seq) {
                        return Err(format!(
                            "resumable: {} resumed after {after} and received {} instead of {next:?}",
                            run.client, event.seq
                        ));
                    }
                }
            }
            Step::Bookmark(_) | Step::Gap(_) => {}
        }
        reached = step.reaches().or(reached);
    }
    Ok(())
}

/// A client receives only events that its filter matches; `nothing_missing` checks that it receives all of them.
pub(super) fn filters_exact(run: &Run, known: &Known) -> Verdict {
    for event in run.events() {
        if !known.get(&event.seq).is_some_and(|fields| run.filter.matches(fields)) {
            return Err(format!(
                "filters exact: {} received {} with the filter {:?}",
                run.client, event.text, run.filter
            ));
        }
    }
    Ok(())
}

/// No client received a gap.
pub(super) fn unbroken(runs: &[Run]) -> Verdict {
    for run in runs {
        if let Some(Step::Gap(reason)) = run.steps.last() {
            return Err(format!("unbroken: {} received a gap after {}: {reason}", run.client, run.reached()));
        }
    }
    Ok(())
}

/// Each event that a client received is in the log at the end, unless the epoch has changed.
pub(super) fn kept(history: &History) -> Verdict {
    let log: BTreeSet<u64> = history.log.iter().map(|event| event.seq).collect();
    for run in history.runs.iter().filter(|run| run.epoch == history.epoch) {
        if let Some(lost) = run.events().find(|event| !log.contains(&event.seq)) {
            return Err(format!("kept: {} received {}, which is not in the log", run.client, lost.text));
        }
    }
    Ok(())
}

/// Each acknowledged write is in the log and in the session records at the end.
pub(super) fn acknowledged(acknowledgements: &[Acknowledgement], history: &History) -> Verdict {
    let mut opened = BTreeSet::new();
    let mut accepted = BTreeSet::new();
    for event in &history.log {
        // Skip all other events: parsing each would take most of the time of the test.
        if !["\"session.created\"", "\"session.resumed\"", "\"turn.accepted\""]
            .iter()
            .any(|name| event.text.contains(name))
        {
            continue;
        }
        let event: serde_json::Value =
            serde_json::from_str(&event.text).map_err(|error| error.to_string())?;
        let id = |name: &str| event["detail"][name].as_str().unwrap_or_default().to_owned();
        match event["type"].as_str() {
            Some("session.created" | "session.resumed") => drop(opened.insert(id("sessionId"))),
            Some("turn.accepted") => drop(accepted.insert((id("sessionId"), id("turnId")))),
            _ => {}
        }
    }
    let sessions: BTreeSet<&str> =
        history.sessions.iter().filter_map(|session| session["sessionId"].as_str()).collect();
    for acknowledgement in acknowledgements {
        let (in_log, session_id) = match acknowledgement {
            Acknowledgement::Session { session_id, .. } => (opened.contains(session_id), session_id),
            Acknowledgement::Turn { session_id, turn_id } => {
                (accepted.contains(&(session_id.clone(), turn_id.clone())), session_id)
            }
        };
        if !in_log {
            return Err(format!("acknowledged: {acknowledgement:?} is not in the log"));
        }
        if !sessions.contains(session_id.as_str()) {
            return Err(format!("acknowledged: {acknowledgement:?} has no record"));
        }
    }
    Ok(())
}
