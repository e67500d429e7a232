//! How every answer looks: JSON, pretty-printed, or where a route says so a text; never cached.

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

/// What every answer is.
const JSON_CONTENT_TYPE: &str = "application/json; charset=utf-8";
/// What is said when an answer cannot be put into JSON.
const SERIALIZATION_FAILURE: &[u8] = br#"{
  "ok": false,
  "error": "internal_error",
  "message": "The answer could not be put into JSON."
}"#;

/// How the answers look that are not flat.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
pub(super) struct Envelope<D> {
    #[schemars(extend("const" = true))]
    ok: bool,
    data: D,
}

/// `{"ok": true, "data": …}`.
pub(super) fn data(status: StatusCode, data: impl Serialize) -> Response {
    json(status, &Envelope { ok: true, data })
}

/// How many names the header [`IGNORED_HEADER`] has at most; the body has all of them.
const MAX_IGNORED_NAMES: usize = 32;
/// Names the fields of the request's body that were ignored.
const IGNORED_HEADER: &str = "codexd-ignored";

/// Names the fields that were ignored, where there are any; of what a header cannot hold `?` is left.
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

/// The list as it stands in an answer: absent when it is empty.
pub(super) fn non_empty(ignored: Vec<String>) -> Option<Vec<String>> {
    (!ignored.is_empty()).then_some(ignored)
}

/// Any value, with two spaces of indentation and a final newline.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let (status, text) = render(status, value);
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON_CONTENT_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A text of this kind.
pub(super) fn text(kind: &'static str, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A failure as the bytes of a last answer, for a connection that has no HTTP parser or none any more.
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

fn render(status: StatusCode, value: &impl Serialize) -> (StatusCode, Vec<u8>) {
    let (status, mut text) = match serde_json::to_vec_pretty(value) {
        Ok(text) => (status, text),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be put into JSON");
            (StatusCode::INTERNAL_SERVER_ERROR, SERIALIZATION_FAILURE.to_vec())
        }
    };
    text.push(b'\n');
    (status, text)
}
