//! What the connection sends to a running turn.

use serde_json::Value;

/// What reaches a running turn.
pub(super) enum Signal {
    Interrupt,
    Steer(Input),
    /// The result of the request to the client; null when the client answered with an error.
    Answer(Value),
}

/// What the user sent.
pub(super) struct Input {
    pub(super) content: Value,
    pub(super) client_id: Value,
}
