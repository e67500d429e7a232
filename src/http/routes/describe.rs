//! `GET /describe`: a description of the API for programs that discover it. Stateless; called by `router`.

use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::http::app_state::SharedState;
use crate::http::auth::ForwardedAddress;
use crate::http::parse::has_type;
use crate::http::route::{EVENT_STREAM, Example, Route};

/// What a decision looks like; the key stands beside those of the routes in `examples`.
const DECISION: &str = "Send back one of the entries of decisions of the request, unchanged: a string that matches \
    ^(accept|acceptForSession|decline|cancel)$, or an object of the list as it is. item/tool/requestUserInput is answered \
    by result instead, with the IDs of params.questions.";

/// The API, in the shape of the contract; it must not contain the names of the retired batch modes.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Description {
    #[schemars(extend("const" = true))]
    ok: bool,
    name: &'static str,
    surface: &'static str,
    description: &'static str,
    version: &'static str,
    mode: Mode,
    /// The address that the daemon really listens at, or that of the proxy under which it was reached.
    base_url: String,
    event_stream: EventStream,
    /// The path of the OpenAPI document.
    openapi: &'static str,
    /// The formal routes, in the order of the contract.
    routes: Vec<RouteView>,
    /// The routes that codexd adds.
    extensions: Vec<RouteView>,
    /// By method and path: bodies, and the names of all fields and query parameters; and what a decision looks like.
    examples: Map<String, Value>,
    capabilities: Capabilities,
    notes: Vec<&'static str>,
}

/// How codexd runs.
#[derive(Serialize, JsonSchema)]
struct Mode {
    current: &'static str,
    daemon: &'static str,
    supervisor: &'static str,
    transport: &'static str,
    conductor_role: &'static str,
}

/// The event stream.
#[derive(Serialize, JsonSchema)]
struct EventStream {
    path: String,
    transport: &'static str,
    url: String,
}

/// One route of the API.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Route")]
struct RouteView {
    description: &'static str,
    method: &'static str,
    path: String,
    /// The names of the query parameters; absent if there are none, and in the formal routes, for which `examples` has them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    query: Vec<String>,
}

/// What codexd supports.
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

fn views(routes: &[Route], is_formal: bool, event_stream_path: &str) -> Vec<RouteView> {
    let routes = routes.iter().filter(|route| route.is_formal == is_formal);
    routes
        .map(|route| RouteView {
            description: route.description,
            method: route.method,
            path: path(route, event_stream_path),
            query: if is_formal { Vec::new() } else { query_names(route) },
        })
        .collect()
}

/// The path with its parameters as `:name`.
fn path(route: &Route, event_stream_path: &str) -> String {
    route.path(event_stream_path).replace('{', ":").replace('}', "")
}

fn query_names(route: &Route) -> Vec<String> {
    let schema = route.query.map(|schema| schema());
    let name = |(name, schema): (&String, &Value)| match has_type(schema, "object") {
        true => format!("{name}.KEY"),
        false => name.clone(),
    };
    properties(schema.as_ref()).map(name).collect()
}

fn properties(schema: Option<&Schema>) -> impl Iterator<Item = (&String, &Value)> {
    schema.and_then(|schema| schema.get("properties")).and_then(Value::as_object).into_iter().flatten()
}

/// What a client needs to send to each route with a body, and to each formal one with a query.
fn examples(routes: &[Route], event_stream_path: &str) -> Map<String, Value> {
    let mut examples = Map::new();
    for route in routes.iter().filter(|route| route.body.is_some() || route.is_formal) {
        let mut example = json!({});
        if let Some(schema) = route.body {
            example["bodies"] = route.examples.iter().map(Example::body).collect();
            let schema = schema();
            let names: Vec<_> = properties(Some(&schema)).map(|(name, _)| name.as_str()).collect();
            example["fields"] = names.join(", ").into();
        }
        let query = query_names(route);
        if !query.is_empty() {
            example["query"] = query.join(", ").into();
        }
        if example != json!({}) {
            examples.insert(format!("{} {}", route.method, path(route, event_stream_path)), example);
        }
    }
    examples.insert("decision".to_owned(), DECISION.into());
    examples
}

