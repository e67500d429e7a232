//! Looks up the owner of a TCP socket on Linux.
//!
//! Owns the netlink socket. `peer_of` calls [`owner`] on a thread of its pool.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::owner::Owner;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Whether sock_diag has ever found a socket; before that, the kernel may lack sock_diag.
static DIAG_WORKS: AtomicBool = AtomicBool::new(false);

/// The owner of the socket at `local` that is connected to `remote`; `None` when there is no such socket.
pub(super) fn owner(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<Owner>> {
    let result = query_kernel(local, remote);
    if let Ok(found) = result
        && (found.is_some() || DIAG_WORKS.load(Ordering::Relaxed))
    {
        DIAG_WORKS.store(true, Ordering::Relaxed);
        return Ok(found);
    }
    read_table(local, remote)
}

/// The length of a netlink header, in bytes (linux/netlink.h).
const NETLINK_HEADER_BYTES: usize = 16;
/// The length of a request: a header and `struct inet_diag_req_v2` (linux/inet_diag.h).
const REQUEST_BYTES: usize = NETLINK_HEADER_BYTES + 56;
/// The length of a response: a header and `struct inet_diag_msg`.
const RESPONSE_BYTES: usize = NETLINK_HEADER_BYTES + 72;
/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h).
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR`.
const NLMSG_ERROR: u16 = 2;
/// `TCP_LISTEN` (linux/tcp_states.h): the kernel returns a listener when no connection has the addresses.
const TCP_LISTEN: u8 = 10;

fn query_kernel(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<Owner>> {
    let mut cached = DIAG_SOCKET.lock().unwrap_or_else(PoisonError::into_inner);
    let found = query_on(&mut cached, local, remote);
    if found.is_err() {
        // A late response would be taken for the response to the next request.
        *cached = None;
    }
    found
}

/// The netlink socket. It stays open, because a new one cannot be opened when no file descriptor is free.
static DIAG_SOCKET: Mutex<Option<OwnedFd>> = Mutex::new(None);

fn query_on(
    cached: &mut Option<OwnedFd>,
    local: SocketAddr,
    remote: SocketAddr,
) -> io::Result<Option<Owner>> {
    let socket = match cached {
        Some(socket) => socket,
        None => cached.insert(rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )?),
    };
    let request = encode_request(local, remote);
    rustix::net::sendto(&*socket, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    // The kernel responds before `sendto` returns.
    let mut response = [0; 512];
    let (length, _) = rustix::net::recv(&*socket, &mut response, RecvFlags::DONTWAIT)?;
    parse_response(&response[..length.min(response.len())], remote)
}

fn encode_request(local: SocketAddr, remote: SocketAddr) -> [u8; REQUEST_BYTES] {
    let mut request = [0; REQUEST_BYTES];
    let mut put = |at: usize, bytes: &[u8]| request[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &(REQUEST_BYTES as u32).to_ne_bytes());
    put(4, &SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    // NLM_F_REQUEST
    put(6, &1_u16.to_ne_bytes());
    let (family, protocol) = (if local.is_ipv4() { 2 } else { 10 }, 6);
    put(NETLINK_HEADER_BYTES, &[family, protocol]);
    // Every state.
    put(NETLINK_HEADER_BYTES + 4, &u32::MAX.to_ne_bytes());
    put(NETLINK_HEADER_BYTES + 8, &local.port().to_be_bytes());
    put(NETLINK_HEADER_BYTES + 10, &remote.port().to_be_bytes());
    let mut put_ip = |at: usize, ip: IpAddr| match ip {
        IpAddr::V4(ip) => put(at, &ip.octets()),
        IpAddr::V6(ip) => put(at, &ip.octets()),
    };
    put_ip(NETLINK_HEADER_BYTES + 12, local.ip());
    put_ip(NETLINK_HEADER_BYTES + 28, remote.ip());
    // INET_DIAG_NOCOOKIE
    put(NETLINK_HEADER_BYTES + 48, &[0xff; 8]);
    request
}

fn parse_response(response: &[u8], remote: SocketAddr) -> io::Result<Option<Owner>> {
    let short = || io::Error::other("the kernel's response about a socket is too short");
    let u32_at = |at: usize| {
        let bytes = response.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_ne_bytes).ok_or_else(short)
    };
    // Length, then kind and flags.
    let kind = u16::from_ne_bytes([*response.get(4).ok_or_else(short)?, *response.get(5).ok_or_else(short)?]);
    if kind == NLMSG_ERROR {
        let error = rustix::io::Errno::from_raw_os_error(
            (u32_at(NETLINK_HEADER_BYTES)?.cast_signed()).wrapping_neg(),
        );
        return if error == rustix::io::Errno::NOENT { Ok(None) } else { Err(error.into()) };
    }
    if kind != SOCK_DIAG_BY_FAMILY || response.len() < RESPONSE_BYTES {
        return Err(short());
    }
    let remote_port =
        u16::from_be_bytes([response[NETLINK_HEADER_BYTES + 6], response[NETLINK_HEADER_BYTES + 7]]);
    if response[NETLINK_HEADER_BYTES + 1] == TCP_LISTEN || remote_port != remote.port() {
        return Ok(None);
    }
    Ok(Some(Owner {
        uid: u32_at(NETLINK_HEADER_BYTES + 64)?,
        is_held: u32_at(NETLINK_HEADER_BYTES + 68)? != 0,
    }))
}

/// [`query_kernel`] by the table of all connections, which takes longer the more there are.
#[expect(clippy::disallowed_methods, reason = "it runs on a thread of the pool")]
fn read_table(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<Owner>> {
    let path = if local.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
    Ok(find_in_table(&std::fs::read_to_string(path)?, local, remote))
}

fn find_in_table(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<Owner> {
    let (local, remote) = (format_address(local), format_address(remote));
    table.lines().find_map(|line| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let is_match = columns.next() == Some(local.as_str()) && columns.next() == Some(remote.as_str());
        // The columns before the user are state, queues, timer and retransmits; a timeout precedes the inode.
        let uid = columns.nth(4).filter(|_| is_match)?.parse().ok()?;
        Some(Owner { uid, is_held: columns.nth(1)? != "0" })
    })
}

/// An address in the format of the table: 32-bit words in native byte order, in hexadecimal.
fn format_address(address: SocketAddr) -> String {
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

    fn by_netlink_and_table(local: SocketAddr, remote: SocketAddr) -> [Option<Owner>; 2] {
        [query_kernel(local, remote).unwrap(), read_table(local, remote).unwrap()]
    }

    #[test]
    fn socket_owner_is_found_by_netlink_and_table_while_held() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // A machine without IPv6 has no IPv6 connections.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, remote) = listener.accept().unwrap();
            let local = server.local_addr().unwrap();
            let owner = Owner { uid: rustix::process::geteuid().as_raw(), is_held: true };
            assert_eq!(by_netlink_and_table(remote, local), [Some(owner); 2], "{address}");
            assert_eq!(by_netlink_and_table(local, remote), [Some(owner); 2], "{address}");
            client.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(by_netlink_and_table(remote, local), [Some(owner); 2], "a closed half is still held");
            drop(client);
            for owner in by_netlink_and_table(remote, local) {
                assert!(owner.is_none_or(|owner| !owner.is_held), "{owner:?}");
            }
            // A listener at the address of a closed client is another socket.
            let unconnected = SocketAddr::new(local.ip(), 1);
            assert_eq!(by_netlink_and_table(local, unconnected), [None; 2]);
        }
    }
}
