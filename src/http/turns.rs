//! `POST /v1/codexd/turn`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::body::{Fields, pass, request_key};
use super::error::ApiError;
use super::{Handle, answer};
use crate::daemon::{SubmitTurn, TurnAccepted, WhenBusy};
use crate::state::Session;

/// Starts a turn, steers the running one, or queues it.
pub(super) async fn submit(
    State(edge): State<Handle>,
    headers: HeaderMap,
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
    }
    let fields = Fields::read(body).await?;
    let key = request_key(&headers, "turn", &fields)?;
    let input = SubmitTurn { key, ..parse(fields)? };
    let TurnAccepted { session, turn_id, queue_id } = edge.daemon.submit_turn(input).await?;
    Ok(answer::data(StatusCode::ACCEPTED, Accepted { accepted: true, session, turn_id, queue_id }))
}

fn parse(mut fields: Fields) -> Result<SubmitTurn, ApiError> {
    let session_id = fields.required_text("sessionId")?;
    let input = items(&mut fields)?;
    let mut settings = Map::new();
    for name in ["approvalPolicy", "collaborationMode", "outputSchema", "sandboxPolicy", "summary"] {
        pass(&mut settings, name, fields.any(name));
    }
    for name in ["cwd", "effort", "model", "personality", "serviceTier"] {
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
        Some(Value::Array(items)) if !items.is_empty() => Ok(items),
        Some(Value::Array(_)) | None => {
            Err(ApiError::bad_request("turn input must be a non-empty string or a non-empty array of items."))
        }
        Some(_) => Err(ApiError::bad_request("turn requires input as a string or item array.")),
    }
}
