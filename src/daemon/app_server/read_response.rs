//! Reading the responses of the app-server.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Reads an answer of the app-server; why not, when it is not what the protocol promises.
pub(in crate::daemon) fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// The parameters that ask for the newest turns of a thread.
pub(in crate::daemon) fn newest_turns(thread_id: &str, limit: u32) -> Value {
    json!({ "threadId": thread_id, "limit": limit })
}
