//! Requests to a daemon that may end at any moment.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
pub(crate) use hyper::Method;
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::support::http::Target;

/// How long a response may take; the longest wait that a request asks for is much shorter.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// A response with its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) json: Value,
}

/// Why there is no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The connection ended or could not be made.
    Disconnected,
    /// No complete response arrived within [`RESPONSE_TIMEOUT`].
    TimedOut,
}

/// Sends a request on a new connection. Text that is not JSON, as of `/metrics`, is a JSON string.
pub(crate) async fn call(
    base: &str,
    method: Method,
    path: &str,
    key: Option<&str>,
    body: &str,
) -> Result<Answer, NoAnswer> {
    let answer = async {
        let stream = TcpStream::connect(base.authority()).await.ok()?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", base.authority());
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).ok()?;
        let (parts, body) = sender.send_request(request).await.ok()?.into_parts();
        let bytes = body.collect().await.ok()?.to_bytes();
        let text = || Value::from(String::from_utf8_lossy(&bytes).into_owned());
        let json = serde_json::from_slice(&bytes).unwrap_or_else(|_| text());
        Some(Answer { status: parts.status.as_u16(), json })
    };
    match tokio::time::timeout(RESPONSE_TIMEOUT, answer).await {
        Ok(answer) => answer.ok_or(NoAnswer::Disconnected),
        Err(_) => Err(NoAnswer::TimedOut),
    }
}
