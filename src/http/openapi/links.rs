//! How the operations belong together: tags, and links from a response to the requests that use it. Stateless; called by
//! the OpenAPI document.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The tags, in the order of the document.
const TAGS: [(&str, &str); 6] = [
    ("Service", "The daemon: health, description, status, metrics."),
    ("Sessions", "Sessions and the threads of Codex."),
    ("Turns", "Turns and queues."),
    ("Events", "The event log and its streams."),
    ("Requests", "What Codex asks: approvals and questions."),
    ("AppServer", "The app-server of Codex: state, account, models, calls."),
];

/// The name of a link, the operation that it leads from, the operation that it leads to, and each parameter of that with
/// its expression.
///
/// No link has a request body: openapi-generator rejects one that is not a string.
type Link = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);

const SESSION_ID: (&str, &str) = ("session_id", "$response.body#/data/session/sessionId");
const REQUEST_ID: (&str, &str) = ("request_id", "$response.body#/data/requests/0/requestId");

const LINKS: &[Link] = &[
    ("ReadSession", "createSession", "readSession", &[SESSION_ID]),
    ("CloseSession", "createSession", "closeSession", &[SESSION_ID]),
    ("ReadTurn", "submitTurn", "readTurn", &[SESSION_ID, ("turn_id", "$response.body#/data/turnId")]),
    (
        "WithdrawTurn",
        "submitTurn",
        "withdrawTurn",
        &[SESSION_ID, ("queue_id", "$response.body#/data/queueId")],
    ),
    (
        "ReadListedSession",
        "listSessions",
        "readSession",
        &[("session_id", "$response.body#/data/sessions/0/sessionId")],
    ),
    ("ReadRequest", "listRequests", "readRequest", &[REQUEST_ID]),
    ("AnswerRequest", "listRequests", "answerRequest", &[REQUEST_ID]),
    ("NextThreads", "listThreads", "listThreads", &[("after", "$response.body#/data/next")]),
    ("NextPage", "readEvents", "readEvents", &[("after", "$response.body#/data/cursor")]),
];

/// The tags with their descriptions.
pub(super) fn tags() -> Value {
    TAGS.iter().map(|(name, description)| json!({ "name": name, "description": description })).collect()
}

/// The tag of the operations of a path of the table of routes.
pub(super) fn tag(path: &str) -> &'static str {
    let below = path.strip_prefix("/v1/codexd/").unwrap_or(path);
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| below.starts_with(prefix));
    match below {
        crate::http::route::EVENT_STREAM => "Events",
        _ if below.contains("/turns/") || below.contains("/queue/") || begins(&["turn"]) => "Turns",
        _ if begins(&["sessions", "threads"]) => "Sessions",
        _ if begins(&["requests"]) => "Requests",
        _ if begins(&["app-server", "account", "models"]) => "AppServer",
        _ => "Service",
    }
}

/// Adds the links that lead from a successful response of the operation.
pub(super) fn add(response: &mut Value, operation_id: &str) {
    let links = LINKS.iter().filter(|(_, from, _, _)| *from == operation_id);
    let links: Map<_, _> =
        links.map(|(name, _, to, parameters)| ((*name).to_owned(), link(to, parameters))).collect();
    if !links.is_empty() {
        response["links"] = links.into();
    }
}

fn link(to: &str, parameters: &[(&str, &str)]) -> Value {
    let parameters: BTreeMap<_, _> = parameters.iter().copied().collect();
    json!({ "operationId": to, "parameters": parameters })
}
