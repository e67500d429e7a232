//! The handlers of turns: submit, read, interrupt; and of the queue: withdraw, resume. Stateless.

use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::codex::protocol::values::TURN_INTERRUPTED;
use crate::daemon::{Interrupted, SessionView, SubmitTurn, TurnAccepted, TurnView, WhenBusy};
use crate::http::access_log::Subject;
use crate::http::app_state::AppState;
use crate::http::bodies::{self, InterruptTurn, ResumeQueue};
use crate::http::body::{Fields, request_key};
use crate::http::error::ApiError;
use crate::http::queries::WaitQuery;
use crate::http::routes::sessions::unknown_session;
use crate::http::values::{Input, Moment};
use crate::http::{parse, response};
use crate::ids::{SessionId, ThreadId, TurnId};
use crate::state::{JsonText, SessionBody};
use crate::timestamp::Timestamp;

/// A turn of the thread of a session; absent values are `null`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Turn")]
pub(crate) struct TurnBody {
    /// The ID of the turn.
    turn_id: TurnId,
    /// The session of the request; it shows all turns of its thread.
    session_id: SessionId,
    /// The session that started it; `null` if another client of the app-server did, or if that is unknown.
    started_by: Option<SessionId>,
    /// The ID of its thread.
    thread_id: Option<ThreadId>,
    /// `inProgress`, `completed`, `interrupted`, `failed`, or a newer value of the app-server.
    status: String,
    /// When it was accepted, RFC 3339, UTC, milliseconds.
    started_at: Timestamp,
    /// When it ended, RFC 3339, UTC, milliseconds.
    completed_at: Option<Timestamp>,
    /// The final answer: the newest message of the agent.
    text: Option<String>,
    /// The last error, in the format of the app-server.
    error: Option<Value>,
    /// The token usage, in the format of the app-server.
    token_usage: Option<Value>,
    /// A summary of what happened: type, id, status and a short text of each item.
    items: Vec<Value>,
}

impl TurnBody {
    /// The body for a request that names this session.
    fn new(session_id: &SessionId, turn: &TurnView) -> Self {
        Self {
            turn_id: turn.turn_id.clone(),
            session_id: session_id.clone(),
            started_by: turn.started_by.clone(),
            thread_id: Some(turn.thread_id.clone()),
            status: turn.status.to_string(),
            started_at: turn.started_at.clone(),
            completed_at: turn.completed_at.clone(),
            text: turn.contents.text.clone(),
            error: turn.contents.error.clone(),
            // That of the record may have been reported again after the turn.
            token_usage: turn
                .kept
                .token_usage
                .as_ref()
                .map(JsonText::value)
                .or_else(|| turn.contents.token_usage.clone()),
            items: turn.contents.items.clone(),
        }
    }
}

/// The result of submitting a turn.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Accepted {
    /// Always `true`.
    accepted: bool,
    session: SessionBody,
    /// The turn; `null` while it is queued.
    turn_id: Option<TurnId>,
    /// The ID in the queue, while it is queued.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_id: Option<String>,
    /// The turn when it ended or when the wait was over; only with `wait`.
    #[serde(skip_serializing_if = "Option::is_none")]
    turn: Option<TurnBody>,
    /// `true` when the input was added to a running turn, which remains that of its own client; else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    steered: Option<bool>,
    /// The fields of the request body that were ignored: they are unknown, `input` was present too, or the turn was
    /// steered, which uses only the input; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    ignored: Option<Vec<String>>,
}

/// One turn.
#[derive(Serialize, JsonSchema)]
pub(crate) struct OneTurn {
    turn: TurnBody,
}

/// The session of a turn that was removed from the queue.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Withdrawn {
    #[serde(flatten)]
    view: SessionView,
    /// Whether the turn was already being sent to the app-server, has not ended, and is interrupted as soon as
    /// possible.
    pending: bool,
}

