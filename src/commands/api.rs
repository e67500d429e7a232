//! Paths of the daemon's API, and the lists in its responses.

use serde_json::Value;

use crate::client::percent_encode;

/// The path of all requests of Codex.
pub(crate) const REQUESTS_PATH: &str = "/v1/codexd/requests";

/// The path of the app-server.
pub(crate) const APP_SERVER_PATH: &str = "/v1/codexd/app-server";

/// The path that restarts the app-server.
pub(crate) const APP_SERVER_RESTART_PATH: &str = "/v1/codexd/app-server/restart";

/// The path of all hooks.
pub(crate) const HOOKS_PATH: &str = "/v1/codexd/hooks";

/// The path of one hook.
pub(crate) fn hook_path(hook_id: &str) -> String {
    format!("{HOOKS_PATH}/{}", percent_encode(hook_id))
}

/// The path of one request.
pub(crate) fn request_path(request_id: &str) -> String {
    format!("{REQUESTS_PATH}/{}", percent_encode(request_id))
}

/// The path of a session.
pub(crate) fn session_path(session_id: &str) -> String {
    format!("/v1/codexd/sessions/{}", percent_encode(session_id))
}

/// The path of a turn.
pub(crate) fn turn_path(session_id: &str, turn_id: &str) -> String {
    format!("{}/turns/{}", session_path(session_id), percent_encode(turn_id))
}

/// The list with this name in a response; empty if there is none.
pub(crate) fn list<'a>(response: &'a Value, name: &str) -> &'a [Value] {
    response[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The pending requests in a list of requests, oldest first.
pub(crate) fn pending_requests(response: &Value) -> impl Iterator<Item = &Value> {
    list(response, "requests").iter().filter(|request| is_pending(request))
}

/// Whether a request has no answer yet.
pub(crate) fn is_pending(request: &Value) -> bool {
    request["status"] == "pending"
}
