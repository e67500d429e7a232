//! An HTTP client that checks in every response what holds for all responses of codexd.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::wait::DEADLINE;

/// An HTTP server: a daemon, or the base URL of one.
pub(crate) trait Target {
    /// The base URL, such as `http://127.0.0.1:4319`, without a slash at the end.
    fn base_url(&self) -> &str;

    /// Host and port.
    fn authority(&self) -> &str {
        let base = self.base_url();
        base.strip_prefix("http://").unwrap_or_else(|| panic!("the base URL {base} is not http"))
    }
}

impl Target for str {
    fn base_url(&self) -> &str {
        self
    }
}

/// A response that has passed the check of what holds for all responses.
#[derive(Debug)]
pub(crate) struct ApiResponse {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    /// The parsed body; null for a response to HEAD.
    pub(crate) json: Value,
}

impl ApiResponse {
    /// Asserts a success with this status; returns its `data`.
    pub(crate) fn data(&self, status: u16) -> &Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json.get("data").unwrap_or_else(|| panic!("no data in {}", self.text))
    }

    /// Asserts a failure with this status and code; returns its message.
    pub(crate) fn error(&self, status: u16, code: &str) -> &str {
        assert_eq!((self.status, self.json["error"].as_str()), (status, Some(code)), "{}", self.text);
        self.json["message"].as_str().unwrap()
    }
}

/// Sends a GET.
pub(crate) async fn get(target: &(impl Target + ?Sized), path: &str) -> ApiResponse {
    request(target, Method::GET, path, &[], Bytes::new()).await
}

/// Sends a POST with a JSON body.
pub(crate) async fn post(target: &(impl Target + ?Sized), path: &str, body: &Value) -> ApiResponse {
    request(target, Method::POST, path, &[("content-type", "application/json")], body.to_string()).await
}

/// Sends any request whose response is JSON, on a new connection; adds `host` if the headers do not contain it.
pub(crate) async fn request(
    target: &(impl Target + ?Sized),
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> ApiResponse {
    let what = format!("an answer to {method} {path}");
    let mut answer = exchange(target, method.clone(), path, headers, body).await;
    if method != Method::HEAD {
        answer.json = parse(&what, &answer.text);
    }
    check(&what, &method, &answer);
    answer
}

/// Sends a GET whose response is a text of this content type; returns the text.
pub(crate) async fn get_text(
    target: &(impl Target + ?Sized),
    path: &str,
    headers: &[(&str, &str)],
    content_type: &str,
) -> String {
    let answer = exchange(target, Method::GET, path, headers, Bytes::new()).await;
    let header = |name| answer.headers.get(name).and_then(|value| value.to_str().ok());
    assert_eq!((answer.status, header(CONTENT_TYPE)), (200, Some(content_type)), "{}", answer.text);
    assert_eq!(header(CACHE_CONTROL), Some("no-store"));
    answer.text
}

/// Sends any request; returns the response without parsing or checking it.
async fn exchange(
    target: &(impl Target + ?Sized),
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> ApiResponse {
    let mut request = Request::builder().method(&method).uri(path);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(HOST.as_str())) {
        request = request.header(HOST, target.authority());
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).unwrap();
    let what = format!("an answer to {method} {path}");
    before_deadline(&what, async {
        let stream = connect(target).await;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        // The connection ends with its sender.
        tokio::spawn(connection);
        let response =
            sender.send_request(request).await.unwrap_or_else(|error| panic!("no {what}: {error}"));
        let (parts, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .unwrap_or_else(|error| panic!("an incomplete body in {what}: {error}"))
            .to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        ApiResponse { status: parts.status.as_u16(), headers: parts.headers, text, json: Value::Null }
    })
    .await
}

/// Sends these bytes and returns everything that the server sends until it closes the connection.
///
/// A valid request keeps the connection open, so the last one needs `Connection: close`.
pub(crate) async fn raw(target: &(impl Target + ?Sized), bytes: &[u8]) -> String {
    let mut received = Vec::new();
    let read = async {
        let mut stream = connect(target).await;
        // A server that rejects a request early may close before it has read all of it; its response is still read.
        let _ = stream.write_all(bytes).await;
        let _ = stream.read_to_end(&mut received).await;
    };
    let in_time = tokio::time::timeout(DEADLINE, read).await;
    let text = String::from_utf8_lossy(&received).into_owned();
    assert!(in_time.is_ok(), "the connection is still open after {} s; so far: {text:?}", DEADLINE.as_secs());
    text
}

async fn connect(target: &(impl Target + ?Sized)) -> TcpStream {
    let authority = target.authority();
    TcpStream::connect(authority)
        .await
        .unwrap_or_else(|error| panic!("no connection to {authority}: {error}"))
}

async fn before_deadline<T>(what: &str, future: impl Future<Output = T>) -> T {
    let seconds = DEADLINE.as_secs();
    tokio::time::timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("timed out after {seconds} s waiting for {what}"))
}

fn parse(what: &str, text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{what} is not JSON: {error}: {text:?}"))
}

/// Checks what holds for every response, errors included.
fn check(what: &str, method: &Method, answer: &ApiResponse) {
    let ApiResponse { status, headers, text, json } = answer;
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    assert_eq!(
        header(CONTENT_TYPE),
        Some("application/json; charset=utf-8"),
        "content-type of {what}: {text}"
    );
    assert_eq!(header(CACHE_CONTROL), Some("no-store"), "cache-control of {what}: {text}");
    if method == Method::HEAD {
        return;
    }
    let pretty = serde_json::to_string_pretty(json).unwrap() + "\n";
    assert_eq!(*text, pretty, "{what} is not printed with two spaces and a final newline");
    let success = (200..300).contains(status);
    assert_eq!(json["ok"], Value::Bool(success), "`ok` of {what}, status {status}: {text}");
    if !success {
        assert!(json["error"].is_string() && json["message"].is_string(), "the error in {what}: {text}");
    }
}
