//! A way to the daemon that can be cut while the daemon goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::daemon::Daemon;
use crate::support::http::Target;

/// An address of its own, behind which the daemon is while the link is whole.
pub(super) struct Link {
    base: String,
    is_whole: watch::Sender<bool>,
    loses_events: Arc<AtomicBool>,
}

impl Link {
    pub(super) async fn to(daemon: &Daemon) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let base = format!("http://{authority}");
        let (is_whole, state) = watch::channel(true);
        let loses_events = Arc::new(AtomicBool::new(false));
        let link = Ends { here: authority, there: daemon.authority().to_owned(), state };
        let loses = Arc::clone(&loses_events);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (link, loses) = (link.clone(), Arc::clone(&loses));
                tokio::spawn(async move { link.carry(client, &loses).await });
            }
        });
        Self { base, is_whole, loses_events }
    }

    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Ends all connections, and each new one as soon as it is made.
    pub(super) fn cut(&self) {
        self.is_whole.send_replace(false);
    }

    pub(super) fn mend(&self) {
        self.is_whole.send_replace(true);
    }

    /// The same, with a cursor that leads nowhere in the next stream that is asked for.
    pub(super) fn mend_without_what_happened(&self) {
        self.loses_events.store(true, Ordering::SeqCst);
        self.mend();
    }
}

#[derive(Clone)]
struct Ends {
    here: String,
    there: String,
    state: watch::Receiver<bool>,
}

impl Ends {
    async fn carry(mut self, mut client: TcpStream, loses_events: &AtomicBool) {
        if !*self.state.borrow() {
            return;
        }
        let carrying = async {
            let mut daemon = TcpStream::connect(&self.there).await.unwrap();
            let mut head = vec![0; 65536];
            let length = client.read(&mut head).await.unwrap_or(0);
            let mut head = String::from_utf8_lossy(&head[..length]).replace(&self.here, &self.there);
            if let Some((before, after)) = head.split_once("?after=")
                && loses_events.swap(false, Ordering::SeqCst)
            {
                let (_, after) = after.split_once('-').unwrap();
                head = format!("{before}?after=000000000000-{after}");
            }
            daemon.write_all(head.as_bytes()).await.unwrap();
            let _ = copy_bidirectional(&mut client, &mut daemon).await;
        };
        tokio::select! {
            () = carrying => {}
            _ = self.state.wait_for(|is_whole| !is_whole) => {}
        }
    }
}
