//! Sends requests as exact bytes, and parses every response on the connection.
//!
//! The clients in `support` send well-formed requests only; this one also sends malformed ones, and counts
//! the responses.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::http::Target;
use crate::support::wait::DEADLINE;

/// The number of connections that a table of requests opens at once.
const MAX_CONNECTIONS: usize = 16;

/// The number of characters of a body that a failure prints.
const PRINTED_CHARACTERS: usize = 200;

/// A parsed response.
#[derive(Debug, Clone)]
pub(super) struct HttpResponse {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl HttpResponse {
    /// All values of a header, in the order of the response.
    pub(super) fn headers(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// The headers whose names have this prefix.
    pub(super) fn headers_with_prefix(&self, prefix: &str) -> Vec<&(String, String)> {
        let prefix = prefix.to_ascii_lowercase();
        self.headers.iter().filter(|(name, _)| name.to_ascii_lowercase().starts_with(&prefix)).collect()
    }

    /// Checks that the HTTP parser refused the request: a status without a body, and the connection is closed.
    pub(super) fn check_unparsed(&self, status: u16) -> Result<(), String> {
        match (self.status == status && self.body.is_empty(), self.headers("connection").as_slice()) {
            (true, ["close"]) => Ok(()),
            (true, other) => Err(format!("the Connection header is {other:?} instead of close")),
            (false, _) => Err(self.unexpected_status(status)),
        }
    }

    /// Checks that this is an error response with this status and code, in the format of all error responses.
    pub(super) fn check_error(&self, status: u16, code: &str) -> Result<(), String> {
        if self.status != status {
            return Err(self.unexpected_status(status));
        }
        for (name, value) in
            [("content-type", "application/json; charset=utf-8"), ("cache-control", "no-store")]
        {
            if self.headers(name) != [value] {
                return Err(format!("{name} is {:?}", self.headers(name)));
            }
        }
        let json: Value =
            serde_json::from_str(&self.body).map_err(|error| format!("{error}: {:?}", self.body))?;
        if self.body != serde_json::to_string_pretty(&json).unwrap() + "\n" {
            return Err(format!("the JSON is not formatted like other responses: {:?}", self.body));
        }
        let message = json["message"].as_str().unwrap_or_default();
        if json["ok"] != false || json["error"] != code || !message.ends_with('.') {
            return Err(format!("this is not a {code} error with a sentence: {:?}", self.body));
        }
        Ok(())
    }

    /// Checks the status; with a code, checks that this is an error response in the common format.
    pub(super) fn check(&self, status: u16, code: Option<&str>) -> Result<(), String> {
        match code {
            Some(code) => self.check_error(status, code),
            None if self.status == status => Ok(()),
            None => Err(self.unexpected_status(status)),
        }
    }

    fn unexpected_status(&self, status: u16) -> String {
        let body: String = self.body.chars().take(PRINTED_CHARACTERS).collect();
        format!("{} instead of {status}: {body:?}", self.status)
    }
}

/// A request from its request line without the version, its header lines without line ends, and its body.
pub(super) fn request(line: &str, headers: &[impl AsRef<[u8]>], body: &str) -> Vec<u8> {
    let mut bytes = format!("{line} HTTP/1.1\r\n").into_bytes();
    for header in headers {
        bytes.extend_from_slice(header.as_ref());
        bytes.extend_from_slice(b"\r\n");
    }
    if !body.is_empty() {
        bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body.as_bytes());
    bytes
}

/// The header lines of a valid WebSocket handshake, without Host.
pub(super) const HANDSHAKE: [&str; 4] = [
    "connection: Upgrade",
    "upgrade: websocket",
    "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
];

/// Sends these bytes on a new connection; returns the first response.
pub(super) async fn first_response(address: &str, bytes: &[u8]) -> Result<HttpResponse, String> {
    let mut received = Received::of(bytes);
    received.exchange(address, bytes, |responses| !responses.is_empty()).await?;
    let first = received.responses()?.into_iter().next();
    first.ok_or_else(|| format!("no response, only {:?}", received.text()))
}

/// Asserts that there are no failures; prints all of them.
pub(super) fn assert_no_failures(failures: &[String]) {
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}

/// The name and the bytes of a request in a table.
pub(super) type NamedRequest = (String, Vec<u8>);

/// Sends each row on a new connection; returns the first responses, in the order of the rows.
pub(super) async fn first_responses(
    target: &(impl Target + ?Sized),
    rows: &[NamedRequest],
) -> Vec<Result<HttpResponse, String>> {
    let one = async |address: String, bytes: Vec<u8>| first_response(&address, &bytes).await;
    send_concurrently(target, rows, one).await
}

/// Sends each row on a new connection, which stays open until the server closes it; returns all responses, in the order
/// of the rows.
pub(super) async fn all_responses(
    target: &(impl Target + ?Sized),
    rows: &[NamedRequest],
) -> Vec<Result<Vec<HttpResponse>, String>> {
    let one = async |address: String, bytes: Vec<u8>| {
        let mut received = Received::of(&bytes);
        received.exchange(&address, &bytes, |_| false).await?;
        match received.parsed()? {
            (responses, b"") => Ok(responses),
            (responses, rest) => {
                Err(format!("after {} responses: {:?}", responses.len(), String::from_utf8_lossy(rest)))
            }
        }
    };
    send_concurrently(target, rows, one).await
}

async fn send_concurrently<T: Send + 'static, F>(
    target: &(impl Target + ?Sized),
    rows: &[NamedRequest],
    send: impl Fn(String, Vec<u8>) -> F,
) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
{
    let mut responses = Vec::new();
    for chunk in rows.chunks(MAX_CONNECTIONS) {
        let mut tasks = JoinSet::new();
        for (index, (_, bytes)) in chunk.iter().enumerate() {
            let response = send(target.authority().to_owned(), bytes.clone());
            tasks.spawn(async move { (index, response.await) });
        }
        let mut finished = tasks.join_all().await;
        finished.sort_by_key(|(index, _)| *index);
        responses.extend(finished.into_iter().map(|(_, response)| response));
    }
    responses
}

/// The bytes that were received on a connection so far.
struct Received {
    bytes: Vec<u8>,
    /// Whether the first request was a HEAD, whose response has no body in spite of its content length.
    is_head: bool,
}

impl Received {
    fn of(request: &[u8]) -> Self {
        Self { bytes: Vec::new(), is_head: request.starts_with(b"HEAD ") }
    }

