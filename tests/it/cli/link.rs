//! A TCP proxy to the daemon that can drop its connections while the daemon runs on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::daemon::Daemon;
use crate::support::http::Target;

/// The address of the proxy, which forwards to the daemon while it is connected.
pub(super) struct ProxyLink {
    base: String,
    is_connected: watch::Sender<bool>,
    hides_missed_events: Arc<AtomicBool>,
}

impl ProxyLink {
    pub(super) async fn to(daemon: &Daemon) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let base = format!("http://{authority}");
        let (is_connected, state) = watch::channel(true);
        let hides_missed_events = Arc::new(AtomicBool::new(false));
        let link =
            Forwarder { proxy_authority: authority, daemon_authority: daemon.authority().to_owned(), state };
        let hides = Arc::clone(&hides_missed_events);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (link, hides) = (link.clone(), Arc::clone(&hides));
                tokio::spawn(async move { link.forward(client, &hides).await });
            }
        });
        Self { base, is_connected, hides_missed_events }
    }

    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Closes all connections, and each new one at once.
    pub(super) fn disconnect(&self) {
        self.is_connected.send_replace(false);
    }

    pub(super) fn reconnect(&self) {
        self.is_connected.send_replace(true);
    }

    /// Reconnects, and replaces the cursor of the next stream request with one of another epoch.
    pub(super) fn reconnect_without_missed_events(&self) {
        self.hides_missed_events.store(true, Ordering::SeqCst);
        self.reconnect();
    }
}

#[derive(Clone)]
struct Forwarder {
    proxy_authority: String,
    daemon_authority: String,
    state: watch::Receiver<bool>,
}

impl Forwarder {
    async fn forward(mut self, mut client: TcpStream, hides_missed_events: &AtomicBool) {
        if !*self.state.borrow() {
            return;
        }
        let forwarding = async {
            let mut daemon = TcpStream::connect(&self.daemon_authority).await.unwrap();
            let mut head = vec![0; 65536];
            let length = client.read(&mut head).await.unwrap_or(0);
            let mut head = String::from_utf8_lossy(&head[..length])
                .replace(&self.proxy_authority, &self.daemon_authority);
            if let Some((before, after)) = head.split_once("?after=")
                && hides_missed_events.swap(false, Ordering::SeqCst)
            {
                let (_, after) = after.split_once('-').unwrap();
                head = format!("{before}?after=000000000000-{after}");
            }
            daemon.write_all(head.as_bytes()).await.unwrap();
            let _ = copy_bidirectional(&mut client, &mut daemon).await;
        };
        tokio::select! {
            () = forwarding => {}
            _ = self.state.wait_for(|is_connected| !is_connected) => {}
        }
    }
}
