//! Whose connection it is: a loopback listener is open to every user of the machine.
//!
//! Linux tells the owner of a socket to whoever knows its two addresses (sock_diag(7), or /proc/net/tcp where that is not
//! there); no other system that codexd is for does.

#[cfg(target_os = "linux")]
mod linux;

use std::net::SocketAddr;
#[cfg(target_os = "linux")]
use std::time::Duration;

#[cfg(target_os = "linux")]
use crate::blocking::Pool;

/// How long the kernel may take to answer.
#[cfg(target_os = "linux")]
const KERNEL_TIMEOUT: Duration = Duration::from_secs(5);
#[cfg(target_os = "linux")]
static POOL: Pool = Pool::new("peers", 1, 3);

/// Who is on the other side of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// The user who runs codexd, or root.
    Trusted,
    /// Somebody else, as half a sentence.
    Foreign(String),
    /// No process holds the other side: not any more or, where it is the one who accepts connections, not yet.
    Unowned,
    /// The system does not say, for this reason.
    Unknown(String),
}

/// Looks up who holds the socket at `remote` that is connected to `local`.
///
/// What nobody holds belongs to root for the system, whoever had it, so it is not believed: anybody could send something
/// and leave.
#[cfg(target_os = "linux")]
pub async fn peer_of(remote: SocketAddr, local: SocketAddr) -> Peer {
    match POOL.run(KERNEL_TIMEOUT, move || linux::peer_of(remote, local)).await {
        Ok(peer) => peer,
        Err(unanswered) => Peer::Unknown(format!("the kernel {unanswered}")),
    }
}

/// Nothing is said about sockets here.
#[cfg(not(target_os = "linux"))]
pub async fn peer_of(_theirs: SocketAddr, _ours: SocketAddr) -> Peer {
    Peer::Unknown("this system does not say whose a connection is".to_owned())
}
