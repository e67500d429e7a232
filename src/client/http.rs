//! One request to the daemon and its response.
//!
//! [`DaemonClient`] holds the address and the token file. The token is read for every request, and sent only after the
//! peer was checked: a process of another user that took the address must not get it.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt;
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::token::ClientToken;
use crate::config::{AUTH_TOKEN_NAME, LocalApiBase, ServiceConfig};
use crate::http::{Peer, peer_of};

/// Timeout of a request that the daemon answers by itself.
pub(super) const STATUS_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout of a request that may call the app-server, which the daemon limits to 30 s by default.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How often to check which process accepted the connection.
const PEER_POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nothing listens at the address.
    #[error("nothing listens at {address}: {source}")]
    Unreachable { address: String, source: std::io::Error },
    /// The server at the address is not codexd.
    #[error("the server at {address} does not respond like codexd: {reason}")]
    NotCodexd { address: String, reason: String },
    /// The token file cannot be used.
    #[error("the token file cannot be used: {0}")]
    Token(std::io::Error),
    /// The daemon returned an error: its code, message and details.
    #[error("{message}")]
    Refused { code: String, message: String, details: Value },
}

impl ClientError {
    /// The error code of the daemon; empty for any other failure.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Refused { code, .. } => code,
            _ => "",
        }
    }
}

/// Responds to a request of this process, without a connection and without the token.
pub(crate) type LocalService =
    dyn Fn(Request<Body>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> + Send + Sync;

/// How requests reach the daemon.
#[derive(Clone)]
enum Transport {
    /// By a connection to its address.
    Tcp,
    /// By a call: the daemon is this process.
    Local(Arc<LocalService>),
}

impl fmt::Debug for Transport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "Tcp",
            Self::Local(_) => "Local",
        })
    }
}

/// The address of the daemon and the token file.
#[derive(Debug, Clone)]
pub(crate) struct DaemonClient {
    base: LocalApiBase,
    transport: Transport,
    pub(super) event_stream_path: String,
    token: ClientToken,
    /// Called with one sentence when a response has something that its receiver should know.
    on_warning: fn(&str),
}

impl DaemonClient {
    /// A client of the daemon that has these settings.
    pub(crate) fn new(service: &ServiceConfig, on_warning: fn(&str)) -> Self {
        Self {
            base: service.local_api_base.clone(),
            transport: Transport::Tcp,
            event_stream_path: service.event_stream_path.clone(),
            token: ClientToken::new(service),
            on_warning,
        }
    }

    /// The same client at the address where the daemon really listens.
    pub(crate) fn at(self, base: LocalApiBase) -> Self {
        Self { base, ..self }
    }

    /// The same client in the process of the daemon, whose requests go to `service`.
    pub(crate) fn local(self, service: Arc<LocalService>) -> Self {
        Self { transport: Transport::Local(service), ..self }
    }

    /// The address of the daemon.
    pub(crate) fn address(&self) -> String {
        self.base.to_string()
    }

    /// The same client of a daemon with this state directory, where its token may be.
    pub(crate) fn with_state_dir(self, state_dir: &Path) -> Self {
        let token = self.token.with_default(Some(state_dir.join(AUTH_TOKEN_NAME)));
        Self { token, ..self }
    }

    /// The file with the token: a named one, or after a request that needed it the default one.
    pub(crate) fn token_file(&self) -> Option<&Path> {
        self.token.file()
    }

    /// The status of the daemon, with a timeout of 5 s.
    pub(crate) async fn status(&self) -> Result<Value, ClientError> {
        self.request(STATUS_TIMEOUT, Method::GET, "/v1/codexd/status", None).await
    }

