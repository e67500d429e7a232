//! Examples of the request bodies, for `/describe` and the OpenAPI document. Stateless; `router` names them in its table.
//!
//! Invariant: a daemon accepts each of them once the words in upper case are replaced by IDs, and the directory by one
//! that exists (`tests/it/http/examples.rs`).

use super::route::Example;

const fn example(name: &'static str, summary: &'static str, body: &'static str) -> Example {
    Example { name, summary, body }
}

/// `POST /v1/codexd/sessions`.
pub(super) const CREATE_SESSION: &[Example] = &[
    example(
        "directory",
        "Work in a directory.",
        r#"{"cwd": "/home/me/project", "sandbox": "workspace-write", "approvalPolicy": "on-request", "metadata": {"task": "42"}}"#,
    ),
    example("resume", "Continue a thread of Codex.", r#"{"threadId": "THREAD_ID"}"#),
    example("fork", "Continue a copy of another session.", r#"{"forkFrom": "SESSION_ID"}"#),
];

/// `PATCH /v1/codexd/sessions/{session_id}`.
pub(super) const UPDATE_SESSION: &[Example] = &[example(
    "labels",
    "Set a label, and remove another.",
    r#"{"metadata": {"task": "43", "draft": null}}"#,
)];

/// `POST /v1/codexd/turn`.
pub(super) const SUBMIT_TURN: &[Example] = &[
    example(
        "text",
        "Send a message; wait in a queue if the session is busy.",
        r#"{"sessionId": "SESSION_ID", "input": "What is in this directory?", "whenBusy": "queue"}"#,
    ),
    example(
        "items",
        "Send text and images.",
        r#"{"sessionId": "SESSION_ID", "input": [{"type": "text", "text": "What is this?"}, {"type": "image", "url": "data:image/png;base64,iVBORw0KGgo="}]}"#,
    ),
    example(
        "steer",
        "Add input to the turn in progress.",
        r#"{"sessionId": "SESSION_ID", "input": "Only the first file.", "expectedTurnId": "TURN_ID"}"#,
    ),
];

/// `POST /v1/codexd/turn/interrupt`.
pub(super) const INTERRUPT_TURN: &[Example] =
    &[example("session", "Interrupt whatever turn is in progress.", r#"{"sessionId": "SESSION_ID"}"#)];

/// `POST /v1/codexd/app-server/restart`.
pub(super) const RESTART_APP_SERVER: &[Example] =
    &[example("drain", "Let turns in progress end first.", r#"{"drainSeconds": 60, "force": false}"#)];

/// `POST /v1/codexd/app-server/call`.
pub(super) const CALL_APP_SERVER: &[Example] = &[example(
    "thread",
    "Read the thread of a session.",
    r#"{"method": "thread/read", "sessionId": "SESSION_ID", "params": {"includeTurns": false}}"#,
)];

/// `POST /v1/codexd/requests/{request_id}`.
pub(super) const ANSWER_REQUEST: &[Example] = &[
    example("approve", "Allow a command or a change of files.", r#"{"decision": "accept"}"#),
    example(
        "answer",
        "Answer the questions of item/tool/requestUserInput, by their IDs.",
        r#"{"result": {"answers": {"QUESTION_ID": {"answers": ["Yes"]}}}}"#,
    ),
];

/// `POST /v1/codexd/hooks`.
pub(super) const ADD_HOOK: &[Example] = &[
    example(
        "url",
        "Post to a URL when Codex asks something.",
        r#"{"name": "asked", "on": ["request.opened"], "url": "https://example.org/hook"}"#,
    ),
    example(
        "command",
        "Start a program when a turn has ended.",
        r#"{"name": "ended", "on": ["app-server.turn.completed"], "command": ["notify-send", "Codex", "Done"], "timeoutSeconds": 10}"#,
    ),
];
