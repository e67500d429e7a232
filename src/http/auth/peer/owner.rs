//! The owner of a socket, and whether codexd serves it.

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

/// The owner of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    /// Whether a process has the socket open.
    pub(super) is_held: bool,
}

/// Classifies a socket owner; `own_uid` is the user of codexd.
pub(super) fn classify_owner(owner: Owner, own_uid: u32) -> Peer {
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

#[cfg(test)]
mod tests {
    use super::*;

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
