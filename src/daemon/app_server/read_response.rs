//! Reading the responses of the app-server.

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::codex::protocol::{methods, values, versions};
use crate::codex::{CallError, Client};
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

/// The call that reads the newest turns of a thread: its method and its parameters; the answer is a `TurnPage`.
///
/// An app-server that does not list turns reads them all at once.
pub(in crate::daemon) fn newest_turns(
    client: &Client,
    thread_id: &ThreadId,
    limit: u32,
) -> (&'static str, Value) {
    match client.older_than(versions::LISTS_TURNS) {
        Some(_) => (methods::THREAD_READ, json!({ "threadId": thread_id, "includeTurns": true })),
        None => (methods::THREAD_TURNS_LIST, json!({ "threadId": thread_id, "limit": limit })),
    }
}

/// [`newest_turns`] with all items of each turn.
pub(in crate::daemon) fn newest_turns_with_items(
    client: &Client,
    thread_id: &ThreadId,
    limit: u32,
) -> (&'static str, Value) {
    let (method, mut params) = newest_turns(client, thread_id, limit);
    params["itemsView"] = values::ITEMS_FULL.into();
    (method, params)
}
