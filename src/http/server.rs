//! The listener: accepts connections and serves each in a task of its own.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{StatusCode, header};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Edge;
use super::error::ApiError;
use crate::http::auth::peer::{Peer, peer_of};
use crate::http::framing::framer::Conversation;
use crate::http::limits::connections::{Crowd, Ticket};
use crate::http::limits::write_timeout::Patient;

/// How long the accept loop rests after an error, such as too many open files, so that it does not spin.
const REST: Duration = Duration::from_millis(100);
/// How long a connection waits for a place when all are taken.
const MOMENT: Duration = Duration::from_millis(500);
/// How long somebody who says nothing is left alone when there are too many open files.
const GRACE: Duration = Duration::from_millis(500);
/// How long it rests when somebody was sent away, until that one's socket is closed.
const SHORT_REST: Duration = Duration::from_millis(10);
/// How much the HTTP parser of a connection may hold, in bytes; at least a head and what is written at once.
const PARSER_BUFFER: usize = 64 * 1024;
/// How many connections are told at once, after they have asked, that there are too many; those beyond hear it at once.
const TURNED_AWAY: usize = 32;
/// How long answers that are under way may take when the daemon stops.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// The running listener.
#[derive(Debug)]
pub struct Server {
    stop: CancellationToken,
    connections: TaskTracker,
}

/// The address of a listener as a URL, such as `http://127.0.0.1:4319`.
pub fn base_url(address: SocketAddr) -> String {
    match address {
        SocketAddr::V6(address) if address.port() == 80 => format!("http://[{}]", address.ip()),
        SocketAddr::V4(address) if address.port() == 80 => format!("http://{}", address.ip()),
        _ => format!("http://{address}"),
    }
}

impl Server {
    /// Serves `edge` on `listener` until [`Server::stop`].
    pub fn start(listener: TcpListener, edge: Edge) -> Self {
        let server = Self { stop: CancellationToken::new(), connections: TaskTracker::new() };
        server.connections.spawn(accept(listener, edge, server.stop.clone(), server.connections.clone()));
        server
    }

    /// Takes no more connections, and lets the answers that are under way go out.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.connections.close();
        let _ = tokio::time::timeout(LAST_ANSWERS, self.connections.wait()).await;
    }
}

async fn accept(listener: TcpListener, edge: Edge, stop: CancellationToken, connections: TaskTracker) {
    let crowd = Arc::clone(&edge.shared.crowd);
    let turned_away = Arc::new(Semaphore::new(TURNED_AWAY));
    let mut is_failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        if accepted.is_ok() && std::mem::take(&mut is_failing) {
            tracing::info!("connections can be accepted again");
        }
        match accepted {
            Ok((stream, theirs)) => match admit(&crowd).await {
                Some(ticket) => {
                    let served = serve(stream, theirs, ticket, edge.clone(), stop.clone());
                    connections.spawn(served);
                }
                None => match Arc::clone(&turned_away).try_acquire_owned() {
                    Ok(permit) => {
                        let waiting = wait(stream, theirs, permit, edge.clone(), stop.clone());
                        connections.spawn(waiting);
                    }
                    // So many that nobody can wait until each has asked and heard.
                    Err(_) => {
                        crowd.turn_away();
                        let _ = stream.try_write(&full().to_wire());
                    }
                },
            },
            // The client gave up before it was its turn.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                // Most likely there are too many open files, and one less helps.
                let has_room = crowd.make_room(GRACE);
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::error!(%error, "no connection can be accepted; it is tried again all the time");
                }
                tokio::time::sleep(if has_room { SHORT_REST } else { REST }).await;
            }
        }
    }
}

/// A place for one more, after those who came before it were looked at.
async fn admit(crowd: &Arc<Crowd>) -> Option<Ticket> {
    loop {
        let ticket = crowd.admit();
        if ticket.is_some() || !crowd.has_newcomers() {
            return ticket;
        }
        tokio::task::yield_now().await;
    }
}

/// Serves a connection for which there is a place in a moment: one that has its answer keeps its own until it is closed.
async fn wait(
    stream: TcpStream,
    theirs: SocketAddr,
    permit: OwnedSemaphorePermit,
    edge: Edge,
    stop: CancellationToken,
) {
    let crowd = Arc::clone(&edge.shared.crowd);
    match tokio::time::timeout(MOMENT, crowd.place()).await {
        Ok(ticket) => {
            drop(permit);
            serve(stream, theirs, ticket, edge, stop).await;
        }
        Err(_) => {
            crowd.turn_away();
            turn_away(stream, permit).await;
        }
    }
}

async fn serve(stream: TcpStream, theirs: SocketAddr, ticket: Ticket, edge: Edge, stop: CancellationToken) {
    // Answers and events are whole when they are written; waiting to fill a packet would only delay them.
    let _ = stream.set_nodelay(true);
    let peer = match stream.local_addr() {
        Ok(ours) if theirs.ip().is_loopback() => peer_of(theirs, ours).await,
        _ => Peer::Foreign("it does not come from this machine".to_owned()),
    };
    if peer != Peer::Ours {
        tracing::debug!(%theirs, ?peer, "a connection is not known to be ours");
    }
    let stranger = edge.shared.door.stranger(&peer);
    let patience = edge.shared.daemon.config().limits.client_timeout;
    let place = Arc::clone(ticket.place());
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (edge, peer, place) = (edge.clone(), peer.clone(), Arc::clone(&place));
        async move {
            let response = edge.answer(&peer, request.map(Body::new)).await;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                place.upgrade();
            }
            place.stream(is_event_stream(&response));
            Ok::<_, Infallible>(response)
        }
    });
    let stream = Conversation::new(Patient::new(stream, patience), ticket, stranger);
    let connection = http1::Builder::new()
        // The time that a head and a body may take is kept in front of the parser.
        .header_read_timeout(None)
        .max_buf_size(PARSER_BUFFER)
        // A client that has said all it wants and closes its side, or leaves, has asked all the same: without this a
        // request that arrives together with the end of the stream is dropped unheard.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}

fn is_event_stream(response: &axum::response::Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// Says that there are too many connections, whatever the client wants.
async fn turn_away(mut stream: TcpStream, _permit: OwnedSemaphorePermit) {
    let error = full();
    let words = error.to_wire();
    tracing::info!(status = error.status(), "a connection is turned away, because all are being served");
    let speaking = async {
        // A client that is answered before it has asked takes the connection for broken.
        let mut scrap = [0; 1024];
        let _ = tokio::time::timeout(LAST_ANSWERS / 2, stream.read(&mut scrap)).await;
        stream.write_all(&words).await?;
        stream.shutdown().await?;
        // Closing with unread bytes would reset the connection, and the words would be lost with it.
        while stream.read(&mut scrap).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    let _ = tokio::time::timeout(LAST_ANSWERS, speaking).await;
}

fn full() -> ApiError {
    ApiError::overloaded("All connections that codexd takes at once are being served; try again soon.")
}
