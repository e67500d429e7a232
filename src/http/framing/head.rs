//! Scans the head of a request before the HTTP parser reads it (RFC 9112).
//!
//! A server that parses a request differently from the proxy in front of it can be made to see a second request in the
//! body (request smuggling). So every ambiguous head is rejected: bare line feeds, folded lines, two lengths, a length
//! beside a transfer encoding.
//!
//! [`HeadScanner`] owns only its position; `framer` feeds it the bytes. Invariant: a head that is accepted here is
//! accepted by hyper, with the same framing.

use axum::http::{HeaderValue, Method, Uri};

/// The maximum length of a head, in bytes.
pub(crate) const MAX_HEAD_BYTES: usize = 16 * 1024;
/// The maximum number of headers.
const MAX_HEADERS: usize = 100;

/// How the end of a body is determined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After this many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
}

/// A complete head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Its length in bytes, including the final empty line and empty lines before the request line.
    pub(crate) length: usize,
    pub(crate) framing: Framing,
}

/// Why a head is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// It violates this rule; the text is a clause.
    Malformed(&'static str),
    /// It exceeds [`MAX_HEAD_BYTES`] or [`MAX_HEADERS`].
    TooLarge,
}

/// Finds the end of a head that arrives in pieces.
#[derive(Debug, Default)]
pub(crate) struct HeadScanner {
    /// How many bytes were scanned.
    scanned: usize,
    /// Where the current line starts.
    line: usize,
    /// Whether a non-empty line was scanned.
    begun: bool,
}

impl HeadScanner {
    /// Scans `bytes`, which start with the bytes of the previous call; `None` when more are needed.
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> Result<Option<Head>, HeadError> {
        while let Some(found) = bytes.get(self.scanned..).and_then(|rest| memchr::memchr(b'\n', rest)) {
            let feed = self.scanned + found;
            self.scanned = feed + 1;
            if feed == self.line || bytes[feed - 1] != b'\r' {
                return Err(HeadError::Malformed("a line ends with a line feed alone"));
            }
            let is_empty = feed == self.line + 1;
            self.line = self.scanned;
            if self.scanned > MAX_HEAD_BYTES {
                return Err(HeadError::TooLarge);
            }
            if is_empty && self.begun {
                return parse(&bytes[..self.scanned]).map(Some);
            }
            // RFC 9112 section 2.2: empty lines before a request are skipped.
            self.begun |= !is_empty;
        }
        self.scanned = bytes.len();
        if bytes.len() > MAX_HEAD_BYTES { Err(HeadError::TooLarge) } else { Ok(None) }
    }

    /// Whether any byte of a head has arrived.
    pub(crate) fn has_begun(&self) -> bool {
        self.scanned > 0
    }
}

fn parse(bytes: &[u8]) -> Result<Head, HeadError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => length,
        Ok(_) => return Err(HeadError::Malformed("its end is ambiguous")),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge),
        Err(httparse::Error::Version) => return Err(HeadError::Malformed("it is not HTTP/1.1 or HTTP/1.0")),
        Err(httparse::Error::HeaderName) => return Err(HeadError::Malformed("a header has an invalid name")),
        Err(httparse::Error::HeaderValue) => {
            return Err(HeadError::Malformed("a header has an invalid character"));
        }
        Err(_) => return Err(HeadError::Malformed("its first line is not METHOD TARGET HTTP/1.1")),
    };
    // hyper would fail on these.
    let method = request.method.unwrap_or_default();
    let target = request.path.unwrap_or_default();
    if Method::from_bytes(method.as_bytes()).is_err() || Uri::try_from(target).is_err() {
        return Err(HeadError::Malformed("its method or its target is invalid"));
    }
    let is_old = request.version == Some(0);
    let (mut length_given, mut chunked) = (None, false);
    for header in request.headers.iter() {
        if HeaderValue::from_bytes(header.value).is_err() {
            return Err(HeadError::Malformed("a header has an invalid character"));
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            if length_given.is_some() {
                return Err(HeadError::Malformed("it has more than one Content-Length"));
            }
            let length = parse_length(header.value);
            length_given = Some(length.ok_or(HeadError::Malformed("its Content-Length is not a number"))?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if chunked || !header.value.eq_ignore_ascii_case(b"chunked") || is_old {
                return Err(HeadError::Malformed("its Transfer-Encoding is not chunked"));
            }
            chunked = true;
        }
    }
    let framing = match (length_given, chunked) {
        (Some(_), true) => {
            return Err(HeadError::Malformed("it has both a Content-Length and a Transfer-Encoding"));
        }
        (None, true) => Framing::Chunked,
        (length, false) => Framing::Length(length.unwrap_or(0)),
    };
    Ok(Head { length, framing })
}

/// Parses digits only: parsers disagree about signs and lists.
fn parse_length(value: &[u8]) -> Option<u64> {
    let is_number = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| is_number)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> Result<Option<Head>, HeadError> {
        HeadScanner::default().scan(text.as_bytes())
    }

    fn rejection(text: &str) -> HeadError {
        scan(text).expect_err(text)
    }

    #[test]
    fn head_scanner_finds_empty_line_for_any_split() {
        let text = "\r\nPOST /a HTTP/1.1\r\nHost: h\r\nContent-Length:  5 \r\n\r\nhello";
        let whole = Head { length: text.len() - 5, framing: Framing::Length(5) };
        assert_eq!(scan(text), Ok(Some(whole)));
        let mut scanner = HeadScanner::default();
        for end in 0..whole.length {
            assert_eq!(scanner.scan(&text.as_bytes()[..end]), Ok(None), "{end}");
        }
        assert_eq!(scanner.scan(text.as_bytes()), Ok(Some(whole)));
    }

    #[test]
    fn head_scanner_rejects_ambiguous_heads() {
        for text in [
            "GET / HTTP/1.1\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\n",
            "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: h\r\n\r\n",
            "GET /\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(matches!(rejection(text), HeadError::Malformed(_)), "{text:?}");
        }
        assert_eq!(
            scan("POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n").unwrap().unwrap().framing,
            Framing::Chunked
        );
    }

    #[test]
    fn head_scanner_rejects_oversized_head_at_the_limit() {
        let head = |length: usize| {
            let rest = "GET / HTTP/1.1\r\nA: \r\n\r\n".len();
            format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(length - rest))
        };
        assert_eq!(scan(&head(MAX_HEAD_BYTES)).unwrap().unwrap().length, MAX_HEAD_BYTES);
        assert_eq!(rejection(&head(MAX_HEAD_BYTES + 1)), HeadError::TooLarge);
        assert_eq!(rejection(&"a".repeat(MAX_HEAD_BYTES + 1)), HeadError::TooLarge);
        let many = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
        assert!(scan(&many(MAX_HEADERS)).unwrap().is_some());
        assert_eq!(rejection(&many(MAX_HEADERS + 1)), HeadError::TooLarge);
    }
}
