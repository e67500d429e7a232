//! What notifications change about the sessions of a thread: their title and settings, and whether the thread is archived.

use crate::codex::protocol::{notifications, thread_changes};
use crate::daemon::events::{session_updated, settings_changed};
use crate::daemon::recorder::input::Input;
use crate::state::title::{title_of_message, title_of_name};
use crate::state::{NewEvent, State};

/// The events that follow a notification, where it changes sessions; they are made when it is recorded.
pub(super) fn session_changes(method: &str, params: &str) -> Option<Input> {
    match method {
        notifications::THREAD_NAME_UPDATED => {
            let (thread_id, name) = thread_changes::new_name(params)?;
            let title = title_of_name(&name)?;
            Some(build(move |state| session_updated(state, &thread_id, Some(&title), None)))
        }
        // A turn with a model or an effort of its own sets that of the turns after it.
        notifications::THREAD_SETTINGS_UPDATED => {
            let (thread_id, settings) = thread_changes::new_settings(params)?;
            Some(build(move |state| settings_changed(state, &thread_id, &settings)))
        }
        notifications::THREAD_ARCHIVED | notifications::THREAD_UNARCHIVED => {
            let thread_id = thread_changes::thread_of(params)?;
            let archived = method == notifications::THREAD_ARCHIVED;
            Some(build(move |state| session_updated(state, &thread_id, None, Some(archived))))
        }
        notifications::ITEM_COMPLETED => {
            let (thread_id, text) = thread_changes::user_message(params)?;
            let title = title_of_message(&text)?;
            Some(build(move |state| {
                let mut sessions = state.sessions.in_thread(&thread_id);
                let is_first = sessions.any(|session| session.title.is_none());
                if is_first { session_updated(state, &thread_id, Some(&title), None) } else { Vec::new() }
            }))
        }
        _ => None,
    }
}

fn build(events: impl FnOnce(&State) -> Vec<NewEvent> + Send + 'static) -> Input {
    Input::Build(Box::new(events))
}
