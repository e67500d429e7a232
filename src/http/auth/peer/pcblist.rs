//! Finds the user of a TCP connection in the list of macOS, `net.inet.tcp.pcblist_n`.
//!
//! The list begins and ends with a `struct xinpgen`. For each socket it has records, each with its length and its kind, padded to
//! 8 bytes: its addresses (`xinpcb_n`), its user (`xsocket_n`), others, and its state (`xtcpcb_n`). The offsets are those of
//! bsd/netinet/in_pcb.h, bsd/sys/socketvar.h and bsd/netinet/tcp_var.h of xnu. Records have grown between versions, so nothing
//! depends on the length of one, and what is not understood is an error.
//!
//! The kernel keeps the user of a socket until it is gone, unlike Linux also when no process holds it any more.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::owner::{Owner, Peer, classify_owner};

/// The length of `struct xinpgen`.
const GENERATION_BYTES: usize = 24;
/// The kinds of records (`XSO_INPCB`, `XSO_SOCKET`, `XSO_TCPCB`).
const KIND_ADDRESSES: u32 = 0x10;
const KIND_SOCKET: u32 = 0x1;
const KIND_STATE: u32 = 0x20;
/// `INP_IPV4` and `INP_IPV6` in `inp_vflag`.
const IS_IPV4: u8 = 0x1;
const IS_IPV6: u8 = 0x2;
/// `TCPS_ESTABLISHED` to `TCPS_FIN_WAIT_2`: connected, or half closed.
const CONNECTED: std::ops::RangeInclusive<u32> = 4..=9;

/// Why a list says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ListError {
    #[error("the list of connections has a layout that codexd does not know")]
    Layout,
    #[error("the list of connections changed while it was read")]
    Incomplete,
    #[error("the list of connections has two with these addresses")]
    Ambiguous,
}

/// The user at the other end of the connection from `remote` to `local`, which is the end of this process.
///
/// A list that does not show this process as the user of its own end is not understood, so it says nothing about the other.
pub(super) fn peer_in(list: &[u8], remote: SocketAddr, local: SocketAddr, own_uid: u32) -> Peer {
    match (find_user(list, local, remote), find_user(list, remote, local)) {
        (Ok(Some(uid)), Ok(peer)) if uid == own_uid => match peer {
            Some(uid) => classify_owner(Owner { uid, is_held: true }, own_uid),
            None => Peer::Unowned,
        },
        (Err(error), _) | (_, Err(error)) => Peer::Unknown(error.to_string()),
        _ => Peer::Unknown(ListError::Layout.to_string()),
    }
}

/// The user of the socket at `local` that is connected to `remote`; `None` when there is no such socket.
fn find_user(list: &[u8], local: SocketAddr, remote: SocketAddr) -> Result<Option<u32>, ListError> {
    if word(list, 0).is_none_or(|length| length as usize != GENERATION_BYTES) {
        return Err(ListError::Layout);
    }
    let mut rest = list.get(GENERATION_BYTES..).ok_or(ListError::Layout)?;
    let (mut is_match, mut uid, mut found) = (false, None, None);
    while rest.len() > GENERATION_BYTES {
        let (length, kind) =
            (word(rest, 0).ok_or(ListError::Layout)? as usize, word(rest, 4).ok_or(ListError::Layout)?);
        let record = rest.get(..length).filter(|record| record.len() >= 8).ok_or(ListError::Incomplete)?;
        match kind {
            KIND_ADDRESSES => {
                is_match = addresses(record).ok_or(ListError::Layout)? == Some((local, remote));
                uid = None;
            }
            KIND_SOCKET if is_match => {
                let of_socket = word(record, 64).ok_or(ListError::Layout)?;
                if uid.replace(of_socket).is_some() {
                    return Err(ListError::Layout);
                }
            }
            KIND_STATE if is_match => {
                let state = word(record, 36).ok_or(ListError::Layout)?;
                let uid = uid.ok_or(ListError::Layout)?;
                if CONNECTED.contains(&state) && found.replace(uid).is_some() {
                    return Err(ListError::Ambiguous);
                }
            }
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(8)..).ok_or(ListError::Incomplete)?;
    }
    // Without its end, the kernel had no space for the rest.
    match rest.len() == GENERATION_BYTES && word(rest, 0) == Some(GENERATION_BYTES as u32) {
        true => Ok(found),
        false => Err(ListError::Incomplete),
    }
}

