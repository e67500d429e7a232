//! Accepts connections and serves each in a task.
//!
//! [`Server`] owns the listener task and tracks the connection tasks. `commands::start` starts and stops it. Per
//! connection: acquire a slot (`limits::connections`), identify the peer (`auth::peer`), frame the requests
//! (`framing`), and pass each to [`App::respond`].
//!
//! Invariants: the accept loop never waits for a client, and [`Server::stop`] returns within
//! [`FINAL_RESPONSE_TIMEOUT`].

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

use super::app::App;
use super::error::ApiError;
use crate::http::auth::peer::{Peer, peer_of};
use crate::http::framing::framer::RequestFramer;
use crate::http::limits::connections::{ConnectionLimiter, SlotGuard};
use crate::http::limits::write_timeout::WriteTimeout;

/// Pause after a failed `accept`, such as EMFILE, so that the loop does not spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// How long a connection waits for a slot when all are in use.
const SLOT_WAIT: Duration = Duration::from_millis(500);
/// How long a connection must be idle before it is evicted on EMFILE.
const MIN_IDLE_BEFORE_EVICTION: Duration = Duration::from_millis(500);
/// Pause after an eviction, until the evicted socket is closed.
const ACCEPT_BACKOFF_AFTER_EVICTION: Duration = Duration::from_millis(10);
/// The buffer limit of the HTTP parser per connection, in bytes; it must hold a head and one write.
const MAX_PARSER_BUFFER_BYTES: usize = 64 * 1024;
/// How many connections may wait for a slot, or for their rejection, at once. More are rejected without waiting for
/// their request.
const MAX_DELAYED_REJECTIONS: usize = 32;
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
    let limiter = Arc::clone(&app.state.limiter);
    let rejections = Arc::new(Semaphore::new(MAX_DELAYED_REJECTIONS));
    let mut is_failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        if accepted.is_ok() && std::mem::take(&mut is_failing) {
            tracing::info!("accepting connections again");
        }
        match accepted {
            Ok((stream, remote)) => match acquire_slot(&limiter).await {
                Some(slot_guard) => {
                    let served = serve(stream, remote, slot_guard, app.clone(), stop.clone());
                    connections.spawn(served);
                }
                None => match Arc::clone(&rejections).try_acquire_owned() {
                    Ok(permit) => {
                        let waiting =
                            serve_when_slot_is_free(stream, remote, permit, app.clone(), stop.clone());
                        connections.spawn(waiting);
                    }
                    // Too many to wait for the request of each.
                    Err(_) => {
                        limiter.count_rejected();
                        let _ = stream.try_write(&connection_limit_reached().to_raw_response());
                    }
                },
            },
            // The client closed the connection before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                // Most likely EMFILE; closing an idle connection frees a descriptor.
                let evicted = limiter.evict_idle(MIN_IDLE_BEFORE_EVICTION);
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::error!(%error, "failed to accept a connection; retrying");
                }
                tokio::time::sleep(if evicted { ACCEPT_BACKOFF_AFTER_EVICTION } else { ACCEPT_BACKOFF })
                    .await;
            }
        }
    }
}

/// Acquires a slot, after the connections accepted before were polled.
async fn acquire_slot(limiter: &Arc<ConnectionLimiter>) -> Option<SlotGuard> {
    loop {
        let slot_guard = limiter.try_acquire();
        if slot_guard.is_some() || !limiter.has_unpolled() {
            return slot_guard;
        }
        tokio::task::yield_now().await;
    }
}

/// Serves a connection once a slot is free, or rejects it after [`SLOT_WAIT`]: a connection whose response was sent
/// holds its slot until it is closed.
async fn serve_when_slot_is_free(
    stream: TcpStream,
    remote: SocketAddr,
    permit: OwnedSemaphorePermit,
    app: App,
    stop: CancellationToken,
) {
    let limiter = Arc::clone(&app.state.limiter);
    match tokio::time::timeout(SLOT_WAIT, limiter.wait_for_slot()).await {
        Ok(slot_guard) => {
            drop(permit);
            serve(stream, remote, slot_guard, app, stop).await;
        }
        Err(_) => {
            limiter.count_rejected();
            reject(stream, permit).await;
        }
    }
}

async fn serve(
    stream: TcpStream,
    remote: SocketAddr,
    slot_guard: SlotGuard,
    app: App,
    stop: CancellationToken,
) {
    // Responses and events are complete when they are written; waiting to fill a packet would only delay them.
    let _ = stream.set_nodelay(true);
    let peer = match stream.local_addr() {
        Ok(local) if remote.ip().is_loopback() => peer_of(remote, local).await,
        _ => Peer::Foreign("it does not come from this machine".to_owned()),
    };
    if peer != Peer::Trusted {
        tracing::debug!(%remote, ?peer, "the user of a connection is not trusted");
    }
    let peer_rejection = app.state.guard.peer_rejection(&peer);
    let write_timeout = app.state.daemon.config().limits.client_timeout;
    let slot = Arc::clone(slot_guard.slot());
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (app, peer, slot) = (app.clone(), peer.clone(), Arc::clone(&slot));
        async move {
            let response = app.respond(&peer, request.map(Body::new)).await;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                slot.set_upgraded();
            }
            slot.set_streaming(is_event_stream(&response));
            Ok::<_, Infallible>(response)
        }
    });
    let stream = RequestFramer::new(WriteTimeout::new(stream, write_timeout), slot_guard, peer_rejection);
    let connection = http1::Builder::new()
        // `RequestFramer` limits the time of head and body.
        .header_read_timeout(None)
        .max_buf_size(MAX_PARSER_BUFFER_BYTES)
        // A client may close its sending side, or the connection, right after its request. Without this, a request that
        // arrives together with the end of the stream is dropped.
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
        tracing::debug!(%error, "connection ended with an error");
    }
}

fn is_event_stream(response: &axum::response::Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// Sends 503 because all slots are in use, whatever the request.
async fn reject(mut stream: TcpStream, _permit: OwnedSemaphorePermit) {
    let error = connection_limit_reached();
    let bytes = error.to_raw_response();
    tracing::info!(status = error.status(), "rejected a connection; all slots are in use");
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

fn connection_limit_reached() -> ApiError {
    ApiError::overloaded("All connection slots of codexd are in use; try again soon.")
}
