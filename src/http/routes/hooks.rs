//! The handlers of hooks: list, add, remove, test. Stateless.

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{delete, get, post};
use schemars::JsonSchema;
use serde::Serialize;

use crate::daemon::{DaemonError, HookView, NewHook, TargetView, TestResult};
use crate::http::app_state::AppState;
use crate::http::auth::{Assurance, local_key};
use crate::http::bodies::AddHook;
use crate::http::body::Fields;
use crate::http::error::{self, ApiError};
use crate::http::parse::schema;
use crate::http::route::{BODY_ERRORS, Route, data, extension};
use crate::http::{examples, response};
use crate::ids::{HookId, SessionId};
use crate::timestamp::Timestamp;

/// What a hook does now.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "HookState")]
enum HookState {
    /// It waits for events.
    Idle,
    /// Something is being delivered.
    Delivering,
    /// It waits for the next attempt of a delivery that failed.
    Retrying,
}

/// A hook, without its secrets.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Hook {
    hook_id: HookId,
    name: String,
    /// The types of its events, or prefixes of them.
    on: Vec<String>,
    /// The session to which it is limited; `null` for all.
    session_id: Option<SessionId>,
    /// The program that gets the events.
    program: Option<String>,
    /// The number of the program's arguments, which may contain secrets and are not shown.
    arguments: Option<usize>,
    /// The scheme and the host of the URL that gets the events; the rest may contain secrets and is not shown.
    origin: Option<String>,
    /// Whether deliveries to the URL are signed.
    signed: bool,
    /// How long a delivery may take, in seconds.
    timeout_seconds: u64,
    /// Whether prompts, answers and outputs are delivered too.
    detail: bool,
    created_at: Timestamp,
    state: HookState,
    /// Whether its deliveries fail repeatedly.
    failing: bool,
    /// The cursor of the last event that it is done with.
    cursor: Option<String>,
    /// How often the next delivery has failed.
    failures: u32,
    /// When it is tried again.
    retry_at: Option<Timestamp>,
    /// Why the last attempt failed; `null` if it succeeded.
    error: Option<String>,
    /// When the last delivery succeeded since the daemon started.
    delivered_at: Option<Timestamp>,
    /// The number of deliveries since the daemon started.
    delivered: u64,
    /// The number of failed attempts since the daemon started.
    failed: u64,
    /// The number of deliveries that were given up since the daemon started.
    skipped: u64,
}

/// One hook.
#[derive(Serialize, JsonSchema)]
pub(crate) struct OneHook {
    hook: Hook,
    /// The fields of the request body that were ignored because they are unknown; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    ignored: Option<Vec<String>>,
}

/// The hooks, in the order in which they were added.
#[derive(Serialize, JsonSchema)]
pub(crate) struct HookList {
    hooks: Vec<Hook>,
}

/// The result of a test.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TestedHook {
    /// Whether the delivery succeeded.
    succeeded: bool,
    /// Why it failed; `null` if it succeeded.
    error: Option<String>,
    /// How long it took, in milliseconds.
    duration_ms: u64,
}

/// Lists the hooks.
pub(in crate::http) const LIST: Route = extension(
    "GET",
    "/v1/codexd/hooks",
    "listHooks",
    || get(list),
    data::<HookList>,
    "List the hooks: programs and URLs that get events.",
);

/// Adds a hook.
pub(in crate::http) const ADD: Route = Route {
    body: Some(schema::<AddHook>),
    examples: examples::ADD_HOOK,
    status: 201,
    errors: &[
        BODY_ERRORS,
        &[
            error::FORBIDDEN,
            error::NOT_FOUND,
            error::HOOK_EXISTS,
            error::TOO_MANY_HOOKS,
            error::STORAGE,
            error::SHUTTING_DOWN,
        ],
    ],
    remarks: "A hook gets the events that are recorded from now on, one after the other, each until a delivery succeeds; \
              docs/hooks.md has the details. No response contains the arguments of a command, the path of a URL, or a secret. On a system that \
              does not report the user of a connection, a hook with a command needs a token.",
    ..extension(
        "POST",
        "/v1/codexd/hooks",
        "addHook",
        || post(add),
        data::<OneHook>,
        "Add a hook, which gets the events from now on.",
    )
};

/// Removes a hook.
pub(in crate::http) const REMOVE: Route = Route {
    errors: &[&[error::NOT_FOUND, error::STORAGE, error::SHUTTING_DOWN]],
    ..extension(
        "DELETE",
        "/v1/codexd/hooks/{hook_id}",
        "removeHook",
        || delete(remove),
        data::<OneHook>,
        "Remove a hook, and end its delivery.",
    )
};

