//! The table of routes, and the router that is built from it.
//!
//! Stateless; called by `app`. `/describe` and the OpenAPI document are generated from the same table.
//!
//! Invariant: a route exists if and only if it is in [`ROUTES`].

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post};
use serde_json::Value;

use super::app_state::{AppState, SharedState};
use super::auth::ForwardedAddress;
use super::bodies::{
    AnswerRequest, CallAppServer, CreateSession, InterruptTurn, RestartAppServer, ResumeQueue, SubmitTurn,
    UpdateSession,
};
use super::error::{self, ApiError};
use super::parse::schema;
use super::queries::{CloseQuery, RequestQuery, SessionQuery, ThreadQuery, WaitQuery};
use super::route::{
    ATTACH_ERRORS, BODY_ERRORS, CALL_ERRORS, EVENT_STREAM, KEY_ERRORS, Route, data, document, extension,
    flat, formal, text,
};
use super::routes::service::StatusView;
use super::routes::{
    app_server, calls, describe, health, hooks, mcp, metrics, requests, sessions, threads, turns,
};
use super::{examples, openapi, response, stream, web};
use crate::daemon::SessionView;

/// Builds the router of all routes; unknown routes and methods get 404.
pub(super) fn router(state: &AppState) -> Router {
    let stream = &state.daemon.config().service.event_stream_path;
    ROUTES
        .iter()
        .fold(Router::new(), |router, route| router.route(route.path(stream), (route.handler)()))
        .fallback(unknown_route)
        .method_not_allowed_fallback(unknown_route)
        .with_state(Arc::clone(state))
}

/// Handles `GET /describe`.
async fn describe(State(state): State<AppState>, address: health::Address) -> Response {
    response::json(StatusCode::OK, &description(&state, address.as_deref()))
}

// Separate from the handler: the compiler rejects an async handler that names the table that contains it.
fn description(state: &SharedState, address: Option<&ForwardedAddress>) -> describe::Description {
    describe::describe(state, ROUTES, address)
}

/// Handles `GET /openapi.json`.
async fn openapi(State(state): State<AppState>) -> Response {
    let path = &state.daemon.config().service.event_stream_path;
    response::json(StatusCode::OK, &openapi_document(path, &state.base_url))
}

/// The OpenAPI document of a daemon that listens at `base_url` and serves its event stream at `event_stream_path`.
pub fn openapi_document(event_stream_path: &str, base_url: &str) -> Value {
    openapi::document(ROUTES, event_stream_path, base_url)
}

async fn unknown_route(method: Method, uri: Uri) -> Response {
    let message = format!("Unknown codexd route {method} {}.", uri.path());
    ApiError::new(error::NOT_FOUND, message).into_response()
}