/// The local and the remote address of a socket; `None` in the option for one of neither IPv4 nor IPv6.
fn addresses(record: &[u8]) -> Option<Option<(SocketAddr, SocketAddr)>> {
    let port = |at: usize| Some(u16::from_be_bytes(record.get(at..at + 2)?.try_into().ok()?));
    let (remote_port, local_port) = (port(16)?, port(18)?);
    let version = *record.get(44)?;
    let address = |at: usize| -> Option<Option<IpAddr>> {
        let bytes: [u8; 16] = record.get(at..at + 16)?.try_into().ok()?;
        let [.., a, b, c, d] = bytes;
        Some(match version {
            version if version & IS_IPV4 != 0 => Some(Ipv4Addr::new(a, b, c, d).into()),
            version if version & IS_IPV6 != 0 => Some(Ipv6Addr::from(bytes).into()),
            _ => None,
        })
    };
    let (remote, local) = (address(48)?, address(64)?);
    Some(
        local.zip(remote).map(|(local, remote)| {
            (SocketAddr::new(local, local_port), SocketAddr::new(remote, remote_port))
        }),
    )
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One socket of a list.
    #[derive(Clone, Copy)]
    struct Socket {
        local: &'static str,
        remote: &'static str,
        uid: u32,
        state: u32,
    }

    const ESTABLISHED: u32 = 4;
    const TIME_WAIT: u32 = 10;
    const OURS: Socket = socket("127.0.0.1:4319", "127.0.0.1:50000", 501);
    const CLIENT: Socket = socket("127.0.0.1:50000", "127.0.0.1:4319", 502);

    const fn socket(local: &'static str, remote: &'static str, uid: u32) -> Socket {
        Socket { local, remote, uid, state: ESTABLISHED }
    }

    fn record(kind: u32, length: usize, values: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; length.next_multiple_of(8)];
        bytes[..4].copy_from_slice(&(length as u32).to_ne_bytes());
        bytes[4..8].copy_from_slice(&kind.to_ne_bytes());
        for (at, value) in values {
            bytes[*at..at + value.len()].copy_from_slice(value);
        }
        bytes
    }

    /// A list as the kernel writes it, whose records are `growth` bytes longer than those that this file was written for.
    fn list(sockets: &[Socket], growth: usize) -> Vec<u8> {
        let generation = || record(sockets.len() as u32, GENERATION_BYTES, &[]);
        let mut list = generation();
        for socket in sockets {
            let (local, remote): (SocketAddr, SocketAddr) =
                (socket.local.parse().unwrap(), socket.remote.parse().unwrap());
            let bytes = |address: SocketAddr| match address.ip() {
                IpAddr::V4(ip) => [&[0; 12], ip.octets().as_slice()].concat(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            let version = [if local.is_ipv4() { IS_IPV4 } else { IS_IPV6 }];
            list.extend(record(
                KIND_ADDRESSES,
                104 + growth,
                &[
                    (16, &remote.port().to_be_bytes()),
                    (18, &local.port().to_be_bytes()),
                    (44, &version),
                    (48, &bytes(remote)),
                    (64, &bytes(local)),
                ],
            ));
            list.extend(record(KIND_SOCKET, 104 + growth, &[(64, &socket.uid.to_ne_bytes())]));
            for (kind, length) in [(0x2, 32), (0x4, 32), (0x8, 112)] {
                list.extend(record(kind, length + growth, &[]));
            }
            list.extend(record(KIND_STATE, 204 + growth, &[(36, &socket.state.to_ne_bytes())]));
        }
        list.extend(generation());
        list
    }

    fn peer(list: &[u8]) -> Peer {
        peer_in(list, "127.0.0.1:50000".parse().unwrap(), "127.0.0.1:4319".parse().unwrap(), 501)
    }

    #[test]
    fn peer_is_found_by_both_addresses() {
        let others = [
            socket("127.0.0.1:50000", "10.0.0.7:4319", 0),
            socket("[::1]:50000", "[::1]:4319", 503),
            socket("[::1]:4319", "[::1]:50000", 501),
            Socket { state: TIME_WAIT, ..socket("127.0.0.1:50000", "127.0.0.1:4319", 503) },
            Socket { state: 1, ..socket("127.0.0.1:4319", "0.0.0.0:0", 501) },
        ];
        let of = |uid| Socket { uid, ..CLIENT };
        for (client, expected) in [
            (Some(of(502)), Peer::User { uid: 502, own_uid: 501 }),
            (Some(of(501)), Peer::Trusted),
            (Some(of(0)), Peer::Trusted),
            // Half closed.
            (Some(Socket { state: 9, ..CLIENT }), Peer::User { uid: 502, own_uid: 501 }),
            (None, Peer::Unowned),
        ] {
            let sockets: Vec<_> = others.into_iter().chain([OURS]).chain(client).collect();
            for growth in [0, 4, 24] {
                assert_eq!(peer(&list(&sockets, growth)), expected);
            }
        }
        let list = list(&others, 0);
        let (remote, local) = ("[::1]:50000".parse().unwrap(), "[::1]:4319".parse().unwrap());
        assert_eq!(peer_in(&list, remote, local, 501), Peer::User { uid: 503, own_uid: 501 });
    }

    #[test]
    fn list_that_is_not_understood_says_nothing() {
        let is_unknown = |list: &[u8]| matches!(peer(list), Peer::Unknown(_));
        let whole = list(&[OURS, CLIENT], 0);
        for length in 0..whole.len() {
            assert!(is_unknown(&whole[..length]), "{length}");
        }
        assert!(is_unknown(&list(&[OURS, CLIENT, CLIENT], 0)), "two have these addresses");
        assert!(is_unknown(&list(&[CLIENT], 0)), "our own end is missing");
        assert!(is_unknown(&list(&[Socket { uid: 7, ..OURS }, CLIENT], 0)), "our own end is of another user");
    }

    #[test]
    fn damaged_list_trusts_nobody_new() {
        let whole = list(&[OURS, CLIENT], 0);
        for at in 0..whole.len() {
            for value in [0, 1, 0x10, 0x20, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                assert_ne!(peer(&damaged), Peer::Trusted, "{value} in byte {at}");
            }
        }
    }
}
