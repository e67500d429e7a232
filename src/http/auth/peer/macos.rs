//! Reads the list of TCP connections on macOS, which every user may read.

use std::net::SocketAddr;

use sysctl::{Ctl, CtlValue, Sysctl, SysctlError};

use super::owner::Peer;
use super::pcblist::peer_in;

/// The name of the list; that of IPv6 connections is the same.
const CONNECTIONS: &str = "net.inet.tcp.pcblist_n";
/// How often it is read when it grows meanwhile.
const READ_ATTEMPTS: u32 = 3;

/// The user at the other end of the connection from `remote` to `local`; blocks.
pub(super) fn find_peer(remote: SocketAddr, local: SocketAddr) -> Peer {
    let own_uid = rustix::process::geteuid().as_raw();
    let mut peer = Peer::Unknown(String::new());
    for _ in 0..READ_ATTEMPTS {
        peer = match read() {
            Ok(list) => peer_in(&list, remote, local, own_uid),
            Err(error) => Peer::Unknown(format!("{CONNECTIONS}: {error}")),
        };
        if !matches!(peer, Peer::Unknown(_)) {
            break;
        }
    }
    peer
}

/// The list; an empty one, which has no end, where the system has something else under the name.
fn read() -> Result<Vec<u8>, SysctlError> {
    Ok(match Ctl::new(CONNECTIONS)?.value()? {
        CtlValue::Struct(list) | CtlValue::Node(list) => list,
        _ => Vec::new(),
    })
}