/// All routes; the formal ones in the order of the contract.
pub(super) const ROUTES: &[Route] = &[
    formal(
        "GET",
        "/healthz",
        "health",
        || get(health::healthz),
        flat::<health::Health>,
        "Lightweight health probe for the local daemon.",
    ),
    formal(
        "GET",
        "/describe",
        "describe",
        || get(describe),
        flat::<describe::Description>,
        "Machine-readable description of the official codexd surface.",
    ),
    formal(
        "GET",
        "/v1/codexd/status",
        "readStatus",
        || get(health::status),
        data::<StatusView>,
        "Current daemon, child, session, and recent event snapshot.",
    ),
    Route {
        query: Some(schema::<SessionQuery>),
        errors: &[&[error::BAD_REQUEST, error::NOT_FOUND]],
        ..formal(
            "GET",
            "/v1/codexd/sessions",
            "listSessions",
            || get(sessions::list),
            data::<sessions::SessionList>,
            "List the currently known codexd sessions.",
        )
    },
    Route {
        errors: &[&[error::NOT_FOUND]],
        ..formal(
            "GET",
            "/v1/codexd/sessions/{session_id}",
            "readSession",
            || get(sessions::read),
            data::<SessionView>,
            "Read a single codexd session and its recent events.",
        )
    },
    Route {
        body: Some(schema::<CreateSession>),
        examples: examples::CREATE_SESSION,
        supports_idempotency_key: true,
        status: 201,
        errors: &[
            BODY_ERRORS,
            KEY_ERRORS,
            CALL_ERRORS,
            ATTACH_ERRORS,
            &[error::NOT_FOUND, error::TURN_IN_PROGRESS, error::TRUST_UNDECIDED, error::CODEX_TOO_OLD],
        ],
        ..formal(
            "POST",
            "/v1/codexd/sessions",
            "createSession",
            || post(sessions::create),
            data::<sessions::OneSession>,
            "Create or resume a codexd session.",
        )
    },
    Route {
        query: Some(schema::<WaitQuery>),
        body: Some(schema::<SubmitTurn>),
        examples: examples::SUBMIT_TURN,
        supports_idempotency_key: true,
        status: 202,
        errors: &[
            BODY_ERRORS,
            KEY_ERRORS,
            CALL_ERRORS,
            ATTACH_ERRORS,
            &[
                error::NOT_FOUND,
                error::TURN_IN_PROGRESS,
                error::TURN_INTERRUPTED,
                error::NO_TURN,
                error::QUEUE_FULL,
                error::CODEX_TOO_OLD,
                error::OUTCOME_UNKNOWN,
            ],
        ],
        ..formal(
            "POST",
            "/v1/codexd/turn",
            "submitTurn",
            || post(turns::submit),
            data::<turns::Accepted>,
            "Submit one turn to an existing codexd session.",
        )
    },
    Route {
        query: Some(schema::<stream::StreamQuery>),
        errors: &[&[
            error::BAD_REQUEST,
            error::NOT_FOUND,
            error::CURSOR_GONE,
            error::UPGRADE_REQUIRED,
            error::STORAGE,
            error::SHUTTING_DOWN,
        ]],
        remarks: "A plain request returns one page.\n\n\
                  With `Accept: text/event-stream` the response is a stream of server-sent events: `id` is the cursor and \
                  `data` the event; `event: bookmark` moves the cursor when no event matched for a while, and \
                  `event: gap` reports missing events and ends the stream unless its reason is `lost`. \
                  `Last-Event-ID` continues after a cursor.\n\n\
                  With a WebSocket handshake (RFC 6455) the response is 101, and each text message is a \
                  `WebSocketServerMessage`, first `hello`; the client may send a `WebSocketClientMessage`.",
        ..formal(
            "WS",
            EVENT_STREAM,
            "readEvents",
            || get(stream::events),
            data::<stream::Page>,
            "WebSocket event stream for live codexd session and daemon updates.",
        )
    },
    Route {
        media_type: web::CONTENT_TYPE,
        remarks: "It holds no data and uses the other routes, so it asks the user for the token if one is required.",
        ..extension(
            "GET",
            "/",
            "page",
            || get(web::page),
            text,
            "Live page for a browser: sessions, conversations and requests.",
        )
    },
    extension(
        "GET",
        "/openapi.json",
        "openapi",
        || get(openapi),
        document,
        "This surface as an OpenAPI 3.1 document.",
    ),
    Route {
        media_type: "text/plain",
        remarks: "In the Prometheus text format, version 0.0.4; docs/operations.md describes each metric.",
        ..extension(
            "GET",
            "/metrics",
            "readMetrics",
            || get(metrics::metrics),
            text,
            "Metrics of the daemon for Prometheus.",
        )
    },
    Route {
        body: Some(schema::<UpdateSession>),
        examples: examples::UPDATE_SESSION,
        errors: &[BODY_ERRORS, CALL_ERRORS, ATTACH_ERRORS, &[error::NOT_FOUND, error::TURN_IN_PROGRESS]],
        remarks: "Title and archive are those of the thread: Codex changes them, and its other clients and all sessions of the \
                  thread show them. Labels are merged (RFC 7396). A thread in which a turn is running or queued is not \
                  archived.",
        ..extension(
            "PATCH",
            "/v1/codexd/sessions/{session_id}",
            "updateSession",
            || patch(sessions::update),
            data::<sessions::OneSession>,
            "Change the title or the labels of a session, or archive or unarchive its thread.",
        )
    },
    Route {
        query: Some(schema::<CloseQuery>),
        errors: &[CALL_ERRORS, ATTACH_ERRORS, &[error::NOT_FOUND, error::TURN_IN_PROGRESS, error::NO_TURN]],
        ..extension(
            "DELETE",
            "/v1/codexd/sessions/{session_id}",
            "closeSession",
            || delete(sessions::close),
            data::<sessions::ClosedSession>,
            "Close a session; it stays readable.",
        )
    },
    Route {
        query: Some(schema::<WaitQuery>),
        errors: &[CALL_ERRORS, ATTACH_ERRORS, &[error::BAD_REQUEST, error::NOT_FOUND]],
        ..extension(
            "GET",
            "/v1/codexd/sessions/{session_id}/turns/{turn_id}",
            "readTurn",
            || get(turns::read),
            data::<turns::OneTurn>,
            "Read one turn, immediately or when it has ended.",
        )
    },
    Route {
        errors: &[CALL_ERRORS, ATTACH_ERRORS, &[error::NOT_FOUND]],
        ..extension(
            "DELETE",
            "/v1/codexd/sessions/{session_id}/queue/{queue_id}",
            "withdrawTurn",
            || delete(turns::withdraw),
            data::<turns::Withdrawn>,
            "Remove a queued turn from the queue of a session.",
        )
    },
    Route {
        body: Some(schema::<ResumeQueue>),
        status: 202,
        errors: &[BODY_ERRORS, CALL_ERRORS, ATTACH_ERRORS, &[error::NOT_FOUND]],
        remarks: "A queue that is not held is unchanged. The thread is opened first; if Codex cannot open it, the error is \
                  returned and the queue stays held. With queueId, that turn also waits for its notBefore no longer.",
        ..extension(
            "POST",
            "/v1/codexd/sessions/{session_id}/queue/resume",
            "resumeQueue",
            || post(turns::resume_queue),
            data::<turns::QueueResumed>,
            "Resume the held queue of a session, or start a turn before its time.",
        )
    },
    Route {
        body: Some(schema::<InterruptTurn>),
        examples: examples::INTERRUPT_TURN,
        status: 202,
        errors: &[
            BODY_ERRORS,
            CALL_ERRORS,
            ATTACH_ERRORS,
            &[error::NOT_FOUND, error::NO_TURN, error::TURN_IN_PROGRESS],
        ],
        ..extension(
            "POST",
            "/v1/codexd/turn/interrupt",
            "interruptTurn",
            || post(turns::interrupt),
            data::<turns::InterruptAnswer>,
            "Interrupt the turn in progress in a session.",
        )
    },
    extension(
        "GET",
        "/v1/codexd/app-server",
        "readAppServer",
        || get(app_server::read),
        data::<app_server::OneAppServer>,
        "Read the app-server: its version, the installed version and its account.",
    ),
    Route {
        body: Some(schema::<RestartAppServer>),
        examples: examples::RESTART_APP_SERVER,
        status: 202,
        errors: &[BODY_ERRORS, &[error::NOT_OURS, error::UNAVAILABLE, error::SHUTTING_DOWN]],
        remarks: "The response does not wait for the restart; it has the turns and requests that the restart waits for. \
                  Sessions and queues continue. An app-server that another program started is not restarted.",
        ..extension(
            "POST",
            "/v1/codexd/app-server/restart",
            "restartAppServer",
            || post(app_server::restart),
            data::<app_server::RestartAnswer>,
            "Restart the app-server when no turn is in progress.",
        )
    },
    Route {
        errors: &[CALL_ERRORS],
        remarks: "For a login with ChatGPT, the app-server asks its servers for the limits and the usage. What it does not \
                  report is null, and `notes` says why.",
        ..extension(
            "GET",
            "/v1/codexd/account",
            "readAccount",
            || get(app_server::account),
            data::<app_server::OneAccount>,
            "Read who is logged in, the limits with their resets, and the usage.",
        )
    },
    Route {
        errors: &[CALL_ERRORS],
        ..extension(
            "GET",
            "/v1/codexd/models",
            "listModels",
            || get(sessions::models),
            data::<sessions::Models>,
            "List the models that the app-server offers.",
        )
    },
    Route {
        query: Some(schema::<ThreadQuery>),
        errors: &[CALL_ERRORS, &[error::BAD_REQUEST]],
        ..extension(
            "GET",
            "/v1/codexd/threads",
            "listThreads",
            || get(threads::list),
            data::<threads::ThreadPage>,
            "List the threads that Codex has on this machine, those of the terminal included.",
        )
    },
    Route {
        body: Some(schema::<CallAppServer>),
        examples: examples::CALL_APP_SERVER,
        errors: &[
            BODY_ERRORS,
            CALL_ERRORS,
            ATTACH_ERRORS,
            &[error::FORBIDDEN, error::NOT_FOUND, error::TURN_IN_PROGRESS],
        ],
        remarks: "`--app-server-calls` determines which methods are allowed; what codexd itself calls is rejected with the \
                  route to use instead. With a session, its thread is opened first, and a turn that the call begins, such \
                  as that of `review/start` or `thread/compact/start`, is the session's.",
        ..extension(
            "POST",
            "/v1/codexd/app-server/call",
            "callAppServer",
            || post(calls::call),
            data::<calls::Called>,
            "Call a method of the app-server for which there is no other route.",
        )
    },
    hooks::LIST,
    hooks::ADD,
    hooks::REMOVE,
    hooks::TEST,
    Route {
        query: Some(schema::<RequestQuery>),
        errors: &[&[error::NOT_FOUND]],
        ..extension(
            "GET",
            "/v1/codexd/requests",
            "listRequests",
            || get(requests::list),
            data::<requests::Requests>,
            "List the requests of the app-server, open ones first.",
        )
    },
    Route {
        errors: &[&[error::NOT_FOUND]],
        ..extension(
            "GET",
            "/v1/codexd/requests/{request_id}",
            "readRequest",
            || get(requests::read),
            data::<requests::OneRequest>,
            "Read one request of the app-server.",
        )
    },
    Route {
        body: Some(schema::<AnswerRequest>),
        examples: examples::ANSWER_REQUEST,
        errors: &[BODY_ERRORS, CALL_ERRORS, &[error::NOT_FOUND, error::ALREADY_RESOLVED]],
        ..extension(
            "POST",
            "/v1/codexd/requests/{request_id}",
            "answerRequest",
            || post(requests::respond),
            data::<requests::OneRequest>,
            "Answer one request of the app-server.",
        )
    },
    Route {
        errors: mcp::ERRORS,
        remarks: "The Model Context Protocol over streamable HTTP: messages of JSON-RPC, answered with JSON or as \
                  server-sent events. docs/mcp.md describes the tools.",
        ..extension(
            "POST",
            mcp::PATH,
            "sendMcpMessage",
            || post(mcp::serve),
            mcp::message,
            "Send a message to the tools of the Model Context Protocol.",
        )
    },
    Route {
        errors: mcp::ERRORS,
        media_type: "text/event-stream",
        ..extension(
            "GET",
            mcp::PATH,
            "readMcpMessages",
            || get(mcp::serve),
            text,
            "Stream of messages to a client of the Model Context Protocol.",
        )
    },
    Route {
        errors: mcp::ERRORS,
        status: 202,
        ..extension(
            "DELETE",
            mcp::PATH,
            "endMcpSession",
            || delete(mcp::serve),
            text,
            "End a session of the Model Context Protocol; threads and turns are unchanged.",
        )
    },
];
