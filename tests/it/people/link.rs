//! A way to the daemon that can be cut while the daemon goes on.

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::daemon::Daemon;
use crate::support::http::Target;

/// An address of its own, behind which the daemon is while the link is whole.
pub(super) struct Link {
    base: String,
    is_whole: watch::Sender<bool>,
}

impl Link {
    pub(super) async fn to(daemon: &Daemon) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let base = format!("http://{authority}");
        let (is_whole, state) = watch::channel(true);
        let link = Ends { here: authority, there: daemon.authority().to_owned(), state };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(link.clone().carry(client));
            }
        });
        Self { base, is_whole }
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
}

#[derive(Clone)]
struct Ends {
    here: String,
    there: String,
    state: watch::Receiver<bool>,
}

impl Ends {
    async fn carry(mut self, mut client: TcpStream) {
        if !*self.state.borrow() {
            return;
        }
        let carrying = async {
            let mut daemon = TcpStream::connect(&self.there).await.unwrap();
            let mut head = vec![0; 65536];
            let length = client.read(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..length]).replace(&self.here, &self.there);
            daemon.write_all(head.as_bytes()).await.unwrap();
            let _ = copy_bidirectional(&mut client, &mut daemon).await;
        };
        tokio::select! {
            () = carrying => {}
            _ = self.state.wait_for(|is_whole| !is_whole) => {}
        }
    }
}
