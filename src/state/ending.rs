//! Which turn a change ends.

use super::{Change, FAILED, IN_PROGRESS, State, Turn};

/// The end of a turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ending<'a> {
    /// The turn as it was before.
    pub turn: &'a Turn,
    /// How it ended, in the app-server's word.
    pub status: &'a str,
}

impl State {
    /// The end that a change is to a turn of a session when it is applied now; `None` when that turn is over already.
    ///
    /// So each turn ends once, however often it is told of.
    pub fn ending<'a>(&'a self, change: &'a Change) -> Option<Ending<'a>> {
        let (turn, status) = match change {
            Change::TurnCompleted { thread_id, turn_id, status, .. } => {
                let mut sessions = self.sessions.in_thread(thread_id);
                let turn = sessions.find_map(|session| self.turns.get(&session.session_id, turn_id))?;
                (&**turn, status.as_str())
            }
            Change::TurnMissing { session_id, turn_id } => (self.turn_of(session_id, turn_id)?, FAILED),
            Change::TurnSettled { session_id, turn_id, status } => {
                (self.turn_of(session_id, turn_id)?, status.as_str())
            }
            _ => return None,
        };
        (!turn.is_over() && status != IN_PROGRESS).then_some(Ending { turn, status })
    }

    /// A turn of a session; `None` as well when it is over in another session of the same thread, whose turn it is too.
    fn turn_of(&self, session_id: &str, turn_id: &str) -> Option<&Turn> {
        let thread_id = self.sessions.get(session_id)?.thread_id.as_deref().unwrap_or_default();
        let mut others = self.sessions.in_thread(thread_id);
        let turn = |session_id: &str| self.turns.get(session_id, turn_id).map(|turn| &**turn);
        if others.any(|other| turn(&other.session_id).is_some_and(Turn::is_over)) {
            return None;
        }
        turn(session_id)
    }
}
