//! How events change the usage limits that are known, and what the records have of them.

use super::events::SessionEvent;
use super::held::HoldCause;
use super::records::State;
use super::session::Session;
use super::turn::{Phase, Turn, TurnPosition};
use super::usage_limit::{OnUsageLimit, Trial, UsageLimit};
use crate::codex::protocol::values::TURN_COMPLETED;
use crate::ids::{ThreadId, TurnId};
use crate::timestamp::Timestamp;

impl State {
    /// The usage limit that is known for the model provider of a session.
    pub fn usage_limit_of(&self, session: &Session) -> Option<&UsageLimit> {
        self.private.usage_limits.get(provider_of(session))
    }

    /// The turn that is tried and has not ended; none while something else keeps it from starting.
    pub fn trial_under_way<'a>(&self, limit: &'a UsageLimit) -> Option<&'a Trial> {
        limit.trial.as_ref().filter(|trial| match &trial.turn_id {
            Some(turn_id) => self.turns.get(&trial.thread_id, turn_id).is_some_and(|turn| !turn.is_over()),
            None => {
                let is_waiting =
                    self.private.queue(&trial.session_id).any(|turn| turn.queue_id == trial.queue_id);
                let held = self.sessions.get(&trial.session_id).and_then(|session| session.held.as_ref());
                is_waiting && held.is_none_or(|held| held.cause == HoldCause::UsageLimit)
            }
        })
    }

    /// Applies the events about usage limits; returns whether the event is one.
    pub(super) fn apply_to_usage_limits(&mut self, at: &Timestamp, event: &SessionEvent) -> bool {
        match event {
            SessionEvent::UsageLimitReached {
                thread_id,
                turn_id,
                model_provider,
                reason,
                until,
                is_reported,
                failed_trials,
                ..
            } => {
                if let (Some(thread_id), Some(turn_id)) = (thread_id, turn_id)
                    && self.turns.get(thread_id, turn_id).is_some_and(|turn| turn.phase != Phase::Ended)
                {
                    let seq = (self.through, at);
                    self.turns.update(seq, thread_id, turn_id, TurnPosition::Newest, |turn: &mut Turn| {
                        // What follows has followed.
                        turn.on_usage_limit = OnUsageLimit::Fail;
                    });
                }
                let limits = &mut self.private.usage_limits;
                let before = limits.remove(model_provider);
                let limit = UsageLimit {
                    since_seq: match (&before, turn_id) {
                        // It is the same limit, of which another end is known.
                        (Some(before), None) => before.since_seq,
                        _ => self.through,
                    },
                    turn_id: turn_id.clone().or_else(|| before.and_then(|before| before.turn_id)),
                    reason: reason.clone(),
                    until: until.clone(),
                    is_reported: *is_reported,
                    failed_trials: *failed_trials,
                    trial: None,
                };
                limits.insert(model_provider.clone(), limit);
                true
            }
            SessionEvent::UsageLimitTrial {
                session_id,
                thread_id,
                queue_id,
                model_provider,
                is_requested,
            } => {
                if let Some(limit) = self.private.usage_limits.get_mut(model_provider) {
                    limit.trial = Some(Trial {
                        session_id: session_id.clone(),
                        thread_id: thread_id.clone(),
                        queue_id: queue_id.clone(),
                        turn_id: None,
                    });
                    if *is_requested {
                        limit.failed_trials = 0;
                    }
                }
                true
            }
            _ => false,
        }
    }

    /// Notes which turn a trial became.
    pub(super) fn note_trial(&mut self, queue_id: &str, turn_id: &TurnId) {
        let trials = self.private.usage_limits.values_mut().filter_map(|limit| limit.trial.as_mut());
        for trial in trials.filter(|trial| trial.queue_id == queue_id) {
            trial.turn_id = Some(turn_id.clone());
        }
    }

    /// Ends the usage limit that a turn shows to be over: it began after the limit was reached, and completed.
    pub(super) fn end_usage_limit(&mut self, thread_id: &ThreadId, turn_id: &TurnId) {
        if self.private.usage_limits.is_empty() {
            return;
        }
        let Some(turn) = self.turns.get(thread_id, turn_id) else { return };
        if turn.phase != Phase::Ended || turn.status != TURN_COMPLETED {
            return;
        }
        let Some(session) = self.session_for(turn) else { return };
        let (provider, first_seq) = (provider_of(session).to_owned(), turn.first_seq);
        if self.private.usage_limits.get(&provider).is_some_and(|limit| limit.since_seq < first_seq) {
            self.private.usage_limits.remove(&provider);
        }
    }
}

/// The model provider of a session, whose limits are counted together; empty when it is not known.
pub fn provider_of(session: &Session) -> &str {
    session.model_provider.as_deref().unwrap_or_default()
}
