//! Linux: what the kernel knows of a socket.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::Peer;

/// Who has a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    uid: u32,
    /// Whether a process has it open.
    is_held: bool,
}

/// What is to be thought of the connection from `theirs` to `ours`.
pub(in crate::http) fn peer_of(theirs: SocketAddr, ours: SocketAddr) -> Peer {
    match owner(theirs, ours) {
        Ok(Some(owner)) => judge(owner, rustix::process::geteuid().as_raw()),
        Ok(None) => Peer::Nobody,
        Err(error) => Peer::Unknown(error.to_string()),
    }
}

fn judge(owner: Owner, us: u32) -> Peer {
    let Owner { uid, is_held } = owner;
    // The user of a socket that nobody holds is believed only where it is not the one that all such sockets have.
    if (uid == us && (is_held || us != 0)) || (uid == 0 && is_held) {
        return Peer::Ours;
    }
    match is_held {
        true => Peer::Foreign(format!("it belongs to user {uid}, and codexd serves user {us} and root only")),
        false => Peer::Nobody,
    }
}

/// Whether sock_diag has ever found a socket; before that it may only be that the kernel has no sock_diag.
static DIAG_WORKS: AtomicBool = AtomicBool::new(false);

/// The owner of the socket at `local` that is connected to `remote`; `None` when there is no such socket.
fn owner(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<Owner>> {
    let asked = ask_kernel(local, remote);
    if let Ok(found) = asked
        && (found.is_some() || DIAG_WORKS.load(Ordering::Relaxed))
    {
        DIAG_WORKS.store(true, Ordering::Relaxed);
        return Ok(found);
    }
    read_table(local, remote)
}

/// The length of a netlink header, in bytes (linux/netlink.h).
const HEADER: usize = 16;
/// The length of a question: a header and `struct inet_diag_req_v2` (linux/inet_diag.h).
const QUESTION: usize = HEADER + 56;
/// The length of an answer: a header and `struct inet_diag_msg`.
const ANSWER: usize = HEADER + 72;
/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `TCP_LISTEN` (linux/tcp_states.h): what the kernel offers when no connection has the addresses.
const LISTEN: u8 = 10;

fn ask_kernel(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<Owner>> {
    let mut line = LINE.lock().unwrap_or_else(PoisonError::into_inner);
    let found = ask_on(&mut line, local, remote);
    if found.is_err() {
        // What is still to come on it would be taken for the answer to the next question.
        *line = None;
    }
    found
}

/// The one line to the kernel, which is kept: a connection may have taken the last descriptor.
static LINE: Mutex<Option<OwnedFd>> = Mutex::new(None);

fn ask_on(line: &mut Option<OwnedFd>, local: SocketAddr, remote: SocketAddr) -> io::Result<Option<Owner>> {
    let socket = match line {
        Some(socket) => socket,
        None => line.insert(rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )?),
    };
    let text = question(local, remote);
    rustix::net::sendto(&*socket, &text, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    // The kernel answers before the sending returns.
    let mut answer = [0; 512];
    let (length, _) = rustix::net::recv(&*socket, &mut answer, RecvFlags::DONTWAIT)?;
    read_answer(&answer[..length.min(answer.len())], remote)
}

fn question(local: SocketAddr, remote: SocketAddr) -> [u8; QUESTION] {
    let mut text = [0; QUESTION];
    let mut put = |at: usize, bytes: &[u8]| text[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &(QUESTION as u32).to_ne_bytes());
    put(4, &BY_FAMILY.to_ne_bytes());
    // NLM_F_REQUEST
    put(6, &1_u16.to_ne_bytes());
    let (family, protocol) = (if local.is_ipv4() { 2 } else { 10 }, 6);
    put(HEADER, &[family, protocol]);
    // Every state.
    put(HEADER + 4, &u32::MAX.to_ne_bytes());
    put(HEADER + 8, &local.port().to_be_bytes());
    put(HEADER + 10, &remote.port().to_be_bytes());
    let mut put_ip = |at: usize, ip: IpAddr| match ip {
        IpAddr::V4(ip) => put(at, &ip.octets()),
        IpAddr::V6(ip) => put(at, &ip.octets()),
    };
    put_ip(HEADER + 12, local.ip());
    put_ip(HEADER + 28, remote.ip());
    // INET_DIAG_NOCOOKIE
    put(HEADER + 48, &[0xff; 8]);
    text
}

fn read_answer(answer: &[u8], remote: SocketAddr) -> io::Result<Option<Owner>> {
    let short = || io::Error::other("the kernel's answer about a socket is too short");
    let u32_at = |at: usize| {
        let bytes = answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_ne_bytes).ok_or_else(short)
    };
    // Length, then kind and flags.
    let kind = u16::from_ne_bytes([*answer.get(4).ok_or_else(short)?, *answer.get(5).ok_or_else(short)?]);
    if kind == ERROR {
        let error = rustix::io::Errno::from_raw_os_error((u32_at(HEADER)?.cast_signed()).wrapping_neg());
        return if error == rustix::io::Errno::NOENT { Ok(None) } else { Err(error.into()) };
    }
    if kind != BY_FAMILY || answer.len() < ANSWER {
        return Err(short());
    }
    let remote_port = u16::from_be_bytes([answer[HEADER + 6], answer[HEADER + 7]]);
    if answer[HEADER + 1] == LISTEN || remote_port != remote.port() {
        return Ok(None);
    }
    Ok(Some(Owner { uid: u32_at(HEADER + 64)?, is_held: u32_at(HEADER + 68)? != 0 }))
}

/// The same from the table of all connections, which takes longer the more there are.
#[expect(clippy::disallowed_methods, reason = "it runs on a thread of the pool")]
fn read_table(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<Owner>> {
    let path = if local.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
    Ok(find(&std::fs::read_to_string(path)?, local, remote))
}

fn find(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<Owner> {
    let (local, remote) = (in_table(local), in_table(remote));
    table.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let is_it = words.next() == Some(local.as_str()) && words.next() == Some(remote.as_str());
        // State, queues, timer and retransmits stand before the user, a timeout before the inode.
        let uid = words.nth(4).filter(|_| is_it)?.parse().ok()?;
        Some(Owner { uid, is_held: words.nth(1)? != "0" })
    })
}

/// An address as the table writes it: words of 32 bits in the order of the machine, in hexadecimal.
fn in_table(address: SocketAddr) -> String {
    let octets = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words = octets.chunks_exact(4).filter_map(|word| Some(u32::from_ne_bytes(word.try_into().ok()?)));
    let ip: String = words.map(|word| format!("{word:08X}")).collect();
    format!("{ip}:{:04X}", address.port())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn both(local: SocketAddr, remote: SocketAddr) -> [Option<Owner>; 2] {
        [ask_kernel(local, remote).unwrap(), read_table(local, remote).unwrap()]
    }

    #[test]
    fn the_owner_of_a_socket_is_found_both_ways_as_long_as_somebody_holds_it() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // A machine without IPv6 has no such connections either.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, theirs) = listener.accept().unwrap();
            let ours = server.local_addr().unwrap();
            let owner = Owner { uid: rustix::process::geteuid().as_raw(), is_held: true };
            assert_eq!(both(theirs, ours), [Some(owner); 2], "{address}");
            assert_eq!(both(ours, theirs), [Some(owner); 2], "{address}");
            client.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(both(theirs, ours), [Some(owner); 2], "a closed half is still held");
            drop(client);
            for owner in both(theirs, ours) {
                assert!(owner.is_none_or(|owner| !owner.is_held), "{owner:?}");
            }
            // Somebody who listens at the address of the one who left is not that one.
            let nobody = SocketAddr::new(ours.ip(), 1);
            assert_eq!(both(ours, nobody), [None; 2]);
        }
    }

    #[test]
    fn only_the_user_of_codexd_and_root_are_let_in_and_nobody_who_has_left() {
        for (uid, is_held, us, is_ours) in [
            (501, true, 501, true),
            (0, true, 501, true),
            (502, true, 501, false),
            (501, true, 0, false),
            (0, true, 0, true),
            // For the system, what nobody holds belongs to root.
            (0, false, 501, false),
            (0, false, 0, false),
            (501, false, 501, true),
        ] {
            let peer = judge(Owner { uid, is_held }, us);
            assert_eq!(peer == Peer::Ours, is_ours, "{uid} {is_held} {us}: {peer:?}");
        }
    }
}
