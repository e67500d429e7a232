//! Identifies the user at the other end of a connection: every user of the machine can connect to a loopback listener.
//!
//! `server` calls [`peer_of`] once per connection. Linux reports the owner of a socket by its two addresses
//! (sock_diag(7), or /proc/net/tcp where that is missing), macOS in its list of all connections.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
mod owner;
#[cfg(any(target_os = "macos", test))]
mod pcblist;

use std::net::SocketAddr;
use std::time::Duration;

use crate::blocking::Pool;
#[cfg(target_os = "macos")]
use macos::find_peer;
pub use owner::Peer;

/// How long the kernel may take to respond.
const KERNEL_TIMEOUT: Duration = Duration::from_secs(5);
static POOL: Pool = Pool::new("peers", 1, 3);

/// Looks up the owner of the socket at `remote` that is connected to `local`.
///
/// Linux reports root as the owner of a socket that no process holds, whichever user created it. So such a socket is
/// not trusted: any user could send something and exit.
pub async fn peer_of(remote: SocketAddr, local: SocketAddr) -> Peer {
    match POOL.run(KERNEL_TIMEOUT, move || find_peer(remote, local)).await {
        Ok(peer) => peer,
        Err(unanswered) => Peer::Unknown(format!("the kernel {unanswered}")),
    }
}

/// [`peer_of`]; blocks.
#[cfg(target_os = "linux")]
fn find_peer(remote: SocketAddr, local: SocketAddr) -> Peer {
    match linux::owner(remote, local) {
        Ok(Some(owner)) => owner::classify_owner(owner, rustix::process::geteuid().as_raw()),
        Ok(None) => Peer::Unowned,
        Err(error) => Peer::Unknown(error.to_string()),
    }
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
}
