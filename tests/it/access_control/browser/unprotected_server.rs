//! A server without any access control, which shows that the attacks work.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::pages::listen;
use crate::support::wait::wait_until;

/// The text in every response and message of the server.
pub(super) const SECRET: &str = "only allowed pages may read this";

/// The query parameter that makes the server allow every page to read the response.
pub(super) const ALLOW_CORS_PARAMETER: &str = "cors";

/// A request with its body, or a WebSocket message.
#[derive(Clone, Debug)]
pub(super) struct ReceivedRequest {
    pub(super) method: String,
    pub(super) path: String,
    /// The names of the attack and of the page, among others.
    pub(super) query: HashMap<String, String>,
    /// The body, or the message.
    pub(super) text: String,
}

/// A server that answers every request, and ends with the runtime of its test.
pub(super) struct UnprotectedServer {
    port: u16,
    received: Arc<Mutex<Vec<ReceivedRequest>>>,
}

impl UnprotectedServer {
    pub(super) async fn start() -> Self {
        let (listener, port) = listen().await;
        let received = Arc::<Mutex<Vec<ReceivedRequest>>>::default();
        let requests = Arc::clone(&received);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let requests = Arc::clone(&requests);
                let service = service_fn(move |request| {
                    let requests = Arc::clone(&requests);
                    async move { Ok::<_, Infallible>(respond(&requests, request).await) }
                });
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection.with_upgrades());
            }
        });
        Self { port, received }
    }

    pub(super) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Waits until the server has received a matching request.
    pub(super) async fn wait_for_request(&self, what: &str, is_match: impl Fn(&ReceivedRequest) -> bool) {
        wait_until(what, || self.received.lock().unwrap().iter().any(&is_match).then_some(())).await;
    }
}

async fn respond(
    received: &Arc<Mutex<Vec<ReceivedRequest>>>,
    mut request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let upgrade = request.headers().contains_key("upgrade").then(|| hyper::upgrade::on(&mut request));
    let (head, body) = request.into_parts();
    // A request whose body is incomplete is not counted.
    let Ok(body) = body.collect().await else { return Response::default() };
    let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    let query = form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
    let request = ReceivedRequest {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: query.into_owned().collect(),
        text,
    };
    received.lock().unwrap().push(request.clone());
    if let Some(upgrade) = upgrade {
        let received = Arc::clone(received);
        tokio::spawn(async move {
            if let Ok(upgraded) = upgrade.await {
                let io = TokioIo::new(upgraded);
                serve_websocket(
                    WebSocketStream::from_raw_socket(io, Role::Server, None).await,
                    &received,
                    request,
                )
                .await;
            }
        });
        return switching_protocols(&head);
    }
    let is_stream = head.headers.get("accept").is_some_and(|accept| accept == "text/event-stream");
    let (kind, body) = if is_stream {
        ("text/event-stream", format!("data: {SECRET}\n\n"))
    } else {
        ("application/json", format!("{{\"ok\": true, \"data\": \"{SECRET}\"}}\n"))
    };
    let mut response = Response::new(Full::from(body));
    response.headers_mut().insert("content-type", HeaderValue::from_static(kind));
    if request.query.contains_key(ALLOW_CORS_PARAMETER) {
        let origin = head.headers.get("origin").cloned().unwrap_or(HeaderValue::from_static("*"));
        allow_all_pages(response.headers_mut(), origin);
    }
    response
}

/// Adds the CORS headers that allow every page to read the response.
fn allow_all_pages(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert("access-control-allow-origin", origin);
    for (name, value) in [
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "GET, POST, DELETE"),
        ("access-control-allow-headers", "authorization, content-type"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

fn switching_protocols(head: &Parts) -> Response<Full<Bytes>> {
    let key = head.headers.get("sec-websocket-key").map_or(&[][..], HeaderValue::as_bytes);
    let response = Response::builder()
        .status(101)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", derive_accept_key(key));
    response.body(Full::default()).unwrap()
}

/// Sends a message first, as codexd does, and records the messages of the client.
async fn serve_websocket(
    mut socket: WebSocketStream<impl AsyncRead + AsyncWrite + Unpin>,
    received: &Mutex<Vec<ReceivedRequest>>,
    request: ReceivedRequest,
) {
    if socket.send(Message::text(SECRET)).await.is_err() {
        return;
    }
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Text(text) = message {
            received.lock().unwrap().push(ReceivedRequest { text: text.to_string(), ..request.clone() });
        }
    }
}
