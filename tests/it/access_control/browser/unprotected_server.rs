//! A server that guards nothing: what gets through to it shows that an attack is one.

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

/// What stands in everything that it says.
pub(super) const SECRET: &str = "what only friends may read";

/// What a request has in its query when its answer is to be given to every page.
pub(super) const PERMIT: &str = "cors";

/// Something that it heard: a request with its body, or a message over a WebSocket.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) method: String,
    pub(super) path: String,
    /// The attack and the page, as the page says it.
    pub(super) query: HashMap<String, String>,
    /// The body, or the message.
    pub(super) text: String,
}

/// It answers whoever asks, and ends with the runtime of its test.
pub(super) struct Control {
    port: u16,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Control {
    pub(super) async fn start() -> Self {
        let (listener, port) = listen().await;
        let heard = Arc::<Mutex<Vec<Heard>>>::default();
        let sink = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sink = Arc::clone(&sink);
                let service = service_fn(move |request| {
                    let sink = Arc::clone(&sink);
                    async move { Ok::<_, Infallible>(answer(&sink, request).await) }
                });
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection.with_upgrades());
            }
        });
        Self { port, heard }
    }

    pub(super) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Waits until it heard something of this kind.
    pub(super) async fn heard(&self, what: &str, wanted: impl Fn(&Heard) -> bool) {
        wait_until(what, || self.heard.lock().unwrap().iter().any(&wanted).then_some(())).await;
    }
}

async fn answer(heard: &Arc<Mutex<Vec<Heard>>>, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let upgrade = request.headers().contains_key("upgrade").then(|| hyper::upgrade::on(&mut request));
    let (head, body) = request.into_parts();
    // A browser that hangs up in the middle of a body has not been heard.
    let Ok(body) = body.collect().await else { return Response::default() };
    let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    let query = form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
    let request = Heard {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: query.into_owned().collect(),
        text,
    };
    heard.lock().unwrap().push(request.clone());
    if let Some(upgrade) = upgrade {
        let heard = Arc::clone(heard);
        tokio::spawn(async move {
            if let Ok(upgraded) = upgrade.await {
                let io = TokioIo::new(upgraded);
                talk(WebSocketStream::from_raw_socket(io, Role::Server, None).await, &heard, request).await;
            }
        });
        return switch(&head);
    }
    let is_stream = head.headers.get("accept").is_some_and(|accept| accept == "text/event-stream");
    let (kind, body) = if is_stream {
        ("text/event-stream", format!("data: {SECRET}\n\n"))
    } else {
        ("application/json", format!("{{\"ok\": true, \"data\": \"{SECRET}\"}}\n"))
    };
    let mut response = Response::new(Full::from(body));
    response.headers_mut().insert("content-type", HeaderValue::from_static(kind));
    if request.query.contains_key(PERMIT) {
        let origin = head.headers.get("origin").cloned().unwrap_or(HeaderValue::from_static("*"));
        permit(response.headers_mut(), origin);
    }
    response
}

/// The headers of a server that lets every page read it.
fn permit(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert("access-control-allow-origin", origin);
    for (name, value) in [
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "GET, POST, DELETE"),
        ("access-control-allow-headers", "authorization, content-type"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

fn switch(head: &Parts) -> Response<Full<Bytes>> {
    let key = head.headers.get("sec-websocket-key").map_or(&[][..], HeaderValue::as_bytes);
    let response = Response::builder()
        .status(101)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", derive_accept_key(key));
    response.body(Full::default()).unwrap()
}

/// Says something first, as codexd does, and hears what comes.
async fn talk(
    mut socket: WebSocketStream<impl AsyncRead + AsyncWrite + Unpin>,
    heard: &Mutex<Vec<Heard>>,
    request: Heard,
) {
    if socket.send(Message::text(SECRET)).await.is_err() {
        return;
    }
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Text(text) = message {
            heard.lock().unwrap().push(Heard { text: text.to_string(), ..request.clone() });
        }
    }
}
