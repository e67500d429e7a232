//! `GET /describe`: the surface in words, for whoever has to find out by itself.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use crate::http::openapi::ROUTES;
use crate::http::{AppState, response};

/// The surface, in the shape that clients know; the words for the retired batch modes stay out of it.
#[derive(Serialize, JsonSchema)]
pub(in crate::http) struct Description {
    #[schemars(extend("const" = true))]
    ok: bool,
    name: &'static str,
    surface: &'static str,
    description: &'static str,
    version: &'static str,
    mode: Mode,
    /// Where the daemon really listens.
    base_url: String,
    event_stream: EventStream,
    /// The path of the OpenAPI document.
    openapi: &'static str,
    /// The formal routes, in the order that clients know.
    routes: Vec<RouteView>,
    /// What codexd adds to them.
    extensions: Vec<RouteView>,
    capabilities: Capabilities,
    notes: Vec<&'static str>,
}

/// How codexd works.
#[derive(Serialize, JsonSchema)]
struct Mode {
    current: &'static str,
    daemon: &'static str,
    supervisor: &'static str,
    transport: &'static str,
    conductor_role: &'static str,
}

/// Where events come from.
#[derive(Serialize, JsonSchema)]
struct EventStream {
    path: String,
    transport: &'static str,
    url: String,
}

/// One route of the surface.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Route")]
struct RouteView {
    description: &'static str,
    method: &'static str,
    path: String,
}

/// What codexd can do.
#[derive(Serialize, JsonSchema)]
struct Capabilities {
    health_probe: bool,
    session_create: bool,
    session_list: bool,
    session_read: bool,
    turn_create: bool,
    turn_readback_via_session: bool,
    websocket_events: bool,
    event_pages: bool,
    event_replay: bool,
    server_sent_events: bool,
    session_close: bool,
    session_fork: bool,
    turn_read: bool,
    turn_wait: bool,
    turn_interrupt: bool,
    request_list: bool,
    request_respond: bool,
    model_list: bool,
    openapi: bool,
    page: bool,
}

fn routes(is_formal: bool, event_stream_path: &str) -> Vec<RouteView> {
    let routes = ROUTES.iter().filter(|route| route.is_formal == is_formal);
    routes
        .map(|route| RouteView {
            description: route.description,
            method: route.method,
            path: route.path(event_stream_path).replace('{', ":").replace('}', ""),
        })
        .collect()
}

/// Everything beyond them: the event stream in its two other forms first.
fn extensions(event_stream_path: &str) -> Vec<RouteView> {
    let form = |description| RouteView { description, method: "GET", path: event_stream_path.to_owned() };
    let mut extensions = vec![
        form("Page of the event log after a cursor, as JSON."),
        form("Event stream as server-sent events, for requests that accept text/event-stream."),
    ];
    extensions.extend(routes(false, event_stream_path));
    extensions
}

/// The surface in words.
pub(in crate::http) async fn describe(State(state): State<AppState>) -> Response {
    let config = state.daemon.config();
    let event_stream_path = &config.service.event_stream_path;
    let mut notes = vec![
        "Use GET /describe first when an AI client needs to discover the official local codexd surface.",
        "codexd is the long-running Codex runtime; conductor-daemon only proxies this service and does not host the \
         Codex session truth.",
        "This surface is limited to health, status, sessions, turns, requests of the app-server, models, and event \
         consumption: as a websocket, as server-sent events, or as pages.",
        "Every answer is {\"ok\": true, \"data\": …} or {\"ok\": false, \"error\": code, \"message\": sentence}; \
         /healthz, /describe and /openapi.json are flat, and /metrics is text for Prometheus.",
        "A turn is accepted at once and ends with the event app-server.turn.completed; its text comes in \
         app-server.turn.message.delta events, and whole with POST /v1/codexd/turn?wait=SECONDS or when the turn is \
         read.",
        "Every event has a cursor; with after=CURSOR each form of the event stream goes on behind it, and says so \
         when what follows is no longer kept.",
        "A busy session refuses a turn with 409 turn_in_progress; \"whenBusy\": \"queue\" lets it wait, \"steer\" makes \
         it a word to the running turn.",
        "Both POST routes take the header Idempotency-Key: the same key and body give the first answer again for 24 \
         hours.",
        "Requests need a Host of this daemon and come from no foreign web page; when the daemon has a token file, \
         every route but / and /healthz also needs the header Authorization: Bearer TOKEN.",
        "A session survives restarts; its thread is resumed by itself before the next turn.",
        "What the app-server asks, such as for an approval, is announced by the event request.opened and waits for one \
         of its decisions; without an answer it is declined at its expiresAt.",
        "GET / is a live page for people, with a browser on this machine; it uses these routes and holds no data.",
        "Over the websocket a request is answered with {\"type\": \"respond\", \"requestId\": …, \"decision\": …}.",
    ];
    if config.server.demo {
        notes.push("This daemon is a demo: its app-server is not Codex, and the answers are prepared.");
    }
    let document = Description {
        ok: true,
        name: "codexd",
        surface: "local-api",
        description: "Independent local Codex daemon for session lifecycle, turn submission, status reads, and live \
                      event streaming.",
        version: config.version,
        mode: Mode {
            current: config.server.mode.as_str(),
            daemon: "independent",
            supervisor: "launchd",
            transport: "codex app-server",
            conductor_role: "proxy",
        },
        base_url: state.base_url.clone(),
        event_stream: EventStream {
            path: event_stream_path.clone(),
            transport: "websocket",
            url: state.event_stream_url(),
        },
        openapi: "/openapi.json",
        routes: routes(true, event_stream_path),
        extensions: extensions(event_stream_path),
        capabilities: Capabilities {
            health_probe: true,
            session_create: true,
            session_list: true,
            session_read: true,
            turn_create: true,
            turn_readback_via_session: true,
            websocket_events: true,
            event_pages: true,
            event_replay: true,
            server_sent_events: true,
            session_close: true,
            session_fork: true,
            turn_read: true,
            turn_wait: true,
            turn_interrupt: true,
            request_list: true,
            request_respond: true,
            model_list: true,
            openapi: true,
            page: true,
        },
        notes,
    };
    response::json(StatusCode::OK, &document)
}