/// Delivers a test.
pub(in crate::http) const TEST: Route = Route {
    errors: &[&[error::NOT_FOUND]],
    remarks: "The response has the result of the delivery. The test is no event; its type is test.",
    ..extension(
        "POST",
        "/v1/codexd/hooks/{hook_id}/test",
        "testHook",
        || post(test),
        data::<TestedHook>,
        "Deliver a test to a hook now.",
    )
};

/// Lists the hooks.
pub(crate) async fn list(State(state): State<AppState>) -> Response {
    let hooks = state.daemon.hooks.list().into_iter().map(Hook::from).collect();
    response::data(StatusCode::OK, HookList { hooks })
}

/// Adds a hook.
pub(crate) async fn add(
    State(state): State<AppState>,
    Extension(assurance): Extension<Assurance>,
    body: Body,
) -> Result<Response, ApiError> {
    let (body, ignored) = Fields::read(body, state.body_limit()).await?.parse::<AddHook>()?;
    if let Some(command) = &body.command
        && !assurance.is_user
        && !is_proven(&state, &body, command).await
    {
        return Err(ApiError::forbidden(
            "This system does not report the user of a connection, so a hook with a command needs a token \
             (--auth-token-file), or \"codexd hooks add\" in a terminal.",
        ));
    }
    let hook = NewHook {
        name: body.name,
        on: body.on,
        session_id: body.session_id,
        command: body.command,
        url: body.url,
        secret: body.secret,
        timeout_seconds: body.timeout_seconds.map(|seconds| seconds.0),
        detail: body.detail.unwrap_or_default(),
    };
    let hook = state.daemon.hooks.add(hook).await?.into();
    let answer = OneHook { hook, ignored: response::non_empty(ignored.clone()) };
    Ok(response::with_ignored_header(response::data(StatusCode::CREATED, answer), &ignored))
}

/// Whether the request comes from a program that can read the state directory.
async fn is_proven(state: &AppState, body: &AddHook, command: &[String]) -> bool {
    let state_dir = state.daemon.config().paths.state_dir.clone();
    local_key::is_proof(state_dir, body.proof.as_deref().unwrap_or_default(), &body.name, command).await
}

/// Removes a hook.
pub(crate) async fn remove(
    State(state): State<AppState>,
    hook_id: Result<Path<HookId>, PathRejection>,
) -> Result<Response, ApiError> {
    let hook = state.daemon.hooks.remove(decode_id(hook_id)?).await?.into();
    Ok(response::data(StatusCode::OK, OneHook { hook, ignored: None }))
}

/// Delivers a test to a hook.
pub(crate) async fn test(
    State(state): State<AppState>,
    hook_id: Result<Path<HookId>, PathRejection>,
) -> Result<Response, ApiError> {
    let TestResult { error, took } = state.daemon.hooks.test(&decode_id(hook_id)?).await?;
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let tested = TestedHook { succeeded: error.is_none(), error, duration_ms };
    Ok(response::data(StatusCode::OK, tested))
}

fn decode_id(hook_id: Result<Path<HookId>, PathRejection>) -> Result<HookId, ApiError> {
    // An ID that is not UTF-8 belongs to no hook.
    let id = hook_id.map(|Path(hook_id)| hook_id);
    id.map_err(|_| DaemonError::UnknownHook(HookId::new("(not UTF-8)")).into())
}

impl From<HookView> for Hook {
    fn from(view: HookView) -> Self {
        let (program, arguments, origin, signed) = match view.target {
            TargetView::Command(program, arguments) => (Some(program), Some(arguments), None, false),
            TargetView::Url(origin, is_signed) => (None, None, Some(origin), is_signed),
        };
        let hook = &view.hook;
        Self {
            hook_id: hook.hook_id.clone(),
            name: hook.name.clone(),
            on: hook.on.clone(),
            session_id: hook.session_id.clone(),
            program,
            arguments,
            origin,
            signed,
            timeout_seconds: hook.timeout_seconds,
            detail: hook.detail,
            created_at: hook.created_at.clone(),
            state: match (view.is_delivering, view.retry_at.is_some()) {
                (true, _) => HookState::Delivering,
                (false, true) => HookState::Retrying,
                (false, false) => HookState::Idle,
            },
            failing: view.is_failing,
            cursor: view.cursor,
            failures: view.failures,
            retry_at: view.retry_at,
            error: view.error,
            delivered_at: view.delivered_at,
            delivered: view.counts.delivered,
            failed: view.counts.failed,
            skipped: view.counts.skipped,
        }
    }
}
