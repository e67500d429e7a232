//! Compares the scanner and the authorization of request heads with a slow and simple reference parser.

use std::net::SocketAddr;

use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, Request, Uri};

use super::{first_line, pieces};
use crate::http::{ChunkedBody, Framing, HeadError, HeadScanner, Peer, check_without_token_file};

/// The allowed origin besides our own.
const ALLOWED_ORIGIN: &str = "https://page.example";
/// The valid values of `Host`.
const HOSTS: [&str; 3] = ["127.0.0.1:4319", "localhost:4319", "[::1]:4319"];

/// The head of a request: the result does not depend on how it is split, and an admitted request has only one reading.
///
/// The first line determines where the rest is split.
pub fn head(data: &[u8]) {
    let (cuts, text) = first_line(data);
    let found = scan(&[text]);
    assert_eq!(scan(&pieces(cuts, text)), found);
    let Ok(Some((length, framing))) = found else { return };
    let (head, body) = text.split_at(length);
    let read = Reading::of(head);
    assert_eq!(framing, read.framing());
    let parts = read.parts();
    let listed = [ALLOWED_ORIGIN.to_owned()];
    let admission =
        |peer| check_without_token_file(SocketAddr::from(([127, 0, 0, 1], 4319)), &listed, &peer, &parts);
    assert_eq!(admission(Peer::Trusted), read.is_admitted().then(|| read.is_preflight()));
    assert_eq!(admission(Peer::Foreign("another user owns the process".to_owned())), None);
    if framing == Framing::Chunked {
        let whole = chunks(&[body]);
        assert_eq!(chunks(&pieces(cuts, body)), whole);
        assert_eq!(whole, end_of_chunks(body));
    }
}

/// The length and framing of a head that arrives in pieces; `None` when it is incomplete.
fn scan(pieces: &[&[u8]]) -> Result<Option<(usize, Framing)>, HeadError> {
    let (mut held, mut scanner) = (Vec::new(), HeadScanner::default());
    for piece in pieces {
        held.extend_from_slice(piece);
        if let Some(head) = scanner.scan(&held)? {
            return Ok(Some((head.length, head.framing)));
        }
    }
    Ok(None)
}

/// The length of a chunked body that arrives in pieces; `None` when it is incomplete.
fn chunks(pieces: &[&[u8]]) -> Result<Option<usize>, ()> {
    let (mut chunks, mut taken) = (ChunkedBody::new(), 0);
    for piece in pieces {
        taken += chunks.take(piece).map_err(|_| ())?;
    }
    Ok(chunks.is_complete().then_some(taken))
}

/// [`chunks`] as a reference implementation, line by line; incomplete lines are left to [`chunks`].
fn end_of_chunks(body: &[u8]) -> Result<Option<usize>, ()> {
    let is_text = |line: &[u8]| line.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f));
    let mut at = 0;
    // The next line without its line break; `None` when it is incomplete.
    let line = |at: &mut usize| -> Option<&[u8]> {
        let length = memchr::memmem::find(&body[*at..], b"\r\n")?;
        let line = &body[*at..*at + length];
        *at += length + 2;
        Some(line)
    };
    loop {
        let began = at;
        let Some(size) = line(&mut at) else { return chunks(&[body]).map(|_| None) };
        let digits = size.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (digits, extension) = size.split_at(digits);
        let digits = std::str::from_utf8(digits).map_err(|_| ())?;
        if digits.len() > 15 || !(extension.is_empty() || extension.starts_with(b";")) || !is_text(extension)
        {
            return Err(());
        }
        let size = usize::from_str_radix(digits, 16).map_err(|_| ())?;
        if at - began > 4096 {
            return Err(());
        }
        if size == 0 {
            break;
        }
        let Some(after) = at.checked_add(size).filter(|after| *after < body.len()) else { return Ok(None) };
        at = after;
        match &body[at..] {
            [b'\r', b'\n', ..] => at += 2,
            [b'\r'] => return Ok(None),
            _ => return Err(()),
        }
    }
    let began = at;
    loop {
        let Some(trailer) = line(&mut at) else { return chunks(&[body]).map(|_| None) };
        if at - began > 4096 || !is_text(trailer) || trailer.starts_with(b" ") || trailer.starts_with(b"\t") {
            return Err(());
        }
        if trailer.is_empty() {
            return Ok(Some(at));
        }
    }
}

