//! Which threads have a queued turn to start, and when the next one is due: a function of the records and of the time.

use super::usage_limit::{next_to_start, trials};
use crate::ids::ThreadId;
use crate::state::State;
use crate::timestamp::Timestamp;

/// What is to be done with the queues at one time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::daemon) struct Schedule {
    /// The idle threads in which a queued turn is due and waits for no usage limit.
    pub(in crate::daemon) due: Vec<ThreadId>,
    /// The model providers of which a turn can be tried, because their usage limit should have ended, and its thread.
    pub(in crate::daemon) trials: Vec<(String, ThreadId)>,
    /// When the next turn of an idle thread becomes due, or can be tried.
    ///
    /// Those of a thread in which a turn runs are looked at when it has ended.
    pub(in crate::daemon) next: Option<Timestamp>,
}

impl Schedule {
    /// The schedule at `now`.
    pub(in crate::daemon) fn at(state: &State, now: &Timestamp) -> Self {
        let (trials, next) = trials(state, now);
        let mut schedule = Self { due: Vec::new(), trials, next };
        for thread_id in state.queued_threads() {
            if state.turns.running(thread_id).is_some() {
                continue;
            }
            if next_to_start(state, thread_id, now).is_some() {
                schedule.due.push(thread_id.clone());
            } else if state.next_due(thread_id, now).is_none() {
                let times = state.queue_of(thread_id).filter_map(|(_, turn)| turn.not_before.clone());
                schedule.next = schedule.next.into_iter().chain(times).min();
            }
        }
        schedule
    }
}