/// The session of a queue that was resumed.
#[derive(Serialize, JsonSchema)]
pub(crate) struct QueueResumed {
    #[serde(flatten)]
    view: SessionView,
    /// The fields of the request body that were ignored because they are unknown; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    ignored: Option<Vec<String>>,
}

/// The result of an interrupt.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InterruptAnswer {
    /// Whether the turn was ended by it.
    interrupted: bool,
    /// Whether the turn has not ended and is interrupted as soon as possible.
    pending: bool,
    /// The turn; `null` if its ID is not known yet, or if it was withdrawn before it started.
    turn: Option<TurnBody>,
    /// Whether the commands that the turn had started were terminated too.
    commands_ended: bool,
    /// Why they were not, as a sentence.
    commands_reason: Option<String>,
    /// The fields of the request body that were ignored because they are unknown; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    ignored: Option<Vec<String>>,
}

/// Starts a turn, steers the running one, or queues it; with `wait` the response is sent when the turn has ended.
pub(crate) async fn submit(
    State(state): State<AppState>,
    headers: HeaderMap,
    uri: Uri,
    body: Body,
) -> Result<Response, ApiError> {
    let wait = wait_timeout(&uri)?;
    let fields = Fields::read(body, state.body_limit()).await?;
    let key = request_key(&headers, "turn", &fields)?;
    let (input, mut ignored) = parse_turn(fields)?;
    let input = SubmitTurn { key, ..input };
    state.check_cwd(&input.settings).await?;
    let settings: Vec<String> = input.settings.keys().cloned().collect();
    let is_for_one_turn = input.expected_turn_id.is_some();
    let TurnAccepted { mut session, turn_id, queue_id, steered } = state.daemon.turns.submit(input).await?;
    if steered || is_for_one_turn {
        // `turn/steer` uses only the input.
        ignored.extend(settings);
    }
    let mut turn = None;
    if let (Some(turn_id), Some(timeout)) = (&turn_id, wait) {
        let latest = state.daemon.turns.get_when_over(&session.session_id, turn_id, timeout).await?;
        turn = Some(TurnBody::new(&session.session_id, &latest));
        // The session after the turn; a session that was removed meanwhile is returned as it was before.
        session = state.daemon.sessions.get(&session.session_id).unwrap_or(session);
    }
    let subject = Subject::new(&session.session_id, turn_id.as_ref());
    let names = response::non_empty(ignored.clone());
    let steered = steered.then_some(true);
    let session = SessionBody::from(&*session);
    let accepted = Accepted { accepted: true, session, turn_id, queue_id, turn, steered, ignored: names };
    Ok(response::with_ignored_header(
        subject.attach_to(response::data(StatusCode::ACCEPTED, accepted)),
        &ignored,
    ))
}

/// Returns one turn; with `wait` when it has ended.
pub(crate) async fn read(
    State(state): State<AppState>,
    ids: Result<Path<(SessionId, TurnId)>, PathRejection>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let Path((session_id, turn_id)) = ids.map_err(unknown_session)?;
    let turn = match wait_timeout(&uri)? {
        Some(timeout) => state.daemon.turns.get_when_over(&session_id, &turn_id, timeout).await?,
        None => state.daemon.turns.get(&session_id, &turn_id).await?,
    };
    let subject = Subject::new(&session_id, Some(&turn.turn_id));
    Ok(subject.attach_to(response::data(StatusCode::OK, OneTurn { turn: TurnBody::new(&session_id, &turn) })))
}

/// Removes a turn from the queue; returns its session.
///
/// A turn that is already being sent to the app-server is interrupted.
pub(crate) async fn withdraw(
    State(state): State<AppState>,
    ids: Result<Path<(SessionId, String)>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path((session_id, queue_id)) = ids.map_err(unknown_session)?;
    let pending = state.daemon.turns.withdraw(&session_id, &queue_id).await?;
    let view = state.daemon.session_view(&session_id)?;
    Ok(Subject::new(&session_id, None).attach_to(response::data(StatusCode::OK, Withdrawn { view, pending })))
}

