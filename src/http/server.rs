//! The listener: accepts connections and serves each in a task of its own.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Edge;
use super::patient::Patient;

/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(5);
/// How long the accept loop rests after an error, such as too many open files, so that it does not spin.
const REST: Duration = Duration::from_millis(100);
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
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => drop(connections.spawn(serve(stream, edge.clone(), stop.clone()))),
            // The client gave up before it was its turn.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, edge: Edge, stop: CancellationToken) {
    // Answers and events are whole when they are written; waiting to fill a packet would only delay them.
    let _ = stream.set_nodelay(true);
    let patience = edge.shared.daemon.config().limits.client_timeout;
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let edge = edge.clone();
        async move { Ok::<_, Infallible>(edge.answer(request.map(Body::new)).await) }
    });
    let stream = Patient::new(stream, patience);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
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
