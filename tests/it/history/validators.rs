//! What must hold for every history; each validator says what contradicts it.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Included};

use super::record::{History, Known, Promise, Run, Seen, Step};

/// A contradiction, as a sentence that begins with the name of the validator.
pub(super) type Verdict = Result<(), String>;

/// Every validator; all that is wrong, at most the first contradiction of each and of each client.
pub(super) fn contradictions(history: &History) -> Vec<String> {
    let mut verdicts = vec![
        unique(&history.runs, &history.epoch, &history.log),
        kept(history),
        promised(&history.promises, history),
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

/// What a client gets only ever rises, over all its connections: nothing twice, nothing late.
pub(super) fn ordered(run: &Run) -> Verdict {
    let mut reached = 0;
    for step in &run.steps {
        match step {
            Step::Event(seen) if seen.seq <= reached => {
                return Err(format!("ordered: {} got event {} when it had {reached}", run.client, seen.seq));
            }
            Step::Bookmark(seq) if *seq < reached => {
                return Err(format!("ordered: {} was sent back from {reached} to {seq}", run.client));
            }
            _ => reached = step.reaches().unwrap_or(reached),
        }
    }
    Ok(())
}

/// Within one epoch a number stands for one text, for everybody and for ever.
pub(super) fn unique(runs: &[Run], epoch: &str, log: &[Seen]) -> Verdict {
    let mut texts: HashMap<(&str, u64), (&str, &str)> = HashMap::new();
    let in_log = log.iter().map(|seen| (epoch, "the log", seen));
    let in_runs =
        runs.iter().flat_map(|run| run.events().map(|seen| (run.epoch.as_str(), run.client.as_str(), seen)));
    for (epoch, who, seen) in in_log.chain(in_runs) {
        let (first, text) = texts.entry((epoch, seen.seq)).or_insert((who, &seen.text));
        if **text != *seen.text {
            return Err(format!(
                "unique: event {} is {text} for {first} and {} for {who}",
                seen.seq, seen.text
            ));
        }
    }
    Ok(())
}

/// Between where a client began and how far it came, it has every event that it asked for and that anybody knows.
pub(super) fn nothing_missing(run: &Run, known: &Known) -> Verdict {
    let Some(Step::Connected { after }) = run.steps.first() else {
        return Err(format!("nothing missing: {} never connected", run.client));
    };
    let has: BTreeSet<u64> = run.events().map(|seen| seen.seq).collect();
    // A gap that was told is where a run ends, and it promises nothing about what stood behind it.
    let range = (Excluded(*after), Included(run.reached().max(*after)));
    let missing: Vec<u64> = known
        .range(range)
        .filter(|(seq, facts)| run.filter.wants(facts) && !has.contains(seq))
        .map(|(seq, _)| *seq)
        .collect();
    match missing.first() {
        None => Ok(()),
        Some(first) => Err(format!(
            "nothing missing: {} has events from {after} to {} without {} of them, the first being {first}",
            run.client,
            run.reached(),
            missing.len()
        )),
    }
}

/// Each connection goes on exactly where the client was: its first event is the next one that there is.
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
            Step::Event(seen) => {
                if let Some(after) = began.take() {
                    let next = known
                        .range((Excluded(after), Included(u64::MAX)))
                        .find(|(_, facts)| run.filter.wants(facts))
                        .map(|(seq, _)| *seq);
                    if next != Some(seen.seq) {
                        return Err(format!(
                            "resumable: {} resumed after {after} and got {} instead of {next:?}",
                            run.client, seen.seq
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

/// A client gets nothing that it did not ask for; that it gets all it asked for is said by `nothing_missing`.
pub(super) fn filters_exact(run: &Run, known: &Known) -> Verdict {
    for seen in run.events() {
        if !known.get(&seen.seq).is_some_and(|facts| run.filter.wants(facts)) {
            return Err(format!("filters exact: {} got {} with {:?}", run.client, seen.text, run.filter));
        }
    }
    Ok(())
}

/// Nobody was told that events are missing.
pub(super) fn unbroken(runs: &[Run]) -> Verdict {
    for run in runs {
        if let Some(Step::Gap(reason)) = run.steps.last() {
            return Err(format!(
                "unbroken: {} was told of a gap after {}: {reason}",
                run.client,
                run.reached()
            ));
        }
    }
    Ok(())
}

/// What anybody saw is in the log in the end, unless the log is another one by then.
pub(super) fn kept(history: &History) -> Verdict {
    let log: BTreeSet<u64> = history.log.iter().map(|seen| seen.seq).collect();
    for run in history.runs.iter().filter(|run| run.epoch == history.epoch) {
        if let Some(lost) = run.events().find(|seen| !log.contains(&seen.seq)) {
            return Err(format!("kept: {} saw {}, which is not in the log", run.client, lost.text));
        }
    }
    Ok(())
}

/// What was promised is in the log and in the records in the end.
pub(super) fn promised(promises: &[Promise], history: &History) -> Verdict {
    let mut opened = BTreeSet::new();
    let mut accepted = BTreeSet::new();
    for seen in &history.log {
        // Most events are others; parsing each would take most of the test's time.
        if !["\"session.created\"", "\"session.resumed\"", "\"turn.accepted\""]
            .iter()
            .any(|name| seen.text.contains(name))
        {
            continue;
        }
        let event: serde_json::Value = serde_json::from_str(&seen.text).map_err(|error| error.to_string())?;
        let id = |name: &str| event["detail"][name].as_str().unwrap_or_default().to_owned();
        match event["type"].as_str() {
            Some("session.created" | "session.resumed") => drop(opened.insert(id("sessionId"))),
            Some("turn.accepted") => drop(accepted.insert((id("sessionId"), id("turnId")))),
            _ => {}
        }
    }
    let sessions: BTreeSet<&str> =
        history.sessions.iter().filter_map(|session| session["sessionId"].as_str()).collect();
    for promise in promises {
        let (in_log, session_id) = match promise {
            Promise::Session { session_id, .. } => (opened.contains(session_id), session_id),
            Promise::Turn { session_id, turn_id } => {
                (accepted.contains(&(session_id.clone(), turn_id.clone())), session_id)
            }
        };
        if !in_log {
            return Err(format!("promised: {promise:?} is not in the log"));
        }
        if !sessions.contains(session_id.as_str()) {
            return Err(format!("promised: {promise:?} has no record"));
        }
    }
    Ok(())
}
