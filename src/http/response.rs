//! Renders responses: pretty-printed JSON, or text for some routes; never cacheable. Stateless; called by all handlers
//! and by `error`.

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

/// The media type of JSON responses.
const JSON_CONTENT_TYPE: &str = "application/json; charset=utf-8";
/// The body of the response when serialization fails.
const SERIALIZATION_FAILURE: &[u8] = br#"{
  "ok": false,
  "error": "internal_error",
  "message": "Failed to serialize the response."
}"#;

/// The shape of all successful responses that are not flat.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "{D}Envelope")]
pub(super) struct Envelope<D> {
    #[schemars(extend("const" = true))]
    ok: bool,
    data: D,
}

impl<D> Envelope<D> {
    pub(super) fn new(data: D) -> Self {
        Self { ok: true, data }
    }
}

/// `{"ok": true, "data": …}`.
pub(super) fn data(status: StatusCode, data: impl Serialize) -> Response {
    json(status, &Envelope::new(data))
}

/// The maximum number of names in [`IGNORED_HEADER`]; the body has all of them.
const MAX_IGNORED_NAMES: usize = 32;
/// Lists the fields of the request body that were ignored.
const IGNORED_HEADER: &str = "codexd-ignored";

/// Adds [`IGNORED_HEADER`] if fields were ignored; characters that a header cannot hold become `?`.
pub(super) fn with_ignored_header(mut response: Response, ignored: &[String]) -> Response {
    let visible = |name: &String| -> String {
        let char = |char: char| if char.is_ascii_graphic() && char != ',' { char } else { '?' };
        name.chars().take(100).map(char).collect()
    };
    let names: Vec<_> = ignored.iter().take(MAX_IGNORED_NAMES).map(visible).collect();
    if !names.is_empty()
        && let Ok(value) = HeaderValue::from_str(&names.join(", "))
    {
        response.headers_mut().insert(IGNORED_HEADER, value);
    }
    response
}

/// `None` for an empty list, so that the response omits it.
pub(super) fn non_empty(ignored: Vec<String>) -> Option<Vec<String>> {
    (!ignored.is_empty()).then_some(ignored)
}

/// A JSON response, indented by two spaces, with a final newline.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let (status, text) = render(status, value);
    json_body(status, Body::from(text))
}

/// A response with JSON that is rendered already.
pub(super) fn json_body(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON_CONTENT_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A text response of this media type.
pub(super) fn text(content_type: &'static str, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A failure as raw HTTP bytes, for a connection without an HTTP parser.
pub(super) fn raw_response(status: StatusCode, retry_after: Option<u64>, value: &impl Serialize) -> Bytes {
    let (status, text) = render(status, value);
    let retry_after = retry_after.map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {JSON_CONTENT_TYPE}\r\ncache-control: no-store\r\n{retry_after}connection: close\r\n\
         content-length: {}\r\n\r\n",
        text.len()
    );
    [head.into_bytes(), text].concat().into()
}

/// Renders indented JSON with a final newline.
pub(super) fn render(status: StatusCode, value: &impl Serialize) -> (StatusCode, Vec<u8>) {
    let (status, mut text) = match serde_json::to_vec_pretty(value) {
        Ok(text) => (status, text),
        Err(error) => {
            tracing::error!(%error, "failed to serialize a response");
            (StatusCode::INTERNAL_SERVER_ERROR, SERIALIZATION_FAILURE.to_vec())
        }
    };
    text.push(b'\n');
    (status, text)
}
