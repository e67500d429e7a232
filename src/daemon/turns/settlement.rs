//! Settling a turn whose end was not received: reads its thread and decides whether the turn runs or how it ended.
//!
//! The decision ([`ThreadReport::verdict`]) depends on the responses alone.

#[cfg(test)]
mod orders;

use serde_json::{Value, json};

use crate::codex::Client;
use crate::codex::protocol::responses::{ThreadStatusRead, TurnPage};
use crate::codex::protocol::{methods, values};
use crate::daemon::app_server::calls::call;
use crate::daemon::app_server::read_response::newest_turns;
use crate::daemon::error::DaemonError;
use crate::daemon::unsupported_methods::UnsupportedMethods;
use crate::ids::{ThreadId, TurnId};

/// How many of a thread's newest turns are read.
const NEWEST_TURNS_LIMIT: u32 = 20;
/// How many checks in a row may be unclear before a turn counts as failed: with the pause between two checks that is
/// half a minute in which nothing runs in the thread.
pub(in crate::daemon) const MAX_UNCLEAR_CHECKS: u32 = 15;

/// What a thread reports about itself and its turns at one moment.
#[derive(Debug, Clone, Default)]
pub(in crate::daemon) struct ThreadReport {
    /// Whether a turn runs.
    pub(in crate::daemon) is_active: bool,
    /// The newest turns: id, status and error.
    pub(in crate::daemon) turns: Vec<(TurnId, String, Option<Value>)>,
}

/// What a report means for a turn that is not known to be over.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::daemon) enum Verdict {
    /// It runs.
    Runs,
    /// It does not run, and the thread does not report how it ended; it may do so later.
    Unclear,
    /// It is over.
    Ended { status: String, error: Option<Value> },
}

impl ThreadReport {
    /// The verdict on a turn after `unclear` unclear checks in a row.
    pub(in crate::daemon) fn verdict(&self, turn_id: &TurnId, unclear: u32) -> Verdict {
        let listed = self.turns.iter().find(|(id, ..)| id == turn_id);
        let another_runs =
            self.turns.iter().any(|(id, status, _)| id != turn_id && status == values::TURN_IN_PROGRESS);
        match listed {
            Some((_, status, error)) if status != values::TURN_IN_PROGRESS => {
                Verdict::Ended { status: status.clone(), error: error.clone() }
            }
            Some(_) if self.is_active => Verdict::Runs,
            None if self.is_active && !another_runs => Verdict::Runs,
            _ if unclear + 1 < MAX_UNCLEAR_CHECKS => Verdict::Unclear,
            _ => {
                let message = "The app-server no longer runs this turn and does not report how it ended.";
                Verdict::Ended {
                    status: values::TURN_FAILED.to_owned(),
                    error: Some(json!({ "message": message })),
                }
            }
        }
    }
}

/// Reads the status and the newest turns of a thread.
///
/// An app-server that refuses to list the turns, as it does for an ephemeral thread, still reports whether one runs.
/// Fails when it reports neither.
pub(in crate::daemon) async fn read_thread(
    client: &Client,
    thread_id: &ThreadId,
    unsupported: &UnsupportedMethods,
) -> Result<ThreadReport, DaemonError> {
    let params = json!({ "threadId": thread_id });
    let status = call::<ThreadStatusRead>(client, methods::THREAD_READ, &params).await;
    let status = status.map(|answer| answer.is_active());
    if let Err(error) = &status {
        unsupported.note(client.generation(), error);
    }
    if let Err(error) = &status
        && !error.is_refusal()
    {
        return status.map(|is_active| ThreadReport { is_active, turns: Vec::new() });
    }
    let (method, params) = newest_turns(client, thread_id, NEWEST_TURNS_LIMIT);
    let listed = call::<TurnPage>(client, method, &params).await;
    let turns: Vec<_> = match listed {
        Ok(turns) => turns.data.into_iter().map(|turn| (turn.id, turn.status, turn.error)).collect(),
        Err(error) if error.is_refusal() && status.is_ok() => Vec::new(),
        Err(error) => return Err(error),
    };
    let is_active =
        status.unwrap_or_else(|_| turns.iter().any(|(_, status, _)| status == values::TURN_IN_PROGRESS));
    Ok(ThreadReport { is_active, turns })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(is_active: bool, turns: &[(&str, &str)]) -> ThreadReport {
        let turns = turns.iter().map(|(id, status)| ((*id).into(), (*status).to_owned(), None));
        ThreadReport { is_active, turns: turns.collect() }
    }

    #[test]
    fn verdict_follows_the_thread_and_fails_after_unclear_checks() {
        let ended = |status: &str| Verdict::Ended { status: status.to_owned(), error: None };
        for (is_active, turns, verdict) in [
            (true, vec![("a", "completed")], ended("completed")),
            (false, vec![("a", "interrupted")], ended("interrupted")),
            (true, vec![("a", "inProgress")], Verdict::Runs),
            (true, vec![], Verdict::Runs),
            (true, vec![("b", "completed")], Verdict::Runs),
            (true, vec![("b", "inProgress")], Verdict::Unclear),
            (false, vec![("a", "inProgress")], Verdict::Unclear),
            (false, vec![("b", "completed")], Verdict::Unclear),
            (false, vec![], Verdict::Unclear),
        ] {
            let report = report(is_active, &turns);
            assert_eq!(report.verdict(&"a".into(), 0), verdict, "{report:?}");
            let at_last = report.verdict(&"a".into(), MAX_UNCLEAR_CHECKS - 1);
            match verdict {
                Verdict::Unclear => {
                    assert!(
                        matches!(&at_last, Verdict::Ended { status, .. } if status == "failed"),
                        "{report:?}"
                    );
                }
                verdict => assert_eq!(at_last, verdict, "{report:?}"),
            }
        }
    }
}
