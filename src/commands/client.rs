//! Asking the running daemon: one answer at a time here, the event stream in `events`.

mod events;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::terminal::harmless;
use super::{Failure, output};
use crate::config::{Config, LocalApiBase};
use crate::http::{Peer, peer_of, read_token};

pub(crate) use events::{EventStream, Filter, Heard, newest};

/// How long the daemon may take to say how it is.
const SHORT: Duration = Duration::from_secs(5);
/// How long it may take where it asks the app-server first, which it gives up after 30 s itself.
const LONG: Duration = Duration::from_secs(60);
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
    /// The daemon refused: its code, its sentence, and what it said besides.
    #[error("{message}")]
    Refused { code: String, message: String, details: Value },
}

impl ClientError {
    /// The code of a refusal; empty when it is none.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Refused { code, .. } => code,
            _ => "",
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let sentence = harmless(&error.to_string());
        match error {
            ClientError::Unreachable { .. } | ClientError::NotCodexd { .. } => Self {
                code: super::NOBODY,
                message: format!("No codexd answers, {sentence}; start it with \"codexd start\"."),
            },
            ClientError::Token(_) => Self::new(format!("{}.", capital(&sentence))),
            ClientError::Refused { .. } => Self::new(sentence),
        }
    }
}

fn capital(sentence: &str) -> String {
    let mut rest = sentence.chars();
    rest.next().map_or_else(String::new, |first| first.to_uppercase().chain(rest).collect())
}

/// Where the daemon is, and how to be let in.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    base: LocalApiBase,
    event_stream_path: String,
    token_file: Option<PathBuf>,
}

impl Client {
    /// A client of the daemon that has these settings.
    pub(crate) fn new(config: &Config) -> Self {
        let service = &config.service;
        Self {
            base: service.local_api_base.clone(),
            event_stream_path: service.event_stream_path.clone(),
            token_file: service.auth_token_file.clone(),
        }
    }

    /// The same daemon at the address where it really listens.
    pub(crate) fn at(self, base: LocalApiBase) -> Self {
        Self { base, ..self }
    }

    /// Everything as it is now; the daemon has 5 s to say it.
    pub(crate) async fn status(&self) -> Result<Value, ClientError> {
        self.ask_within(SHORT, Method::GET, "/v1/codexd/status", None).await
    }

    /// GET; the `data` of the answer.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.ask_within(LONG, Method::GET, path, None).await
    }

    /// POST of a JSON body; the `data` of the answer.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.ask_within(LONG, Method::POST, path, Some(body)).await
    }

    /// DELETE; the `data` of the answer.
    pub(crate) async fn delete(&self, path: &str) -> Result<Value, ClientError> {
        self.ask_within(LONG, Method::DELETE, path, None).await
    }

    async fn ask_within(
        &self,
        patience: Duration,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let asking = async {
            let answer = self.send(method, path, None, body).await?;
            self.data(answer).await
        };
        let late = || self.strange(format!("no answer within {} s", patience.as_secs()));
        tokio::time::timeout(patience, asking).await.unwrap_or_else(|_| Err(late()))
    }

    /// Sends a request on a connection of its own, with the token of the file if there is one; what the answer is about
    /// is the caller's to see.
    async fn send(
        &self,
        method: Method,
        path: &str,
        accept: Option<&'static str>,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, ClientError> {
        let address = self.base.socket_address();
        let token = self.token_file.as_deref().map(read_token).transpose().map_err(ClientError::Token)?;
        let unreachable = |source| ClientError::Unreachable { address: self.base.to_string(), source };
        let stream = TcpStream::connect(address).await.map_err(unreachable)?;
        if token.is_some() {
            see_who_listens(&stream, address).await.map_err(|why| self.strange(why))?;
        }
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.strange(error.to_string()))?;
        // It ends with the answer, or when nobody reads the answer any more.
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.map(Value::to_string).unwrap_or_default()))
            .map_err(|error| self.strange(error.to_string()))?;
        let headers = request.headers_mut();
        if let Some(accept) = accept {
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        }
        if let Some(token) = token {
            let bearer = HeaderValue::try_from(format!("Bearer {token}"));
            headers.insert(header::AUTHORIZATION, bearer.map_err(|error| self.strange(error.to_string()))?);
        }
        sender.send_request(request).await.map_err(|error| self.strange(error.to_string()))
    }

    /// Takes the `data` out of the envelope.
    async fn data(&self, answer: Response<Incoming>) -> Result<Value, ClientError> {
        let body = answer.into_body().collect().await.map_err(|error| self.strange(error.to_string()))?;
        let answer: Value =
            serde_json::from_slice(&body.to_bytes()).map_err(|error| self.strange(error.to_string()))?;
        match answer.get("ok") {
            Some(Value::Bool(true)) => {
                let data = answer.get("data").cloned().unwrap_or(answer);
                let ignored = data["ignored"].as_array().into_iter().flatten().filter_map(Value::as_str);
                let ignored: Vec<_> = ignored.collect();
                if !ignored.is_empty() {
                    let names = harmless(&ignored.join(", "));
                    output::complain(&format!(
                        "codexd: The daemon does not know these fields, and ignored them: {names}"
                    ));
                }
                Ok(data)
            }
            Some(Value::Bool(false)) => Err(ClientError::Refused {
                code: answer["error"].as_str().unwrap_or_default().to_owned(),
                message: answer["message"].as_str().unwrap_or("it did not say why").to_owned(),
                details: answer["details"].clone(),
            }),
            _ => Err(self.strange("its answer has no \"ok\"".to_owned())),
        }
    }

    fn strange(&self, reason: String) -> ClientError {
        ClientError::NotCodexd { address: self.base.to_string(), reason }
    }
}

/// Waits until the connection is held by our own user or by root; whoever took the address before codexd would be given
/// the token.
async fn see_who_listens(stream: &TcpStream, address: SocketAddr) -> Result<(), String> {
    let Ok(ours) = stream.local_addr() else { return Ok(()) };
    loop {
        match peer_of(address, ours).await {
            Peer::Ours | Peer::Unknown(_) => return Ok(()),
            Peer::Foreign(why) => return Err(why),
            // It is not accepted yet.
            Peer::Nobody => tokio::time::sleep(LOOK).await,
        }
    }
}

/// A part of a path or of a query with everything that means something there written in another way.
pub(crate) fn escaped(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}