/// All other routes: the two other transports of the event stream first.
fn extensions(routes: &[Route], event_stream_path: &str) -> Vec<RouteView> {
    let stream = routes.iter().find(|route| route.path == EVENT_STREAM);
    let transport = |description| RouteView {
        description,
        method: "GET",
        path: event_stream_path.to_owned(),
        query: stream.map(query_names).unwrap_or_default(),
    };
    let mut extensions = vec![
        transport("Page of the event log after a cursor, as JSON."),
        transport("Event stream as server-sent events, for requests that accept text/event-stream."),
    ];
    extensions.extend(views(routes, false, event_stream_path));
    extensions
}

/// Describes the API of these routes.
pub(crate) fn describe(
    state: &SharedState,
    routes: &[Route],
    address: Option<&ForwardedAddress>,
) -> Description {
    let config = state.daemon.config();
    let event_stream_path = &config.service.event_stream_path;
    let mut notes = vec![
        "Use GET /describe first when an AI client needs to discover the official local codexd surface.",
        "codexd is the long-running Codex runtime; conductor-daemon only proxies this service and does not host the \
         Codex session truth.",
        "This surface is limited to health, status, sessions, turns, requests of the app-server, models, and event \
         consumption: as a websocket, as server-sent events, or as pages.",
        "Every response is {\"ok\": true, \"data\": …} or {\"ok\": false, \"error\": code, \"message\": sentence}; \
         /healthz, /describe and /openapi.json are flat, and /metrics is text for Prometheus.",
        "A turn is accepted immediately and ends with the event app-server.turn.completed; its text is streamed in \
         app-server.turn.message.delta events, and returned as a whole by POST /v1/codexd/turn?wait=SECONDS or by \
         reading the turn.",
        "Every event has a cursor; with after=CURSOR every transport of the event stream continues after it, and \
         reports a gap if later events have expired.",
        "A busy session refuses a turn with 409 turn_in_progress; \"whenBusy\": \"queue\" queues it, \"steer\" adds its \
         input to the running turn. With \"notBefore\", an RFC 3339 time, a turn is queued and starts then at the \
         earliest. At a usage limit queued turns wait for its end; with \"onUsageLimit\": \"continue\" a new turn then \
         continues the one that reached it.",
        "Both POST routes accept the header Idempotency-Key: the same key and body return the first response again for \
         24 hours.",
        "Requests need a Host of this daemon and must not come from a foreign web page; if the daemon has a token \
         file, every route except / and /healthz also needs the header Authorization: Bearer TOKEN.",
        "A session survives restarts; its thread is resumed automatically before the next turn.",
        "A request of the app-server, such as for an approval, is announced by the event request.opened and waits for \
         one of its decisions; without an answer it is declined at its expiresAt.",
        "GET / is a live page for a browser on this machine; it uses these routes and holds no data.",
        "POST /v1/codexd/app-server/call calls another method of Codex, such as {\"method\": \"thread/name/set\", \
         \"sessionId\": …, \"params\": {\"name\": …}}; --app-server-calls limits which.",
        "POST /v1/codexd/hooks with {\"name\", \"on\": [event type, …], \"url\"} or {…, \"command\": [program, argument, …]} \
         delivers each such event at least once, also after a restart.",
        "Over the websocket, answer a request with {\"type\": \"respond\", \"requestId\": …, \"decision\": …}.",
    ];
    if config.server.demo {
        notes.push("This daemon is a demo: its app-server is not Codex, and the answers are prepared.");
    }
    Description {
        ok: true,
        name: "codexd",
        surface: "local-api",
        description: "Independent local Codex daemon for session lifecycle, turn submission, status reads, and live \
                      event streaming.",
        version: config.version,
        mode: Mode {
            current: config.view().server.mode,
            daemon: "independent",
            supervisor: "launchd",
            transport: "codex app-server",
            conductor_role: "proxy",
        },
        base_url: address.map_or_else(|| state.base_url.clone(), |address| address.url("http")),
        event_stream: EventStream {
            path: event_stream_path.clone(),
            transport: "websocket",
            url: state.service_at(address).event_stream_url.unwrap_or_default(),
        },
        openapi: "/openapi.json",
        routes: views(routes, true, event_stream_path),
        extensions: extensions(routes, event_stream_path),
        examples: examples(routes, event_stream_path),
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
    }
}
