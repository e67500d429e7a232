//! Asking the running daemon.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::config::LocalApiBase;
use crate::http::{Peer, peer_of, read_token};

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is looked who has accepted the connection.
const LOOK: Duration = Duration::from_millis(2);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody listens there.
    #[error("nothing listens at {address}: {source}")]
    Unreachable { address: String, source: std::io::Error },
    /// Somebody listens and does not answer as codexd does.
    #[error("what listens at {address} does not answer as codexd does: {reason}")]
    NotCodexd { address: String, reason: String },
    /// The token file cannot be used.
    #[error("the token file cannot be used: {0}")]
    Token(std::io::Error),
    /// The daemon refused.
    #[error("{0}")]
    Refused(String),
}

/// Sends a request to the daemon at `base`, with the token of the file if there is one; answers with the `data` of its
/// envelope.
pub(crate) async fn ask(
    base: &LocalApiBase,
    token_file: Option<&Path>,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Value, ClientError> {
    let address = base.socket_address();
    let token = token_file.map(read_token).transpose().map_err(ClientError::Token)?;
    let unreachable = |source| ClientError::Unreachable { address: base.to_string(), source };
    let strange = |reason: String| ClientError::NotCodexd { address: base.to_string(), reason };
    let asking = async {
        let stream = TcpStream::connect(address).await.map_err(unreachable)?;
        if token.is_some() {
            see_who_listens(&stream, address).await.map_err(strange)?;
        }
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| strange(error.to_string()))?;
        let connection = tokio::spawn(connection);
        let mut request = Request::builder();
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request
            .method(method)
            .uri(path)
            .header(header::HOST, address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.map(Value::to_string).unwrap_or_default()))
            .map_err(|error| strange(error.to_string()))?;
        let answer = sender.send_request(request).await.map_err(|error| strange(error.to_string()))?;
        let body = answer.into_body().collect().await.map_err(|error| strange(error.to_string()))?;
        connection.abort();
        let answer: Value =
            serde_json::from_slice(&body.to_bytes()).map_err(|error| strange(error.to_string()))?;
        match answer.get("ok") {
            Some(Value::Bool(true)) => Ok(answer.get("data").cloned().unwrap_or(answer)),
            Some(Value::Bool(false)) => {
                let message = answer.get("message").and_then(Value::as_str).unwrap_or("it did not say why");
                Err(ClientError::Refused(message.to_owned()))
            }
            _ => Err(strange("its answer has no \"ok\"".to_owned())),
        }
    };
    let late = || strange(format!("no answer within {} s", PATIENCE.as_secs()));
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err(late()))
}

/// Waits until the connection is held by our own user or by root; whoever took the address before codexd would be given
/// the token.
async fn see_who_listens(stream: &TcpStream, address: SocketAddr) -> Result<(), String> {
    let Ok(ours) = stream.local_addr() else { return Ok(()) };
    loop {
        match peer_of(address, ours) {
            Peer::Ours | Peer::Unknown(_) => return Ok(()),
            Peer::Foreign(why) => return Err(why),
            // It is not accepted yet.
            Peer::Nobody => tokio::time::sleep(LOOK).await,
        }
    }
}
