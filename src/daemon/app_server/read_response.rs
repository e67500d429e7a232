//! Reading the responses of the app-server.

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::codex::CallError;
use crate::ids::ThreadId;

/// Decodes the response to a call of `method`; the error states how it differs from the protocol.
pub(in crate::daemon) fn decode<T: DeserializeOwned>(
    method: &str,
    response: &RawValue,
) -> Result<T, CallError> {
    let malformed = |error: serde_json::Error| CallError::Malformed {
        method: method.to_owned(),
        reason: error.to_string(),
    };
    serde_json::from_str(response.get()).map_err(malformed)
}

/// The parameters that ask for the newest turns of a thread.
pub(in crate::daemon) fn newest_turns(thread_id: &ThreadId, limit: u32) -> Value {
    json!({ "threadId": thread_id, "limit": limit })
}
