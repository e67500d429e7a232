//! Checks the framing of HTTP/1.1 requests (RFC 9112) before the HTTP parser reads them.

pub(super) mod chunks;
pub(super) mod framer;
pub(super) mod head;