/// A head as the reference parser reads it.
struct Reading<'a> {
    method: &'a str,
    target: &'a str,
    version: &'a str,
    headers: Vec<(&'a str, &'a [u8])>,
}

impl<'a> Reading<'a> {
    /// Parses a head that the scanner accepted.
    fn of(head: &'a [u8]) -> Self {
        for (at, byte) in head.iter().enumerate() {
            match byte {
                b'\n' => assert_eq!(head[at - 1], b'\r', "a bare line feed"),
                b'\r' => assert_eq!(head[at + 1], b'\n', "a bare carriage return"),
                0 => panic!("a NUL"),
                _ => {}
            }
        }
        let lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let mut lines = lines.skip_while(|line| line.is_empty()).take_while(|line| !line.is_empty());
        let first = std::str::from_utf8(lines.next().unwrap()).expect("the first line is text");
        let parts: Vec<_> = first.split(' ').collect();
        assert_eq!(parts.len(), 3, "{first:?}");
        let headers: Vec<_> = lines
            .map(|line| {
                let colon = line.iter().position(|byte| *byte == b':').expect("a header has a colon");
                let name = std::str::from_utf8(&line[..colon]).expect("a name is text");
                assert!(!name.is_empty() && !name.contains([' ', '\t']), "{name:?}");
                (name, line[colon + 1..].trim_ascii())
            })
            .collect();
        let mut headers_buffer = [httparse::EMPTY_HEADER; 200];
        let mut request = httparse::Request::new(&mut headers_buffer);
        assert_eq!(request.parse(head), Ok(httparse::Status::Complete(head.len())));
        assert_eq!(request.headers.len(), headers.len());
        Self { method: parts[0], target: parts[1], version: parts[2], headers }
    }

    fn values(&self, name: &str) -> Vec<&'a [u8]> {
        let named = self.headers.iter().filter(|header| header.0.eq_ignore_ascii_case(name));
        named.map(|header| header.1).collect()
    }

    /// The framing of the body, which must be unambiguous.
    fn framing(&self) -> Framing {
        match (&self.values("content-length")[..], &self.values("transfer-encoding")[..]) {
            ([], []) => Framing::Length(0),
            ([length], []) => {
                let digits = std::str::from_utf8(length).expect("a length is text");
                assert!(digits.bytes().all(|byte| byte.is_ascii_digit()), "{digits}");
                Framing::Length(digits.parse().expect("a length is a number"))
            }
            ([], [encoding]) => {
                assert!(encoding.eq_ignore_ascii_case(b"chunked") && self.version == "HTTP/1.1");
                Framing::Chunked
            }
            both => panic!("{both:?}"),
        }
    }

    /// The request as the HTTP parser behind the authorization makes it; the parser must accept it.
    fn parts(&self) -> Parts {
        let mut request = Request::new(());
        *request.method_mut() = Method::from_bytes(self.method.as_bytes()).expect("a method");
        *request.uri_mut() = Uri::try_from(self.target).expect("a target");
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            request.headers_mut().append(name, HeaderValue::from_bytes(value).expect("a value"));
        }
        request.into_parts().0
    }

    fn is_listed(&self) -> bool {
        self.values("origin") == [ALLOWED_ORIGIN.as_bytes()]
    }

    fn is_preflight(&self) -> bool {
        let asks = !self.values("access-control-request-method").is_empty();
        self.method == "OPTIONS" && asks && self.is_listed()
    }

    fn is_admitted(&self) -> bool {
        let is_ours = |host: &str| HOSTS.iter().any(|ours| ours.eq_ignore_ascii_case(host));
        let hosts = self.values("host");
        let [host] = hosts[..] else { return false };
        let Ok(host) = std::str::from_utf8(host) else { return false };
        // A target that is not a path contains an authority, except `*`.
        let is_here = match self.target.split_once("://") {
            _ if self.target.starts_with('/') || self.target == "*" => true,
            Some((scheme, rest)) => {
                let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
                scheme.eq_ignore_ascii_case("http") && is_ours(authority)
            }
            None => is_ours(self.target),
        };
        let own = format!("http://{}", host.to_ascii_lowercase());
        let origins = self.values("origin");
        let is_own = origins.is_empty() || origins == [own.as_bytes()];
        let sites = self.values("sec-fetch-site");
        let is_own_page = sites.is_empty() || sites == [&b"none"[..]] || sites == [&b"same-origin"[..]];
        is_ours(host) && is_here && (self.is_listed() || (is_own && is_own_page))
    }
}
