//! `GET /describe`: the surface in words, for whoever has to find out by itself.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::json;

use super::{Handle, answer};

/// One route of the surface.
#[derive(Debug, Clone, Copy, Serialize)]
struct Route<'a> {
    description: &'static str,
    method: &'static str,
    path: &'a str,
}

const fn route<'a>(method: &'static str, path: &'a str, description: &'static str) -> Route<'a> {
    Route { description, method, path }
}

/// The formal routes, in the order that clients know; the last one is where it was set to be.
fn routes(event_stream_path: &str) -> [Route<'_>; 8] {
    [
        route("GET", "/healthz", "Lightweight health probe for the local daemon."),
        route("GET", "/describe", "Machine-readable description of the official codexd surface."),
        route("GET", "/v1/codexd/status", "Current daemon, child, session, and recent event snapshot."),
        route("GET", "/v1/codexd/sessions", "List the currently known codexd sessions."),
        route(
            "GET",
            "/v1/codexd/sessions/:session_id",
            "Read a single codexd session and its recent events.",
        ),
        route("POST", "/v1/codexd/sessions", "Create or resume a codexd session."),
        route("POST", "/v1/codexd/turn", "Submit one turn to an existing codexd session."),
        route("WS", event_stream_path, "WebSocket event stream for live codexd session and daemon updates."),
    ]
}

/// What codexd adds to them.
fn extensions(event_stream_path: &str) -> [Route<'_>; 9] {
    [
        route("GET", event_stream_path, "Page of the event log after a cursor, as JSON."),
        route(
            "GET",
            event_stream_path,
            "Event stream as server-sent events, for requests that accept text/event-stream.",
        ),
        route(
            "GET",
            "/v1/codexd/sessions/:session_id/turns/:turn_id",
            "Read one turn; ?wait=SECONDS waits for its end.",
        ),
        route(
            "DELETE",
            "/v1/codexd/sessions/:session_id",
            "Close a session; ?interrupt=true ends its running turn.",
        ),
        route(
            "POST",
            "/v1/codexd/turn/interrupt",
            "Interrupt the running turn of a session and end its commands.",
        ),
        route(
            "GET",
            "/v1/codexd/requests",
            "List what the app-server asks, pending first; ?sessionId= for one session.",
        ),
        route("GET", "/v1/codexd/requests/:request_id", "Read one request of the app-server."),
        route(
            "POST",
            "/v1/codexd/requests/:request_id",
            "Answer a request with one of its decisions or a whole result.",
        ),
        route("GET", "/v1/codexd/models", "List the models that the app-server offers."),
    ]
}

/// The surface, in the shape that clients know; the words for the retired batch modes stay out of it.
pub(super) async fn describe(State(edge): State<Handle>) -> Response {
    let config = edge.daemon.config();
    let document = json!({
        "ok": true,
        "name": "codexd",
        "surface": "local-api",
        "description": "Independent local Codex daemon for session lifecycle, turn submission, status reads, and live \
                        event streaming.",
        "version": config.version,
        "mode": {
            "current": config.server.mode.as_str(),
            "daemon": "independent",
            "supervisor": "launchd",
            "transport": "codex app-server",
            "conductor_role": "proxy",
        },
        "base_url": edge.base_url,
        "event_stream": {
            "path": config.service.event_stream_path,
            "transport": "websocket",
            "url": edge.event_stream_url(),
        },
        "routes": routes(&config.service.event_stream_path),
        "extensions": extensions(&config.service.event_stream_path),
        "capabilities": {
            "event_pages": true,
            "event_replay": true,
            "health_probe": true,
            "server_sent_events": true,
            "session_create": true,
            "session_list": true,
            "session_read": true,
            "turn_create": true,
            "turn_readback_via_session": true,
            "websocket_events": true,
            "session_close": true,
            "session_fork": true,
            "turn_read": true,
            "turn_wait": true,
            "turn_interrupt": true,
            "request_list": true,
            "request_respond": true,
            "model_list": true,
        },
        "notes": [
            "Use GET /describe first when an AI client needs to discover the official local codexd surface.",
            "codexd is the long-running Codex runtime; conductor-daemon only proxies this service and does not host the \
             Codex session truth.",
            "This surface is limited to health, status, sessions, turns, requests of the app-server, models, and event \
             consumption: as a websocket, as server-sent events, or as pages.",
            "Every answer is {\"ok\": true, \"data\": …} or {\"ok\": false, \"error\": code, \"message\": sentence}; \
             /healthz and /describe are flat.",
            "A turn is accepted at once and ends with the event app-server.turn.completed; its text comes in \
             app-server.turn.message.delta events, and whole with POST /v1/codexd/turn?wait=SECONDS or when the turn is \
             read.",
            "Every event has a cursor; with after=CURSOR each form of the event stream goes on behind it, and says so \
             when what follows is no longer kept.",
            "A busy session refuses a turn with 409 turn_in_progress; \"whenBusy\": \"queue\" lets it wait, \"steer\" makes \
             it a word to the running turn.",
            "Both POST routes take the header Idempotency-Key: the same key and body give the first answer again for 24 \
             hours.",
            "A session survives restarts; its thread is resumed by itself before the next turn.",
            "What the app-server asks, such as for an approval, is announced by the event request.opened and waits for one \
             of its decisions; without an answer it is declined at its expiresAt.",
            "Over the websocket a request is answered with {\"type\": \"respond\", \"requestId\": …, \"decision\": …}.",
        ],
    });
    answer::json(StatusCode::OK, &document)
}
