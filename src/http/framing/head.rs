//! The head of a request, looked at byte by byte before anybody believes it (RFC 9112).
//!
//! Whoever reads a request differently from the one in front of it can be made to see a second request in its body.
//! So what can be read in two ways is refused: bare line feeds, folded lines, two lengths, a length beside chunks.

use axum::http::{HeaderValue, Method, Uri};

/// The longest head, in bytes.
pub(crate) const HEAD: usize = 16 * 1024;
/// The most headers.
const HEADERS: usize = 100;

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
pub(crate) enum Refused {
    /// It breaks this rule, half a sentence.
    Malformed(&'static str),
    /// It is over [`HEAD`] bytes or [`HEADERS`] headers.
    TooLarge,
}

/// Finds the end of a head that comes in pieces.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    /// How many bytes were looked at.
    seen: usize,
    /// Where the line begins that is not over yet.
    line: usize,
    /// Whether a line that is not empty was seen.
    begun: bool,
}

impl Scanner {
    /// Looks at what came, which is what it saw before and more; `None` when more is needed.
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> Result<Option<Head>, Refused> {
        while let Some(found) = bytes.get(self.seen..).and_then(|rest| memchr::memchr(b'\n', rest)) {
            let feed = self.seen + found;
            self.seen = feed + 1;
            if feed == self.line || bytes[feed - 1] != b'\r' {
                return Err(Refused::Malformed("a line ends with a line feed alone"));
            }
            let is_empty = feed == self.line + 1;
            self.line = self.seen;
            if self.seen > HEAD {
                return Err(Refused::TooLarge);
            }
            if is_empty && self.begun {
                return parse(&bytes[..self.seen]).map(Some);
            }
            // RFC 9112 section 2.2: empty lines in front of a request are passed over.
            self.begun |= !is_empty;
        }
        self.seen = bytes.len();
        if bytes.len() > HEAD { Err(Refused::TooLarge) } else { Ok(None) }
    }

    /// Whether anything of a head has come.
    pub(crate) fn has_begun(&self) -> bool {
        self.seen > 0
    }
}

fn parse(bytes: &[u8]) -> Result<Head, Refused> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => length,
        Ok(_) => return Err(Refused::Malformed("its end is not where it seems to be")),
        Err(httparse::Error::TooManyHeaders) => return Err(Refused::TooLarge),
        Err(httparse::Error::Version) => return Err(Refused::Malformed("it is not HTTP/1.1 or HTTP/1.0")),
        Err(httparse::Error::HeaderName) => return Err(Refused::Malformed("a header has no proper name")),
        Err(httparse::Error::HeaderValue) => {
            return Err(Refused::Malformed("a header has a character that none may have"));
        }
        Err(_) => return Err(Refused::Malformed("its first line is not METHOD TARGET HTTP/1.1")),
    };
    // What the parser behind this one would stumble over.
    let method = request.method.unwrap_or_default();
    let target = request.path.unwrap_or_default();
    if Method::from_bytes(method.as_bytes()).is_err() || Uri::try_from(target).is_err() {
        return Err(Refused::Malformed("its method or its target cannot be read"));
    }
    let is_old = request.version == Some(0);
    let (mut length_given, mut chunked) = (None, false);
    for header in request.headers.iter() {
        if HeaderValue::from_bytes(header.value).is_err() {
            return Err(Refused::Malformed("a header has a character that none may have"));
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            if length_given.is_some() {
                return Err(Refused::Malformed("it has more than one Content-Length"));
            }
            let length = parse_length(header.value);
            length_given = Some(length.ok_or(Refused::Malformed("its Content-Length is not a number"))?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if chunked || !header.value.eq_ignore_ascii_case(b"chunked") || is_old {
                return Err(Refused::Malformed("its Transfer-Encoding is another than chunked"));
            }
            chunked = true;
        }
    }
    let framing = match (length_given, chunked) {
        (Some(_), true) => {
            return Err(Refused::Malformed("it has both a Content-Length and a Transfer-Encoding"));
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

    fn scan(text: &str) -> Result<Option<Head>, Refused> {
        Scanner::default().scan(text.as_bytes())
    }

    fn refusal(text: &str) -> Refused {
        scan(text).expect_err(text)
    }

    #[test]
    fn a_head_ends_at_its_empty_line_however_it_comes() {
        let text = "\r\nPOST /a HTTP/1.1\r\nHost: h\r\nContent-Length:  5 \r\n\r\nhello";
        let whole = Head { length: text.len() - 5, framing: Framing::Length(5) };
        assert_eq!(scan(text), Ok(Some(whole)));
        let mut scanner = Scanner::default();
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
            assert!(matches!(refusal(text), Refused::Malformed(_)), "{text:?}");
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
        assert_eq!(scan(&head(HEAD)).unwrap().unwrap().length, HEAD);
        assert_eq!(refusal(&head(HEAD + 1)), Refused::TooLarge);
        assert_eq!(refusal(&"a".repeat(HEAD + 1)), Refused::TooLarge);
        let many = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
        assert!(scan(&many(HEADERS)).unwrap().is_some());
        assert_eq!(refusal(&many(HEADERS + 1)), Refused::TooLarge);
    }
}
