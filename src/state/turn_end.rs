//! Which turn an event ends.

use super::events::{EventDetail, NotificationEvent, TurnEvent};
use super::records::State;
use super::turn::Turn;
use crate::codex::protocol::values::{TURN_FAILED, TURN_IN_PROGRESS};
use crate::timestamp::Timestamp;

/// The end of a turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TurnEnd<'a> {
    /// The turn as it was before.
    pub turn: &'a Turn,
    /// How it ended, as the app-server reports it.
    pub status: &'a str,
    /// When it ended, if that was before the event.
    pub at: Option<&'a Timestamp>,
}

impl State {
    /// The end that an event is to a turn of a session when it is applied now; `None` when that turn is over already.
    ///
    /// So each turn ends once, however often its end is reported.
    pub fn turn_end<'a>(&'a self, event: &'a EventDetail) -> Option<TurnEnd<'a>> {
        let (thread_id, turn_id) = self.turn_of_event(event)?;
        let turn = self.turns.get(&thread_id, &turn_id)?;
        let status = match event {
            EventDetail::Notification(NotificationEvent::TurnCompleted { status, .. })
            | EventDetail::Turn(TurnEvent::Settled { status, .. }) => status.as_str(),
            EventDetail::Turn(TurnEvent::Missing(_)) => TURN_FAILED,
            _ => return None,
        };
        let at = match event {
            EventDetail::Turn(TurnEvent::Settled { completed_at, .. }) => completed_at.as_ref(),
            _ => None,
        };
        (!turn.is_over() && status != TURN_IN_PROGRESS).then_some(TurnEnd { turn, status, at })
    }
}
