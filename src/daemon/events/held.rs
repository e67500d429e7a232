//! The events of held queues.

use crate::ids::{SessionId, ThreadId};
use crate::state::{Held, NewEvent, Session, SessionEvent, State, TurnEvent};

/// The queue of a session is held.
pub(crate) fn session_held(session: &Session, waiting: usize, held: &Held) -> NewEvent {
    SessionEvent::Held {
        session_id: session.session_id.clone(),
        thread_id: session.thread_id.clone(),
        waiting,
        held: Box::new(held.clone()),
    }
    .into()
}

/// The queue of a session is released.
pub(crate) fn session_released(session: &Session, reason: &str) -> NewEvent {
    SessionEvent::Released {
        session_id: session.session_id.clone(),
        thread_id: session.thread_id.clone(),
        reason: reason.to_owned(),
    }
    .into()
}

/// The acceptance of a turn, and the release of the queue in which it waited.
pub(crate) fn accepted_with_release(state: &State, accepted: TurnEvent) -> Vec<NewEvent> {
    let waited_in = match &accepted {
        TurnEvent::Accepted { session_id, queue_id: Some(_), .. } => state.sessions.get(session_id),
        _ => None,
    };
    let thread_id = waited_in.and_then(|session| session.thread_id.as_ref());
    let mut new_events = thread_id
        .map(|thread_id| released(state, thread_id, "The cause of the hold is over."))
        .unwrap_or_default();
    new_events.push(accepted.into());
    new_events
}

/// The release of a thread's queue: one event for each session that has queued turns in it.
pub(crate) fn released(state: &State, thread_id: &ThreadId, why: &str) -> Vec<NewEvent> {
    let held = state.sessions.active_in_thread(thread_id).filter(|session| session.held.is_some());
    held.map(|session| session_released(session, why)).collect()
}

/// The releases after these turns left a session's queue: of the thread's queue when one of them held it, else of the
/// session when no other turn is queued in it.
pub(crate) fn releases_after_removal(
    state: &State,
    session_id: &SessionId,
    queue_ids: &[&str],
) -> Vec<NewEvent> {
    let Some(session) = state.sessions.get(session_id) else { return Vec::new() };
    let (Some(held), Some(thread_id)) = (&session.held, &session.thread_id) else { return Vec::new() };
    let gone = |queue_id: &str| queue_ids.contains(&queue_id);
    if held.queue_id.as_deref().is_some_and(gone) {
        return released(state, thread_id, "The turn that held it is no longer queued.");
    }
    let is_empty = state.private.queue(session_id).all(|turn| gone(&turn.queue_id));
    is_empty.then(|| session_released(session, "No turn is queued in it any more.")).into_iter().collect()
}

/// The hold of a thread's queue, for a session that queues its first turn; `None` when its record has the hold already,
/// or when the queue is not held.
pub(crate) fn hold_of_new_queue(state: &State, session: &Session) -> Option<NewEvent> {
    if session.held.is_some() {
        return None;
    }
    let mut others = state.sessions.active_in_thread(session.thread_id.as_ref()?);
    let held = others.find_map(|other| other.held.as_ref())?;
    Some(session_held(session, state.private.queue(&session.session_id).count() + 1, held))
}