    /// Sends and receives concurrently, until the server closes the connection or `is_enough` returns true.
    async fn exchange(
        &mut self,
        address: &str,
        bytes: &[u8],
        is_enough: impl Fn(&[HttpResponse]) -> bool,
    ) -> Result<(), String> {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
        let (mut from, mut to) = stream.into_split();
        let write = async {
            // A server that refuses a request early may close the connection before it has read all of it.
            let _ = to.write_all(bytes).await;
            std::future::pending::<()>().await;
        };
        let read = async {
            let mut chunk = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = from.read(&mut chunk).await {
                self.bytes.extend_from_slice(&chunk[..count]);
                if self.responses().is_ok_and(|responses| is_enough(&responses)) {
                    return;
                }
            }
        };
        let done = async {
            tokio::select! {
                () = read => {}
                () = write => {}
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, done).await;
        in_time.map_err(|_| {
            let text = String::from_utf8_lossy(&self.bytes);
            format!("the connection is still open after {} s; received: {text:?}", DEADLINE.as_secs())
        })
    }

    fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }

    /// All complete responses so far; an error when the bytes are no HTTP response.
    fn responses(&self) -> Result<Vec<HttpResponse>, String> {
        self.parsed().map(|(responses, _)| responses)
    }

    /// All complete responses, and the bytes after the last one.
    fn parsed(&self) -> Result<(Vec<HttpResponse>, &[u8]), String> {
        let mut responses = Vec::new();
        let mut rest = self.bytes.as_slice();
        while let Some(end) = memchr::memmem::find(rest, b"\r\n\r\n") {
            let (mut response, length) = head(&rest[..end])?;
            let body = &rest[end + 4..];
            let is_bodiless = matches!(response.status, 101 | 204) || (self.is_head && responses.is_empty());
            let length = if is_bodiless { 0 } else { length };
            let Some(whole) = body.get(..length) else { break };
            response.body = String::from_utf8_lossy(whole).into_owned();
            rest = &body[length..];
            let is_upgraded = response.status == 101;
            responses.push(response);
            if is_upgraded {
                // The bytes that follow are not HTTP.
                rest = b"";
            }
        }
        Ok((responses, rest))
    }
}

/// Parses the head of a response; returns it with the length of the body.
fn head(bytes: &[u8]) -> Result<(HttpResponse, usize), String> {
    let text = String::from_utf8_lossy(bytes);
    let malformed = || format!("not an HTTP response: {text:?}");
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    // The response to an HTTP/1.0 request has that version.
    let first = first.strip_prefix("HTTP/1.1 ").or(first.strip_prefix("HTTP/1.0 "));
    let status = first.and_then(|line| line.get(..3));
    let status = status.and_then(|status| status.parse().ok()).ok_or_else(malformed)?;
    let headers = lines.map(|line| line.split_once(':').ok_or_else(malformed));
    let headers = headers.map(|pair| pair.map(|(name, value)| (name.to_owned(), value.trim().to_owned())));
    let headers = headers.collect::<Result<Vec<_>, _>>()?;
    let response = HttpResponse { status, headers, body: String::new() };
    let length = response.headers("content-length").first().map_or(Ok(0), |length| length.parse());
    Ok((response, length.map_err(|_| malformed())?))
}
