//! The events of server requests.

use serde_json::{Value, json};

use crate::ids::{RequestId, SessionId, ThreadId, TurnId};
use crate::state::Level::{self, Info, Warn};
use crate::state::{ResolvedBy, ServerRequest};

event_types! {
    /// The events of server requests.
    enum RequestEvent {
        /// The app-server sent a request that a client can answer.
        "request.opened" => Opened {
            /// The request.
            request_id: RequestId = default,
            /// The session that started the turn at the root; `null` when none did.
            session_id: Option<SessionId> = default,
            /// The thread.
            thread_id: Option<ThreadId> = default,
            /// The turn that waits for it.
            turn_id: Option<TurnId> = default,
            /// The turn of the session.
            root_turn_id: Option<TurnId> = default,
            /// Its record.
            request: Box<ServerRequest>,
        } => Warn, format!("The app-server asks {}; answer request {request_id}.", request.method);
        /// A server request was answered, or is no longer needed.
        "request.resolved" => Resolved {
            /// The request.
            request_id: RequestId,
            /// Who resolved it.
            resolved_by: ResolvedBy,
            /// The decision, if there is one.
            decision: Option<Value> = default,
            /// The reason, as a sentence.
            reason: Option<String> = default,
            /// The session of its record; absent when there is no record, like the rest.
            session_id: Option<Option<SessionId>> = default skip_serializing_if,
            /// The thread.
            thread_id: Option<Option<ThreadId>> = default skip_serializing_if,
            /// The turn.
            turn_id: Option<Option<TurnId>> = default skip_serializing_if,
            /// The turn of the session.
            root_turn_id: Option<Option<TurnId>> = default skip_serializing_if,
        } => Info, format!("Request {request_id} is resolved: {}", match (decision, reason) {
            (Some(decision), _) => format!("{decision}, by {}.", json!(resolved_by)),
            (None, Some(reason)) => reason.clone(),
            (None, None) => format!("by {}.", json!(resolved_by)),
        });
    }
}
