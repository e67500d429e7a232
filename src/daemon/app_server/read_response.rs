//! Reading the responses of the app-server.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Decodes a response of the app-server; the error states how it differs from the protocol.
pub(in crate::daemon) fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// The parameters that ask for the newest turns of a thread.
pub(in crate::daemon) fn newest_turns(thread_id: &str, limit: u32) -> Value {
    json!({ "threadId": thread_id, "limit": limit })
}
