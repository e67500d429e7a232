//! The events of sessions and of their queues.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::ids::{SessionId, ThreadId, TurnId};
use crate::state::Level::{self, Info, Warn};
use crate::state::{Held, IdempotencyKey, Purpose, RequestPolicy, SessionBody, Trust};
use crate::timestamp::Timestamp;

event_types! {
    /// The events of sessions and of their queues.
    enum SessionEvent {
        /// A session with a new thread.
        "session.created" => Created(opened: Box<SessionOpened>) => Info, opened.text("Created");
        /// A session with a thread that existed.
        "session.resumed" => Resumed(opened: Box<SessionOpened>) => Info, opened.text("Resumed");
        /// A session whose thread never had a turn has a new thread.
        "session.recreated" => Recreated {
            /// Its purpose.
            purpose: Purpose = default,
            /// The session.
            session_id: SessionId = default,
            /// The new thread.
            thread_id: Option<ThreadId> = default,
            /// The thread that never had a turn.
            previous_thread_id: Option<ThreadId> = default,
            /// Its record.
            session: Box<SessionBody>,
        } => Info, {
            let thread_id = thread_id.as_ref().map_or("", ThreadId::as_str);
            format!("Session {session_id} has a new thread {thread_id}: the old one never had a turn.")
        };
        /// It was decided whether the app-server may use the `.codex` in a session's directory.
        "session.trust" => Trust {
            /// The session.
            session_id: SessionId,
            /// Its thread.
            thread_id: Option<ThreadId> = default,
            /// The directory, if it is known.
            cwd: Option<String> = default,
            /// What the app-server is told.
            trust: Trust,
            /// The `.codex` directories that are not used.
            left_out: Vec<String> = default,
            /// Why the settings of Codex could not be read.
            unreadable: Option<String> = default skip_serializing_if,
        } => if unreadable.is_some() { Warn } else { Info }, {
            trust_text(session_id, cwd.as_deref(), *trust, left_out, unreadable.as_deref())
        };
        /// A client changed a session, or its thread has another name or model or was archived or unarchived in Codex. What
        /// is absent did not change.
        "session.updated" => Updated {
            /// The session.
            session_id: SessionId,
            /// Its thread.
            thread_id: Option<ThreadId> = default,
            /// Its title.
            title: Option<String> = default skip_serializing_if,
            /// Whether its thread is archived.
            archived: Option<bool> = default skip_serializing_if,
            /// All of its labels.
            metadata: Option<BTreeMap<String, String>> = default skip_serializing_if,
            /// The model of its next turns.
            model: Option<String> = default skip_serializing_if,
            /// The reasoning effort of its next turns.
            reasoning_effort: Option<String> = default skip_serializing_if,
            /// The service tier of its next turns.
            service_tier: Option<String> = default skip_serializing_if,
        } => Info, {
            let named = title.as_ref().map(|title| format!("its title is {title:?}"));
            let archived = archived.map(|archived| match archived {
                true => "its thread is archived".to_owned(),
                false => "its thread is not archived any more".to_owned(),
            });
            let labels = metadata.as_ref().map(|_| "its labels changed".to_owned());
            let model = model.as_ref().map(|model| format!("its model is {model}"));
            let effort = reasoning_effort.as_ref().map(|effort| format!("its reasoning effort is {effort}"));
            let tier = service_tier.as_ref().map(|tier| format!("its service tier is {tier}"));
            let all: Vec<_> =
                [named, archived, labels, model, effort, tier].into_iter().flatten().collect();
            format!("Session {session_id}: {}.", all.join(", "))
        };
        /// A session ended.
        "session.closed" => Closed {
            /// The session.
            session_id: SessionId,
            /// Why it ended, as a sentence without its full stop; absent when a client closed it.
            reason: Option<String> = default skip_serializing_if,
        } => if reason.is_some() { Warn } else { Info }, match reason {
            Some(reason) => format!("Closed session {session_id}: {reason}."),
            None => format!("Closed session {session_id}."),
        };
        /// The queue of a session is held.
        "session.held" => Held {
            /// The session.
            session_id: SessionId,
            /// Its thread.
            thread_id: Option<ThreadId> = default,
            /// The number of queued turns.
            waiting: usize = default,
            /// The reason.
            held: Box<Held>,
        } => Warn, held_text(session_id, *waiting, held);
        /// The queue of a session continues.
        "session.released" => Released {
            /// The session.
            session_id: SessionId,
            /// Its thread.
            thread_id: Option<ThreadId> = default,
            /// The reason, as a sentence.
            reason: String = default,
        } => Info, format!("The queue of session {session_id} continues: {reason}");
        /// A turn reached the usage limit of its account, or the limit ends later than was known.
        "usage_limit.reached" => UsageLimitReached {
            /// The session of the turn.
            session_id: SessionId,
            /// Its thread.
            thread_id: Option<ThreadId> = default,
            /// The turn; `null` if only the end of the limit is another one.
            turn_id: Option<TurnId> = default,
            /// The model provider, for which the limit counts.
            model_provider: String = default,
            /// Why queued turns wait, as sentences.
            reason: String = default,
            /// When one of them is tried.
            until: Timestamp,
            /// Whether Codex reported that time.
            is_reported: bool = default,
            /// How many turns in a row were tried and reached it again.
            failed_trials: u32 = default,
        } => Warn, format!("The usage limit is reached; no queued turn starts before {until}. {reason}");
        /// One queued turn is started to find out whether the usage limit has ended.
        "usage_limit.trial" => UsageLimitTrial {
            /// The session of the turn.
            session_id: SessionId,
            /// Its thread.
            thread_id: ThreadId,
            /// The queued turn.
            queue_id: String,
            /// The model provider, for which the limit counts.
            model_provider: String = default,
            /// Whether a client requested it.
            is_requested: bool = default,
        } => Info, format!("Queued turn {queue_id} of session {session_id} shows whether the usage limit has ended.");
        /// The record of a closed session is removed.
        "session.forgotten" => Forgotten {
            /// When it was closed.
            closed_at: Timestamp = skip,
            /// The session.
            session_id: SessionId,
            /// Its thread.
            thread_id: Option<ThreadId> = default,
        } => Info, format!("Forgot session {session_id}, which was closed at {closed_at}.");
    }
}

