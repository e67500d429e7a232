//! A proxy between the daemon and an app-server that delays requests, so that another client is first, or changes
//! responses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

use super::client::connect;
use crate::support::codex::CodexHome;
use crate::support::wait::wait_until;

/// A running proxy; it ends with the test's runtime.
pub(crate) struct Proxy {
    /// The endpoint for the daemon.
    pub(crate) endpoint: String,
    /// The method whose requests are delayed.
    held: Arc<watch::Sender<Option<&'static str>>>,
    /// Whether one waits.
    waiting: Arc<AtomicBool>,
    /// The directory of the socket, whose path must be short.
    _directory: TempDir,
}

impl Proxy {
    /// Starts a proxy for the app-server of this home.
    pub(crate) async fn start(home: &CodexHome) -> Self {
        Self::start_with(home, |_| false).await
    }

    /// Starts a proxy that changes the messages of the app-server by `edit`, which returns whether it has changed one.
    pub(crate) async fn start_with(
        home: &CodexHome,
        edit: impl Fn(&mut Value) -> bool + Send + Sync + 'static,
    ) -> Self {
        let directory = tempfile::Builder::new().prefix("codexd-").tempdir_in("/tmp").unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let (held, waiting) = (Arc::new(watch::Sender::new(None)), Arc::<AtomicBool>::default());
        let server = connect(home).await;
        tokio::spawn({
            let (held, waiting) = (Arc::clone(&held), Arc::clone(&waiting));
            async move {
                let (stream, _) = listener.accept().await.unwrap();
                forward(accept_async(stream).await.unwrap(), server, &held, &waiting, edit).await;
            }
        });
        Self { endpoint: format!("unix://{}", path.display()), held, waiting, _directory: directory }
    }

    /// Delays requests of this method from now on.
    pub(crate) fn hold(&self, method: &'static str) {
        self.held.send_replace(Some(method));
    }

    /// Waits until a request is delayed.
    pub(crate) async fn holds_one(&self) {
        wait_until("a request that is delayed", || self.waiting.load(Ordering::Relaxed).then_some(())).await;
    }

    /// Passes on what was delayed, and delays nothing more.
    pub(crate) fn release(&self) {
        self.held.send_replace(None);
    }
}

/// Forwards messages in both directions until one side closes; while a request is delayed, so is what follows it.
async fn forward(
    daemon: WebSocketStream<UnixStream>,
    server: WebSocketStream<UnixStream>,
    held: &watch::Sender<Option<&'static str>>,
    waiting: &AtomicBool,
    edit: impl Fn(&mut Value) -> bool,
) {
    let ((mut to_daemon, mut from_daemon), (mut to_server, mut from_server)) =
        (daemon.split(), server.split());
    let up = async {
        while let Some(Ok(message)) = from_daemon.next().await {
            let method = match &message {
                Message::Text(text) => serde_json::from_str::<Value>(text).unwrap()["method"].clone(),
                _ => Value::Null,
            };
            let is_held = |held: &Option<&'static str>| held.is_some_and(|held| method == held);
            let mut released = held.subscribe();
            let is_delayed = is_held(&released.borrow());
            if is_delayed {
                waiting.store(true, Ordering::Relaxed);
                released.wait_for(|held| !is_held(held)).await.map(drop).unwrap();
                waiting.store(false, Ordering::Relaxed);
            }
            if to_server.send(message).await.is_err() {
                return;
            }
        }
        let _ = to_server.close().await;
    };
    let down = async {
        while let Some(Ok(mut message)) = from_server.next().await {
            if let Message::Text(text) = &message {
                let mut value = serde_json::from_str(text).unwrap();
                if edit(&mut value) {
                    message = Message::text(value.to_string());
                }
            }
            if to_daemon.send(message).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(up, down);
}
