//! Accepts connections and serves each in a task.
//!
//! [`Server`] owns the listener task and tracks the connection tasks. `commands::start` starts and stops it. Per
//! connection: acquire a slot (`connections`), identify the peer (`auth::peer`), and have hyper parse the requests and
//! pass each to [`App::respond`].
//!
//! hyper limits the time and the size of a head; a head that it rejects gets an empty response with 400 or 431, and one
//! that is not complete in time gets none.
//!
//! Invariants: the accept loop waits for a client only while [`MAX_ARRIVING`] others wait for a slot, and
//! [`Server::stop`] returns within [`FINAL_RESPONSE_TIMEOUT`].

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::http::{StatusCode, header};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::app::App;
use super::auth::peer::{Peer, peer_of};
use super::connections::Slot;
use super::error::ApiError;
use super::request_body::RequestBody;
use super::socket::Socket;

/// How long the head of a request may take, from the start of the connection or the end of the previous response; so it
/// is also how long a connection may be idle. Longer than HTTP clients keep an idle connection by default (undici 4 s,
/// httpx 5 s), so that they do not send a request on a connection that is being closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum length of a head, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// The buffer limit of hyper per connection, in bytes; it must hold a head and one write.
const MAX_BUFFER_BYTES: usize = 64 * 1024;
/// Pause after a failed `accept`, such as EMFILE, so that the loop does not spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// How long a connection must have waited for its client before it is evicted on EMFILE: a well-behaved one sends its
/// request sooner.
const MIN_WAIT_BEFORE_EVICTION: Duration = Duration::from_millis(500);
/// Pause after an eviction, until the evicted socket is closed.
const ACCEPT_BACKOFF_AFTER_EVICTION: Duration = Duration::from_millis(10);
/// How many accepted connections may wait for a slot, or for their rejection, at once; more stay in the backlog of the
/// listener.
const MAX_ARRIVING: usize = 32;
/// How long responses in progress may take when the daemon stops.
const FINAL_RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);

/// The running listener.
#[derive(Debug)]
pub struct Server {
    stop: CancellationToken,
    connections: TaskTracker,
}

impl Server {
    /// Serves `app` on `listener` until [`Server::stop`].
    pub fn start(listener: TcpListener, app: App) -> Self {
        let server = Self { stop: CancellationToken::new(), connections: TaskTracker::new() };
        server.connections.spawn(accept(listener, app, server.stop.clone(), server.connections.clone()));
        server
    }

    /// Stops accepting connections and waits for responses in progress, at most [`FINAL_RESPONSE_TIMEOUT`].
    pub async fn stop(&self) {
        self.stop.cancel();
        self.connections.close();
        let _ = tokio::time::timeout(FINAL_RESPONSE_TIMEOUT, self.connections.wait()).await;
    }
}

async fn accept(listener: TcpListener, app: App, stop: CancellationToken, connections: TaskTracker) {
    let arriving = Arc::new(Semaphore::new(MAX_ARRIVING));
    let mut is_failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = accept_one(&listener, &arriving) => accepted,
            () = stop.cancelled() => return,
        };
        if accepted.is_ok() && std::mem::take(&mut is_failing) {
            tracing::info!("accepting connections again");
        }
        match accepted {
            Ok((stream, remote, arrival)) => {
                connections.spawn(admit(stream, remote, arrival, app.clone(), stop.clone()));
            }
            // The client closed the connection before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                // Most likely EMFILE; closing a waiting connection frees a descriptor.
                let evicted = app.state.limiter.evict_longest_waiting(MIN_WAIT_BEFORE_EVICTION);
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::error!(%error, "failed to accept a connection; retrying");
                }
                tokio::time::sleep(if evicted { ACCEPT_BACKOFF_AFTER_EVICTION } else { ACCEPT_BACKOFF })
                    .await;
            }
        }
    }
}

/// Accepts a connection once fewer than [`MAX_ARRIVING`] wait for a slot.
async fn accept_one(
    listener: &TcpListener,
    arriving: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let arrival = Arc::clone(arriving).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, remote) = listener.accept().await?;
    Ok((stream, remote, arrival))
}

/// Serves a connection once a slot is free, or rejects it.
async fn admit(
    stream: TcpStream,
    remote: SocketAddr,
    arrival: OwnedSemaphorePermit,
    app: App,
    stop: CancellationToken,
) {
    match app.state.limiter.acquire().await {
        Some(slot) => {
            drop(arrival);
            serve(stream, remote, Arc::new(slot), app, stop).await;
        }
        None => reject(stream).await,
    }
}

async fn serve(stream: TcpStream, remote: SocketAddr, slot: Arc<Slot>, app: App, stop: CancellationToken) {
    // Responses and events are complete when they are written; waiting to fill a packet would only delay them.
    let _ = stream.set_nodelay(true);
    let peer = match stream.local_addr() {
        Ok(local) if remote.ip().is_loopback() => peer_of(remote, local).await,
        _ => Peer::Foreign("it does not come from this machine".to_owned()),
    };
    if peer != Peer::Trusted {
        tracing::debug!(%remote, ?peer, "the user of a connection is not trusted");
    }
    let socket = Socket::new(stream, Arc::clone(&slot), app.state.daemon.config().limits.client_timeout);
    let of_service = Arc::clone(&slot);
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        of_service.mark_busy();
        let (app, peer, slot) = (app.clone(), peer.clone(), Arc::clone(&of_service));
        async move {
            let request = request.map(|body| Body::new(RequestBody::new(body, Arc::clone(&slot))));
            let response = app.respond(&peer, request).await;
            let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            slot.is_upgraded.store(is_upgrade, Ordering::Relaxed);
            slot.is_streaming.store(is_event_stream(&response), Ordering::Relaxed);
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_BUFFER_BYTES)
        // A client may close its sending side, or the connection, right after its request. Without this, a request that
        // arrives together with the end of the stream is dropped.
        .half_close(true)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    tokio::pin!(connection);
    let served = tokio::select! {
        // In this order: a request that has arrived is read before the connection may close.
        biased;
        served = connection.as_mut() => served,
        () = slot.evicted() => Ok(()),
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    match served {
        Err(error) if error.is_parse() => tracing::info!(%error, "rejected a request that is not valid HTTP"),
        Err(error) => tracing::debug!(%error, "connection ended with an error"),
        Ok(()) => {}
    }
}

fn is_event_stream(response: &axum::response::Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// Sends 503 because all slots are in use, whatever the request.
async fn reject(mut stream: TcpStream) {
    let error = ApiError::overloaded("All connection slots of codexd are in use; try again soon.");
    let bytes = error.to_raw_response();
    let sending = async {
        // A client that gets a response before it has sent a request treats the connection as broken.
        let mut discarded = [0; 1024];
        let _ = tokio::time::timeout(FINAL_RESPONSE_TIMEOUT / 2, stream.read(&mut discarded)).await;
        stream.write_all(&bytes).await?;
        stream.shutdown().await?;
        // Closing with unread bytes would reset the connection and lose the response.
        while stream.read(&mut discarded).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    let _ = tokio::time::timeout(FINAL_RESPONSE_TIMEOUT, sending).await;
}
