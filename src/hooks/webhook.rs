//! Delivery to a URL: one POST on a connection of its own, with the headers of Standard Webhooks.
//!
//! Only an answer with 2xx counts. Redirects are not followed: they could lead a delivery to another host, or from https to
//! http.

use std::io;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::signature;
use super::url::HookUrl;
use crate::codex::redact;

/// How much of the answer to a failed delivery is read, in bytes.
const MAX_ANSWER_BYTES: usize = 4 * 1024;
/// How much of it is shown, in characters.
const MAX_SHOWN_CHARS: usize = 200;

/// Connections that trust Mozilla's list of public authorities, and nothing else.
static PUBLIC: LazyLock<Result<TlsConnector, String>> =
    LazyLock::new(|| connector(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }));

/// What is posted.
pub(super) struct Post<'a> {
    pub(super) url: &'a HookUrl,
    /// The secret of the signature; without one there is none.
    pub(super) secret: Option<&'a str>,
    /// The value of `webhook-id`.
    pub(super) id: &'a str,
    pub(super) payload: Bytes,
}

impl Post<'_> {
    /// Posts; the error is a clause.
    pub(super) async fn send(self) -> Result<(), String> {
        let connector = PUBLIC.as_ref().map_err(String::clone)?;
        self.send_by(connector).await
    }

    async fn send_by(self, connector: &TlsConnector) -> Result<(), String> {
        let url = self.url;
        if !url.is_https {
            let stream = TcpStream::connect(url.loopback().as_slice()).await;
            return self.exchange(stream.map_err(|error| unreachable(url, &error))?).await;
        }
        let name = ServerName::try_from(url.host.clone()).map_err(|_| "its host is not valid".to_owned())?;
        let stream = TcpStream::connect((url.host.as_str(), url.port)).await;
        let stream = stream.map_err(|error| unreachable(url, &error))?;
        let stream = connector.connect(name, stream).await;
        let stream =
            stream.map_err(|error| format!("the TLS handshake with {} failed: {error}", url.host))?;
        self.exchange(stream).await
    }

    async fn exchange(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<(), String> {
        let failed = |error: hyper::Error| format!("it did not answer: {error}");
        let request = self.request()?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        if status.is_redirection() {
            return Err(format!("it answered with status {}; redirects are not followed", status.as_u16()));
        }
        let text = beginning(response).await;
        let text = if text.is_empty() { text } else { format!(": {text}") };
        Err(format!("it answered with status {}{text}", status.as_u16()))
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, String> {
        let timestamp = Timestamp::now().as_second().to_string();
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.url.path)
            .header(header::HOST, &self.url.authority)
            .header(header::USER_AGENT, concat!("codexd/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .header("webhook-id", self.id)
            .header("webhook-timestamp", &timestamp);
        if let Some(secret) = self.secret {
            let key = signature::key(secret)?;
            let signature = signature::sign(&key, self.id, &timestamp, &self.payload);
            request = request.header("webhook-signature", signature);
        }
        request
            .body(Full::new(self.payload.clone()))
            .map_err(|error| format!("it cannot be requested: {error}"))
    }
}

/// The beginning of the text of an answer.
async fn beginning(response: Response<Incoming>) -> String {
    let (mut body, mut bytes) = (response.into_body(), Vec::new());
    while bytes.len() < MAX_ANSWER_BYTES
        && let Some(Ok(frame)) = body.frame().await
    {
        let data = frame.into_data().unwrap_or_default();
        bytes.extend_from_slice(&data[..data.len().min(MAX_ANSWER_BYTES - bytes.len())]);
    }
    let text = redact(&String::from_utf8_lossy(&bytes));
    let words: Vec<_> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    words.join(" ").chars().take(MAX_SHOWN_CHARS).collect()
}

fn unreachable(url: &HookUrl, error: &io::Error) -> String {
    format!("{} port {} cannot be reached: {error}", url.host, url.port)
}

fn connector(roots: RootCertStore) -> Result<TlsConnector, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be used: {error}"))?;
    Ok(TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
}

#[cfg(test)]
mod tests;
