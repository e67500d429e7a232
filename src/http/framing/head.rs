//! The head of a request, looked at byte by byte before anybody believes it (RFC 9112).
//!
//! Whoever reads a request differently from the one in front of it can be made to see a second request in its body.
//! So what can be read in two ways is refused: bare line feeds, folded lines, two lengths, a length beside chunks.

use axum::http::{HeaderValue, Method, Uri};

/// The longest head, in bytes.
pub(crate) const MAX_HEAD_BYTES: usize = 16 * 1024;
/// The most headers.
const MAX_HEADERS: usize = 100;

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After so many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
}

/// A whole head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Its length, with the empty line and with empty lines in front of it, in bytes.
    pub(crate) length: usize,
    pub(crate) framing: Framing,
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// It breaks this rule, half a sentence.
    Malformed(&'static str),
    /// It is over [`MAX_HEAD_BYTES`] bytes or [`MAX_HEADERS`] headers.
    TooLarge,
}

/// Finds the end of a head that comes in pieces.
#[derive(Debug, Default)]
pub(crate) struct HeadScanner {
    /// How many bytes were looked at.
    scanned: usize,
    /// Where the line begins that is not over yet.
    line: usize,
    /// Whether a line that is not empty was scanned.
    begun: bool,
}

impl HeadScanner {
    /// Looks at what came, which is what it saw before and more; `None` when more is needed.
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
            // RFC 9112 section 2.2: empty lines in front of a request are passed over.
            self.begun |= !is_empty;
        }
        self.scanned = bytes.len();
        if bytes.len() > MAX_HEAD_BYTES { Err(HeadError::TooLarge) } else { Ok(None) }
    }

    /// Whether anything of a head has come.
    pub(crate) fn has_begun(&self) -> bool {
        self.scanned > 0
    }
}

fn parse(bytes: &[u8]) -> Result<Head, HeadError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => length,
        Ok(_) => return Err(HeadError::Malformed("its end is not where it seems to be")),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge),
        Err(httparse::Error::Version) => return Err(HeadError::Malformed("it is not HTTP/1.1 or HTTP/1.0")),
        Err(httparse::Error::HeaderName) => return Err(HeadError::Malformed("a header has no proper name")),
        Err(httparse::Error::HeaderValue) => {
            return Err(HeadError::Malformed("a header has a character that none may have"));
        }
        Err(_) => return Err(HeadError::Malformed("its first line is not METHOD TARGET HTTP/1.1")),
    };
    // What the parser behind this one would stumble over.
    let method = request.method.unwrap_or_default();
    let target = request.path.unwrap_or_default();
    if Method::from_bytes(method.as_bytes()).is_err() || Uri::try_from(target).is_err() {
        return Err(HeadError::Malformed("its method or its target cannot be read"));
    }
    let is_old = request.version == Some(0);
    let (mut length_given, mut chunked) = (None, false);
    for header in request.headers.iter() {
        if HeaderValue::from_bytes(header.value).is_err() {
            return Err(HeadError::Malformed("a header has a character that none may have"));
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            if length_given.is_some() {
                return Err(HeadError::Malformed("it has more than one Content-Length"));
            }
            let length = parse_length(header.value);
            length_given = Some(length.ok_or(HeadError::Malformed("its Content-Length is not a number"))?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if chunked || !header.value.eq_ignore_ascii_case(b"chunked") || is_old {
                return Err(HeadError::Malformed("its Transfer-Encoding is another than chunked"));
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

/// Digits only: a sign or a list would be a length for some and none for others.
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

    fn refusal(text: &str) -> HeadError {
        scan(text).expect_err(text)
    }

    #[test]
    fn a_head_ends_at_its_empty_line_however_it_comes() {
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
    fn what_can_be_read_in_two_ways_is_refused() {
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
            assert!(matches!(refusal(text), HeadError::Malformed(_)), "{text:?}");
        }
        assert_eq!(
            scan("POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n").unwrap().unwrap().framing,
            Framing::Chunked
        );
    }

    #[test]
    fn a_head_over_the_limit_is_refused_as_soon_as_that_is_known() {
        let head = |length: usize| {
            let rest = "GET / HTTP/1.1\r\nA: \r\n\r\n".len();
            format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(length - rest))
        };
        assert_eq!(scan(&head(MAX_HEAD_BYTES)).unwrap().unwrap().length, MAX_HEAD_BYTES);
        assert_eq!(refusal(&head(MAX_HEAD_BYTES + 1)), HeadError::TooLarge);
        assert_eq!(refusal(&"a".repeat(MAX_HEAD_BYTES + 1)), HeadError::TooLarge);
        let many = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
        assert!(scan(&many(MAX_HEADERS)).unwrap().is_some());
        assert_eq!(refusal(&many(MAX_HEADERS + 1)), HeadError::TooLarge);
    }
}
