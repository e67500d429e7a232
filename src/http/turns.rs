//! `POST /v1/codexd/turn`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::body::{Fields, pass};
use super::error::ApiError;
use super::{Handle, answer};
use crate::daemon::SubmitTurn;
use crate::state::Session;

/// Starts a turn, or steers the running one.
pub(super) async fn submit(State(edge): State<Handle>, body: Body) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Accepted {
        accepted: bool,
        session: Arc<Session>,
        turn_id: String,
    }
    let input = parse(Fields::read(body).await?)?;
    let accepted = edge.daemon.submit_turn(input).await?;
    let answer = Accepted { accepted: true, session: accepted.session, turn_id: accepted.turn_id };
    Ok(answer::data(StatusCode::ACCEPTED, answer))
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
    Ok(SubmitTurn { session_id, input, expected_turn_id, settings })
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