event_detail! {
    /// A session that was created or resumed.
    struct SessionOpened {
        /// Its purpose.
        purpose: Purpose = default,
        /// The session.
        session_id: SessionId = default,
        /// Its thread.
        thread_id: Option<ThreadId> = default,
        /// Its record.
        session: SessionBody,
        /// The settings passed to the app-server, by its own names.
        settings: Map<String, Value> = default,
        /// What it does with server requests.
        request_policy: RequestPolicy = default,
        /// The value of `trust` in the request, if it has one.
        trust: Option<bool> = default skip_serializing_if,
        /// The idempotency key of the request, if it has one.
        idempotency: Option<IdempotencyKey> = default skip_serializing_if,
    }
}

fn trust_text(
    session_id: &SessionId,
    cwd: Option<&str>,
    trust: Trust,
    left_out: &[String],
    unreadable: Option<&str>,
) -> String {
    let directory = cwd.unwrap_or("(the app-server's own directory)");
    let mut message = match trust {
        Trust::AsUser => format!("Session {session_id}: the user has decided about {directory}."),
        Trust::Trusted => format!("Session {session_id} trusts {directory}, as its client requested."),
        Trust::Untrusted => format!("Session {session_id} does not trust {directory}."),
    };
    if !left_out.is_empty() {
        message.push_str(&format!(" Not used: {}.", left_out.join(", ")));
    }
    if let Some(reason) = unreadable {
        message.push_str(&format!(" The settings of Codex could not be read: {reason}"));
    }
    message
}

fn held_text(session_id: &SessionId, waiting: usize, held: &Held) -> String {
    let next = match held.automatic {
        true => "They continue when that is over.".to_owned(),
        false => format!("They continue with POST /v1/codexd/sessions/{session_id}/queue/resume."),
    };
    let turns = if waiting == 1 { "1 turn waits".to_owned() } else { format!("{waiting} turns wait") };
    format!("In session {session_id} {turns} and the queue is held: {} {next}", held.reason)
}

impl SessionOpened {
    fn text(&self, verb: &str) -> String {
        let thread_id = self.thread_id.as_ref().map_or("", ThreadId::as_str);
        format!("{verb} session {} for thread {thread_id}.", self.session_id)
    }
}
