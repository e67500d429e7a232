//! The server side of the WebSocket handshake (RFC 6455 section 4.2). Stateless; called by the event stream, and by the
//! guard to find a token in the subprotocols.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::error::{self, ApiError};
use crate::http::auth::token::{SUBPROTOCOL, subprotocols};

/// Whether the request is a WebSocket handshake.
pub(super) fn is_requested(headers: &HeaderMap) -> bool {
    has_token(headers, header::UPGRADE, "websocket")
}

/// Accepts the handshake: returns the response, and the connection that is ready once the response was sent.
pub(super) fn accept(mut request: Request) -> Result<(Response, OnUpgrade), ApiError> {
    let headers = request.headers();
    if request.method() != Method::GET || !has_token(headers, header::CONNECTION, "upgrade") {
        return Err(ApiError::bad_request("A WebSocket is opened by a GET with \"Connection: Upgrade\"."));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(ApiError::new(error::UPGRADE_REQUIRED, "codexd supports WebSocket version 13 only."));
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
        return Err(ApiError::bad_request("A WebSocket handshake needs the header Sec-WebSocket-Key."));
    };
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| ApiError::bad_request("The header Sec-WebSocket-Key is invalid."))?;
    let offers_codexd = subprotocols(headers).any(|offered| offered == SUBPROTOCOL);
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return Err(ApiError::bad_request("This connection cannot become a WebSocket; use HTTP/1.1."));
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if offers_codexd {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    Ok((response, upgrade))
}

/// Whether a header with a list of tokens contains `token`, ignoring case.
fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}
