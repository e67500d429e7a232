//! The events of the turns of sessions: submission, acceptance, rejection, queueing, and ends that the app-server did not
//! report.

use serde_json::Value;

use crate::ids::{SessionId, ThreadId, TurnId};
use crate::state::Level::{self, Error, Info, Warn};
use crate::state::{ChildStatus, IdempotencyKey, OnUsageLimit, QueuedTurn};
use crate::timestamp::Timestamp;

event_types! {
    /// The events of the turns of sessions.
    enum TurnEvent {
        /// The app-server accepted a turn, or a turn whose acceptance was not received was found in its thread.
        "turn.accepted" => Accepted {
            /// The session that started it.
            session_id: SessionId,
            /// Its thread.
            #[schemars(with = "String")]
            thread_id: Option<ThreadId> = default,
            /// The turn.
            turn_id: TurnId,
            /// The status of a turn that was found later, as the app-server reports it.
            status: Option<String> = default skip_serializing_if,
            /// Whether the thread has no newer turn than the one that was found.
            is_newest: Option<bool> = default skip_serializing_if,
            /// Whether the session added input to a running turn, which it did not start.
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            steered: bool = default,
            /// The queued turn that it was, if it was one.
            queue_id: Option<String> = default skip_serializing_if,
            /// What follows if it reaches the usage limit; absent for `hold`.
            on_usage_limit: Option<OnUsageLimit> = default skip_serializing_if,
            /// The idempotency key of the request, if it has one.
            idempotency: Option<IdempotencyKey> = default skip_serializing_if,
        } => Info, match status {
            None => format!("Accepted turn {turn_id} for session {session_id}."),
            Some(status) => format!(
                "Found turn {turn_id} of session {session_id}, which is {status}: its acceptance was not received."
            ),
        };
        /// A turn is about to be sent to the app-server; without a response its outcome must be searched for.
        "turn.submitted" => Submitted {
            /// The session.
            session_id: SessionId,
            /// Its thread.
            thread_id: ThreadId = default,
            /// The `clientUserMessageId` with which it is sent.
            client_message_id: String,
            /// The queued turn that it is, if it is one.
            queue_id: Option<String> = default skip_serializing_if,
            /// The idempotency key of the request, if it has one.
            idempotency: Option<IdempotencyKey> = default skip_serializing_if,
        } => Info, format!("Submitting a turn to session {session_id}.");
        /// A turn was not accepted.
        "turn.rejected" => Rejected {
            /// The session.
            session_id: SessionId,
            /// The reason, as a sentence.
            reason: String = default,
            /// The queued turn that it was, if it was one.
            queue_id: Option<String> = default skip_serializing_if,
            /// The idempotency key of the request, if it has one.
            idempotency_key: Option<String> = default skip_serializing_if,
        } => Warn, format!("A turn for session {session_id} was not accepted: {reason}");
        /// A turn is queued until its thread is idle.
        "turn.queued" => Queued {
            /// The session.
            session_id: SessionId,
            /// Its thread.
            thread_id: Option<ThreadId> = default,
            /// The queued turn.
            queue_id: String = default,
            /// Its position in the queue of the thread, from 1.
            position: usize = default,
            /// Its record.
            turn: Box<QueuedTurn>,
            /// The idempotency key of the request, if it has one.
            idempotency: Option<IdempotencyKey> = default skip_serializing_if,
        } => Info, match &turn.not_before {
            Some(at) => format!("Queued a turn for session {session_id}, which starts at {at} at the earliest."),
            None => format!("Queued a turn for session {session_id}, position {position}."),
        };
        /// The time before which a queued turn does not start was changed.
        "turn.rescheduled" => Rescheduled {
            /// The session.
            session_id: SessionId,
            /// Its thread.
            thread_id: Option<ThreadId> = default,
            /// The queued turn.
            queue_id: String,
            /// The time before which it does not start now; `null` if it starts as soon as its thread is idle.
            not_before: Option<Timestamp> = default,
        } => Info, match not_before {
            Some(at) => format!("Queued turn {queue_id} of session {session_id} starts at {at} at the earliest."),
            None => format!("Queued turn {queue_id} of session {session_id} waits for no time any more."),
        };
        /// An item that was not received was read from its thread.
        "turn.item.read" => ItemRead {
            /// A session of the thread.
            session_id: Option<SessionId> = default,
            /// The thread.
            thread_id: ThreadId,
            /// The turn.
            turn_id: TurnId,
            /// The item, in the app-server's form.
            item: Value,
        } => Info, {
            let kind = item["type"].as_str().unwrap_or("item");
            format!("Read {kind} of turn {turn_id} from its thread: it was not received.")
        };
        /// The end of a turn was not received and was read from its thread.
        "turn.settled" => Settled {
            /// The session that started it, or another one of its thread.
            session_id: SessionId,
            /// Its thread.
            thread_id: Option<ThreadId> = default,
            /// The turn.
            turn_id: TurnId,
            /// Its status, as the app-server reports it.
            status: String,
            /// Why it failed, in the app-server's form, if that is known.
            error: Option<Value> = default skip_serializing_if,
            /// When it ended, as its thread reports, if that is known.
            completed_at: Option<Timestamp> = default skip_serializing_if,
        } => Warn, format!("Turn {turn_id} of session {session_id} is {status}, as its thread reports.");
        /// A running turn has been silent for a while.
        "turn.stalled" => Stalled {
            /// The session that started it, or another one of its thread.
            session_id: SessionId,
            /// Its thread.
            thread_id: Option<ThreadId>,
            /// The turn.
            turn_id: TurnId,
            /// How long it has been silent.
            silent_seconds: u64,
        } => Warn, format!("Turn {turn_id} of session {session_id} has been silent for {silent_seconds} s.");
        /// A turn was cut off by the end of its connection.
        "app-server.turn.completed.missing" => Missing(missing: Box<MissingTurn>) => Error, {
            format!("App-server transport closed before turn {} completed.", missing.turn_id)
        };
    }
}

event_detail! {
    /// A turn that was cut off by the end of its connection.
    struct MissingTurn {
        /// The exit code of the process, if it is known.
        child_exit_code: Option<i32> = default,
        /// The PID of the process.
        child_pid: Option<u32> = default,
        /// The signal that ended the process, if it is known.
        child_signal: Option<String> = default,
        /// The status of the process.
        child_status: ChildStatus = default,
        /// `transport_closed_before_turn_completed`.
        failure_class: String = default,
        /// Whether the last bytes of the connection, which had no newline, were a complete message.
        flushed_trailing_message: bool = default,
        /// The session that started it, or another one of its thread.
        session_id: SessionId,
        /// Its thread.
        thread_id: Option<ThreadId> = default,
        /// The number of bytes after the last newline of the connection.
        trailing_message_length: usize = default,
        /// What ended the connection, without its full stop.
        transport_close_message: String = default,
        /// Which part ended the connection, such as `stdout.end`.
        transport_close_source: String = default,
        /// The turn.
        turn_id: TurnId,
        /// Its last status.
        turn_status_at_close: Option<String> = default,
    }
}
