//! `/mcp`: the Model Context Protocol over streamable HTTP.
//!
//! The layer `mcp` has the handler; the app puts it into the request. What the handler refuses before there is a message
//! gets the form of every error here.

use std::convert::Infallible;

use axum::Extension;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::{Schema, SchemaGenerator};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use crate::http::error::{self, ApiError, ErrorKind};
use crate::http::route::BODY_ERRORS;

/// The handler of `/mcp`.
pub(crate) type McpService = BoxCloneSyncService<Request, Response, Infallible>;

/// Its path.
pub(in crate::http) const PATH: &str = "/mcp";
/// Its errors.
pub(in crate::http) const ERRORS: &[&[ErrorKind]] = &[BODY_ERRORS, &[error::NOT_FOUND]];

/// How long a text of the handler about an error is, in bytes; they are sentences.
const MAX_ERROR_BYTES: usize = 4096;

/// The schema of a message.
pub(in crate::http) fn message(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({ "type": "object", "required": ["jsonrpc"] })
}

/// Passes a request of an MCP client to the handler.
pub(in crate::http) async fn serve(
    Extension(service): Extension<Option<McpService>>,
    request: Request,
) -> Response {
    let Some(service) = service else {
        // A tool does not call another one.
        return ApiError::new(error::NOT_FOUND, "The tools of /mcp are not available here.").into_response();
    };
    let response = service.oneshot(request).await.unwrap_or_else(|error| match error {});
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let is_json = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    if response.status().is_success() || is_json {
        return response;
    }
    let kind = match response.status() {
        StatusCode::NOT_FOUND => error::NOT_FOUND,
        StatusCode::PAYLOAD_TOO_LARGE => error::TOO_LARGE,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => error::UNSUPPORTED,
        status if status.is_server_error() => error::INTERNAL,
        _ => error::BAD_REQUEST,
    };
    let text = to_bytes(response.into_body(), MAX_ERROR_BYTES).await.unwrap_or_default();
    ApiError::new(kind, String::from_utf8_lossy(&text)).into_response()
}
