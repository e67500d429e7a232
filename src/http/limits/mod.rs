//! The limits of connections: how many there may be, and how long a client may take nothing.

pub(super) mod connections;
pub(super) mod write_timeout;
