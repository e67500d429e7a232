//! `POST /v1/codexd/turn`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::body::{Fields, pass, request_key};
use super::error::ApiError;
use super::{Handle, answer, words};
use crate::daemon::{DaemonError, Interrupted, SubmitTurn, TurnAccepted, WhenBusy};
use crate::state::{Session, Turn};

/// Starts a turn, steers the running one, or queues it; with `wait` it answers when the turn is over.
pub(super) async fn submit(
    State(edge): State<Handle>,
    headers: HeaderMap,
    uri: Uri,
    body: Body,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Accepted {
        accepted: bool,
        session: Arc<Session>,
        turn_id: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        queue_id: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        turn: Option<Arc<Turn>>,
    }
    let wait = wait(&uri)?;
    let fields = Fields::read(body).await?;
    let key = request_key(&headers, "turn", &fields)?;
    let input = SubmitTurn { key, ..parse(fields)? };
    let TurnAccepted { session, turn_id, queue_id } = edge.daemon.submit_turn(input).await?;
    let turn = match (&turn_id, wait) {
        (Some(turn_id), Some(patience)) => {
            Some(edge.daemon.turn_when_over(&session.session_id, turn_id, patience).await?)
        }
        _ => None,
    };
    Ok(answer::data(StatusCode::ACCEPTED, Accepted { accepted: true, session, turn_id, queue_id, turn }))
}

/// One turn; with `wait` as it is when it is over.
pub(super) async fn read(
    State(edge): State<Handle>,
    names: Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct One {
        turn: Arc<Turn>,
    }
    // A name that is not even text is the name of nothing.
    let Path((session_id, turn_id)) =
        names.map_err(|_| DaemonError::UnknownSession("(not UTF-8)".to_owned()))?;
    let turn = match wait(&uri)? {
        Some(patience) => edge.daemon.turn_when_over(&session_id, &turn_id, patience).await?,
        None => edge.daemon.turn(&session_id, &turn_id).await?,
    };
    Ok(answer::data(StatusCode::OK, One { turn }))
}

/// Interrupts the running turn of a session.
pub(super) async fn interrupt(State(edge): State<Handle>, body: Body) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        interrupted: bool,
        turn: Arc<Turn>,
        commands_ended: bool,
        commands_reason: Option<String>,
    }
    let mut fields = Fields::read(body).await?;
    let session_id = fields.required_text("sessionId")?;
    let turn_id = fields.text("turnId")?;
    let Interrupted { turn, commands_ended, reason } =
        edge.daemon.interrupt_turn(&session_id, turn_id.as_deref()).await?;
    let answer =
        Answer { interrupted: turn.status == "interrupted", turn, commands_ended, commands_reason: reason };
    Ok(answer::data(StatusCode::ACCEPTED, answer))
}

/// How long a request waits for the end of a turn: `?wait=SECONDS`, an hour at most.
fn wait(uri: &Uri) -> Result<Option<Duration>, ApiError> {
    const HOUR: u64 = 3600;
    let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let Some((_, value)) = query.filter(|(name, _)| name == "wait").last() else { return Ok(None) };
    match value.trim().parse() {
        Ok(seconds) if seconds <= HOUR => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(ApiError::bad_request(format!("wait must be a whole number of seconds from 0 to {HOUR}."))),
    }
}

fn parse(mut fields: Fields) -> Result<SubmitTurn, ApiError> {
    let session_id = fields.required_text("sessionId")?;
    let input = items(&mut fields)?;
    let mut settings = Map::new();
    pass(&mut settings, "approvalPolicy", words::approval_policy(&mut fields)?);
    pass(&mut settings, "personality", words::one_of(&mut fields, "personality", words::PERSONALITY)?);
    pass(&mut settings, "summary", words::one_of(&mut fields, "summary", words::SUMMARY)?);
    pass(&mut settings, "cwd", words::folder(&mut fields, "cwd")?);
    for name in ["collaborationMode", "outputSchema", "sandboxPolicy"] {
        pass(&mut settings, name, fields.any(name));
    }
    for name in ["effort", "model", "serviceTier"] {
        pass(&mut settings, name, fields.text(name)?);
    }
    let expected_turn_id = fields.text("expectedTurnId")?;
    let when_busy = match fields.text("whenBusy")?.as_deref() {
        None | Some("refuse") => WhenBusy::Refuse,
        Some("steer") => WhenBusy::Steer,
        Some("queue") => WhenBusy::Queue,
        Some(_) => return Err(ApiError::bad_request("whenBusy must be one of refuse, steer and queue.")),
    };
    Ok(SubmitTurn { session_id, input, expected_turn_id, when_busy, settings, key: None })
}

/// The items the user says: a text becomes one item, a list is passed on as it is.
fn items(fields: &mut Fields) -> Result<Vec<Value>, ApiError> {
    match fields.any("input").or_else(|| fields.any("prompt")) {
        Some(Value::String(text)) => Ok(vec![json!({ "type": "text", "text": text, "text_elements": [] })]),
        Some(Value::Array(items)) if !items.is_empty() => {
            words::items(&items)?;
            Ok(items)
        }
        Some(Value::Array(_)) | None => {
            Err(ApiError::bad_request("turn input must be a non-empty string or a non-empty array of items."))
        }
        Some(_) => Err(ApiError::bad_request("turn requires input as a string or item array.")),
    }
}
