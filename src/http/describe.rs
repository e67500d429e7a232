//! `GET /describe`: the surface in words, for whoever has to find out by itself.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use super::openapi::ROUTES;
use super::{Handle, answer};

/// The surface, in the shape that clients know; the words for the retired batch modes stay out of it.
#[derive(Serialize, JsonSchema)]
pub(super) struct Description {
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

/// The surface in words.
pub(super) async fn describe(State(edge): State<Handle>) -> Response {
    let config = edge.daemon.config();
    let event_stream_path = &config.service.event_stream_path;
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
        base_url: edge.base_url.clone(),
        event_stream: EventStream {
            path: event_stream_path.clone(),
            transport: "websocket",
            url: edge.event_stream_url(),
        },
        openapi: "/openapi.json",
        routes: routes(true, event_stream_path),
        extensions: routes(false, event_stream_path),
        capabilities: Capabilities {
            health_probe: true,
            session_create: true,
            session_list: true,
            session_read: true,
            turn_create: true,
            turn_readback_via_session: true,
            websocket_events: true,
        },
        notes: vec![
            "Use GET /describe first when an AI client needs to discover the official local codexd surface.",
            "codexd is the long-running Codex runtime; conductor-daemon only proxies this service and does not host the \
             Codex session truth.",
            "This surface is limited to health, status, sessions, turn submission, and websocket event consumption.",
            "Every answer is {\"ok\": true, \"data\": …} or {\"ok\": false, \"error\": code, \"message\": sentence}; \
             /healthz, /describe and /openapi.json are flat.",
            "A turn is accepted at once and ends with the event app-server.turn.completed; its text comes in \
             app-server.turn.message.delta events.",
        ],
    };
    answer::json(StatusCode::OK, &document)
}
