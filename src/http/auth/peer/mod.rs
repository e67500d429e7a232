//! Identifies the user at the other end of a connection: every user of the machine can connect to a loopback listener.
//!
//! `server` calls [`peer_of`] once per connection. Linux reports the owner of a socket by its two addresses
//! (sock_diag(7), or /proc/net/tcp where that is missing); the other supported systems do not.

#[cfg(target_os = "linux")]
mod linux;

use std::net::SocketAddr;
#[cfg(target_os = "linux")]
use std::time::Duration;

#[cfg(target_os = "linux")]
use crate::blocking::Pool;
#[cfg(target_os = "linux")]
use linux::{Owner, owner};

/// How long the kernel may take to respond.
#[cfg(target_os = "linux")]
const KERNEL_TIMEOUT: Duration = Duration::from_secs(5);
#[cfg(target_os = "linux")]
static POOL: Pool = Pool::new("peers", 1, 3);

/// The user at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// The user of codexd, or root.
    Trusted,
    /// Another user of this machine.
    User {
        /// The user.
        uid: u32,
        /// The user of codexd.
        own_uid: u32,
    },
    /// Not of this machine; the text is a clause.
    Foreign(String),
    /// No process holds the other end: not any more or, if it was just accepted by a server, not yet.
    Unowned,
    /// The system does not report the user, for this reason.
    Unknown(String),
}

/// Looks up the owner of the socket at `remote` that is connected to `local`.
///
/// Linux reports root as the owner of a socket that no process holds, whichever user created it. So such a socket is
/// not trusted: any user could send something and exit.
#[cfg(target_os = "linux")]
pub async fn peer_of(remote: SocketAddr, local: SocketAddr) -> Peer {
    match POOL.run(KERNEL_TIMEOUT, move || find_peer(remote, local)).await {
        Ok(peer) => peer,
        Err(unanswered) => Peer::Unknown(format!("the kernel {unanswered}")),
    }
}

/// [`peer_of`]; blocks.
#[cfg(target_os = "linux")]
fn find_peer(remote: SocketAddr, local: SocketAddr) -> Peer {
    match owner(remote, local) {
        Ok(Some(owner)) => classify_owner(owner, rustix::process::geteuid().as_raw()),
        Ok(None) => Peer::Unowned,
        Err(error) => Peer::Unknown(error.to_string()),
    }
}

/// Classifies a socket owner; `own_uid` is the user of codexd.
#[cfg(target_os = "linux")]
fn classify_owner(owner: Owner, own_uid: u32) -> Peer {
    let Owner { uid, is_held } = owner;
    // Linux reports root for sockets that no process holds, so root is accepted only if the socket is held.
    if (uid == own_uid && (is_held || own_uid != 0)) || (uid == 0 && is_held) {
        return Peer::Trusted;
    }
    match is_held {
        true => Peer::User { uid, own_uid },
        false => Peer::Unowned,
    }
}

/// This system does not report socket owners.
#[cfg(not(target_os = "linux"))]
pub async fn peer_of(_remote: SocketAddr, _local: SocketAddr) -> Peer {
    Peer::Unknown("this system does not report the user of a connection".to_owned())
}

/// The numbers of these users, each given by name or number; the error is a sentence. Blocks.
pub fn find_users(users: &[String]) -> Result<Vec<u32>, String> {
    #[expect(clippy::disallowed_methods, reason = "it is read before anything is served")]
    let table = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |user: &String| find_user(&table, user.trim());
    users.iter().map(find).collect()
}

/// Finds a user in a table like /etc/passwd (passwd(5)): name, password, number, and more, separated by colons.
fn find_user(table: &str, user: &str) -> Result<u32, String> {
    if let Ok(uid) = user.parse() {
        return Ok(uid);
    }
    let uid = table.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(user)).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    uid.ok_or_else(|| {
        format!("/etc/passwd has no user {user:?}; give the number of the user to --allow-uid.")
    })
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn user_is_found_by_name_and_number() {
        let table = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/usr/sbin/nologin\nodd:x:y\n";
        assert_eq!(find_user(table, "www-data"), Ok(33));
        assert_eq!(find_user(table, "4294967294"), Ok(4_294_967_294));
        for unknown in ["", "www", "x", "odd", "-1", "www-data:x"] {
            assert!(find_user(table, unknown).unwrap_err().contains("--allow-uid"), "{unknown}");
        }
    }

    #[test]
    fn classify_owner_trusts_own_user_and_root_with_held_sockets_only() {
        for (uid, is_held, own_uid, is_trusted) in [
            (501, true, 501, true),
            (0, true, 501, true),
            (502, true, 501, false),
            (501, true, 0, false),
            (0, true, 0, true),
            // Linux reports root for unheld sockets.
            (0, false, 501, false),
            (0, false, 0, false),
            (501, false, 501, true),
        ] {
            let peer = classify_owner(Owner { uid, is_held }, own_uid);
            assert_eq!(peer == Peer::Trusted, is_trusted, "{uid} {is_held} {own_uid}: {peer:?}");
        }
    }
}
