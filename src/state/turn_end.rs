//! Which turn a change ends.

use super::change::Change;
use super::records::State;
use super::turn::Turn;
use crate::codex::protocol::values::{TURN_FAILED, TURN_IN_PROGRESS};

/// The end of a turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TurnEnd<'a> {
    /// The turn as it was before.
    pub turn: &'a Turn,
    /// How it ended, as the app-server reports it.
    pub status: &'a str,
}

impl State {
    /// The end that a change is to a turn of a session when it is applied now; `None` when that turn is over already.
    ///
    /// So each turn ends once, however often its end is reported.
    pub fn turn_end<'a>(&'a self, change: &'a Change) -> Option<TurnEnd<'a>> {
        let (thread_id, turn_id) = self.turn_of_change(change)?;
        let turn = self.turns.get(&thread_id, &turn_id)?;
        let status = match change {
            Change::TurnCompleted { status, .. } | Change::TurnSettled { status, .. } => status.as_str(),
            Change::TurnMissing { .. } => TURN_FAILED,
            _ => return None,
        };
        (!turn.is_over() && status != TURN_IN_PROGRESS).then_some(TurnEnd { turn, status })
    }
}