/// Resumes the queue of a session, or lets one of its turns wait for no time any more; returns the session.
pub(crate) async fn resume_queue(
    State(state): State<AppState>,
    session_id: Result<Path<SessionId>, PathRejection>,
    body: Body,
) -> Result<Response, ApiError> {
    let Path(session_id) = session_id.map_err(unknown_session)?;
    let (ResumeQueue { queue_id }, ignored) = Fields::read(body, state.body_limit()).await?.parse()?;
    if let Some(queue_id) = queue_id {
        state.daemon.queue.start_now(&session_id, &queue_id).await?;
    }
    state.daemon.queue.resume(&session_id).await?;
    let view = state.daemon.session_view(&session_id)?;
    let body = QueueResumed { view, ignored: response::non_empty(ignored.clone()) };
    let subject = Subject::new(&session_id, None);
    Ok(response::with_ignored_header(subject.attach_to(response::data(StatusCode::ACCEPTED, body)), &ignored))
}

/// Interrupts the running turn of a session.
pub(crate) async fn interrupt(State(state): State<AppState>, body: Body) -> Result<Response, ApiError> {
    let (InterruptTurn { session_id, turn_id }, ignored) =
        Fields::read(body, state.body_limit()).await?.parse()?;
    let Interrupted { turn, pending, commands_ended, reason } =
        state.daemon.turns.interrupt(&session_id, turn_id.as_ref()).await?;
    let body = InterruptAnswer {
        interrupted: turn.as_ref().map_or(!pending, |turn| turn.status == TURN_INTERRUPTED),
        pending,
        turn: turn.as_ref().map(|turn| TurnBody::new(&session_id, turn)),
        commands_ended,
        commands_reason: reason,
        ignored: response::non_empty(ignored.clone()),
    };
    let subject = Subject::new(&session_id, turn.as_ref().map(|turn| &turn.turn_id));
    Ok(response::with_ignored_header(subject.attach_to(response::data(StatusCode::ACCEPTED, body)), &ignored))
}

/// How long the response waits for the end of the turn.
fn wait_timeout(uri: &Uri) -> Result<Option<Duration>, ApiError> {
    let query: WaitQuery = parse::query_of(uri)?;
    Ok(query.wait.map(|seconds| Duration::from_secs(seconds.0)))
}

/// Parses the requested turn, and the names of the ignored fields.
fn parse_turn(fields: Fields) -> Result<(SubmitTurn, Vec<String>), ApiError> {
    let (body, mut ignored) = fields.parse::<bodies::SubmitTurn>()?;
    let settings = bodies::forwarded(&body);
    let input = match (body.input, body.prompt) {
        (Some(input), prompt) => {
            if prompt.is_some() {
                ignored.insert(0, "prompt".to_owned());
            }
            Ok(input)
        }
        (None, Some(prompt)) => Input::try_from(prompt),
        (None, None) => Err(Input::REQUIREMENT.to_owned()),
    };
    let Input(input) = input.map_err(|error| ApiError::bad_request(format!("input{error}.")))?;
    let starts_now =
        body.expected_turn_id.is_some() || body.when_busy.is_some_and(|how| how != WhenBusy::Queue);
    if body.not_before.is_some() && starts_now {
        return Err(ApiError::bad_request(
            "A turn with notBefore is queued: leave out expectedTurnId, and leave out whenBusy or set it to queue.",
        ));
    }
    let input = SubmitTurn {
        session_id: body.session_id,
        input,
        expected_turn_id: body.expected_turn_id,
        when_busy: body.when_busy.unwrap_or_default(),
        not_before: body.not_before.map(|Moment(at)| at),
        on_usage_limit: body.on_usage_limit.unwrap_or_default(),
        settings,
        key: None,
    };
    Ok((input, ignored))
}