    /// GET; returns the `data` of the response.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.request(REQUEST_TIMEOUT, Method::GET, path, None).await
    }

    /// POST with a JSON body; returns the `data` of the response.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.request(REQUEST_TIMEOUT, Method::POST, path, Some(body)).await
    }

    /// PATCH with a JSON body; returns the `data` of the response.
    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.request(REQUEST_TIMEOUT, Method::PATCH, path, Some(body)).await
    }

    /// POST whose response may take this many seconds longer than others.
    pub(crate) async fn post_for(
        &self,
        seconds: u64,
        path: &str,
        body: &Value,
    ) -> Result<Value, ClientError> {
        let limit = REQUEST_TIMEOUT + Duration::from_secs(seconds);
        self.request(limit, Method::POST, path, Some(body)).await
    }

    /// DELETE; returns the `data` of the response.
    pub(crate) async fn delete(&self, path: &str) -> Result<Value, ClientError> {
        self.request(REQUEST_TIMEOUT, Method::DELETE, path, None).await
    }

    async fn request(
        &self,
        limit: Duration,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let exchange = async {
            let response = self.send(method, path, None, body).await?;
            self.data(response).await
        };
        let timed_out = || self.not_codexd(format!("no response within {} s", limit.as_secs()));
        tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| Err(timed_out()))
    }

    /// Sends a request, and once more with the default token if the daemon needs one and no setting names it.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        accept: Option<&'static str>,
        body: Option<&Value>,
    ) -> Result<Response<Body>, ClientError> {
        let response = self.send_once(method.clone(), path, accept, body).await?;
        match response.status() == StatusCode::UNAUTHORIZED && self.token.use_default() {
            true => self.send_once(method, path, accept, body).await,
            false => Ok(response),
        }
    }

    async fn send_once(
        &self,
        method: Method,
        path: &str,
        accept: Option<&'static str>,
        body: Option<&Value>,
    ) -> Result<Response<Body>, ClientError> {
        let address = self.base.socket_address();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.map(Value::to_string).unwrap_or_default()))
            .map_err(|error| self.not_codexd(error.to_string()))?;
        if let Some(accept) = accept {
            request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(accept));
        }
        match &self.transport {
            Transport::Tcp => self.send_to(address, request).await,
            Transport::Local(service) => Ok(service(request).await),
        }
    }

    /// Sends a request on a new connection, with the token if there is a token file.
    async fn send_to(
        &self,
        address: SocketAddr,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, ClientError> {
        let token = self.token.read().map_err(ClientError::Token)?;
        let unreachable = |source| ClientError::Unreachable { address: self.base.to_string(), source };
        let stream = TcpStream::connect(address).await.map_err(unreachable)?;
        if token.is_some() {
            verify_peer(&stream, address).await.map_err(|reason| self.not_codexd(reason))?;
        }
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.not_codexd(error.to_string()))?;
        // The task ends with the response, or when the response is dropped.
        tokio::spawn(connection);
        if let Some(token) = token {
            let bearer = HeaderValue::try_from(format!("Bearer {token}"));
            let bearer = bearer.map_err(|error| self.not_codexd(error.to_string()))?;
            request.headers_mut().insert(header::AUTHORIZATION, bearer);
        }
        let response = sender.send_request(request).await;
        response.map(|response| response.map(Body::new)).map_err(|error| self.not_codexd(error.to_string()))
    }

    /// Extracts `data` from the response envelope.
    pub(super) async fn data(&self, response: Response<Body>) -> Result<Value, ClientError> {
        let body =
            response.into_body().collect().await.map_err(|error| self.not_codexd(error.to_string()))?;
        let response: Value =
            serde_json::from_slice(&body.to_bytes()).map_err(|error| self.not_codexd(error.to_string()))?;
        match response.get("ok") {
            Some(Value::Bool(true)) => {
                let data = response.get("data").cloned().unwrap_or(response);
                let ignored = data["ignored"].as_array().into_iter().flatten().filter_map(Value::as_str);
                let ignored: Vec<_> = ignored.collect();
                if !ignored.is_empty() {
                    (self.on_warning)(&format!(
                        "The daemon does not know these fields, and ignored them: {}",
                        ignored.join(", ")
                    ));
                }
                Ok(data)
            }
            Some(Value::Bool(false)) => {
                let code = response["error"].as_str().unwrap_or_default();
                let message = match code {
                    "unauthorized" => self.token.rejected(),
                    _ => response["message"].as_str().unwrap_or("no reason given").to_owned(),
                };
                let details = response["details"].clone();
                Err(ClientError::Refused { code: code.to_owned(), message, details })
            }
            _ => Err(self.not_codexd("the response has no \"ok\"".to_owned())),
        }
    }

    pub(super) fn not_codexd(&self, reason: String) -> ClientError {
        ClientError::NotCodexd { address: self.base.to_string(), reason }
    }
}

/// Waits until a process of the same user or of root has accepted the connection; another one would get the token.
async fn verify_peer(stream: &TcpStream, address: SocketAddr) -> Result<(), String> {
    let Ok(local_address) = stream.local_addr() else { return Ok(()) };
    loop {
        match peer_of(address, local_address).await {
            Peer::Trusted | Peer::Unknown(_) => return Ok(()),
            Peer::User { uid, .. } => return Err(format!("it belongs to user {uid}")),
            Peer::Foreign(reason) => return Err(reason),
            // The connection is not accepted yet.
            Peer::Unowned => tokio::time::sleep(PEER_POLL_INTERVAL).await,
        }
    }
}

/// Percent-encodes a component of a path or query.
pub(crate) fn percent_encode(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}
