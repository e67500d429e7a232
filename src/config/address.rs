//! The address of the listener and the path of the event stream, parsed strictly.
//!
//! Nothing here may let the daemon listen on anything but loopback, or the event stream hide another route.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::redact::without_secrets;

/// The address of the listener, from `--local-api-base`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalApiBase {
    text: String,
    ip: IpAddr,
    port: u16,
}

/// Why an address is rejected. The messages hide credentials and queries.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not an absolute URL.
    #[error("{0:?} is not an absolute URL; use the form http://127.0.0.1:4319.")]
    NotAUrl(String),
    /// A scheme other than http.
    #[error("the scheme of {0:?} is not http; codexd serves plain HTTP on loopback only.")]
    NotHttp(String),
    /// A user name or password before the host.
    #[error("{0:?} contains credentials; remove everything up to the @.")]
    Credentials(String),
    /// Any host but the three allowed ones.
    #[error(
        "the host of {0:?} is not one of 127.0.0.1, [::1] and localhost; codexd listens on loopback only."
    )]
    NotLoopback(String),
    /// A port that is not a number up to 65535.
    #[error("the port of {0:?} is not a number from 0 to 65535.")]
    Port(String),
    /// A path after the host.
    #[error("{0:?} contains a path; the address must end after the port.")]
    Path(String),
    /// A question mark, with or without a query after it.
    #[error("{0:?} contains a query; the address must end after the port.")]
    Query(String),
    /// A number sign, with or without a fragment after it.
    #[error("{0:?} contains a fragment; the address must end after the port.")]
    Fragment(String),
}

impl LocalApiBase {
    /// Parses an address of the form `http://HOST[:PORT]`, with or without a final slash.
    ///
    /// Nothing is resolved or normalized: a host is one of three spellings or it is rejected, so that no interpretation
    /// of a number or a name can leave this machine.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let shown = || without_secrets(text);
        let (scheme, rest) = text.split_once("://").ok_or_else(|| AddressError::NotAUrl(shown()))?;
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
        // A backslash is a slash for some parsers and part of the host for others.
        if !is_scheme || rest.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
            return Err(AddressError::NotAUrl(shown()));
        }
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(AddressError::NotHttp(shown()));
        }
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.is_empty() {
            return Err(AddressError::NotAUrl(shown()));
        }
        if authority.contains('@') {
            return Err(AddressError::Credentials(shown()));
        }
        let (host, port) = split_port(authority);
        let ip = loopback(host).ok_or_else(|| AddressError::NotLoopback(shown()))?;
        let port = match port {
            None => 80,
            Some(digits) => parse_port(digits).ok_or_else(|| AddressError::Port(shown()))?,
        };
        let (before_fragment, fragment) = tail.split_at(tail.find('#').unwrap_or(tail.len()));
        let (path, query) =
            before_fragment.split_at(before_fragment.find('?').unwrap_or(before_fragment.len()));
        if !matches!(path, "" | "/") {
            return Err(AddressError::Path(shown()));
        }
        if !query.is_empty() {
            return Err(AddressError::Query(shown()));
        }
        if !fragment.is_empty() {
            return Err(AddressError::Fragment(shown()));
        }
        Ok(Self { text: text.to_owned(), ip, port })
    }

    /// The address as given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The address to bind; `localhost` is 127.0.0.1, and with port 0 the system chooses the port.
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }
}

impl fmt::Display for LocalApiBase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// Why a path cannot be that of the event stream.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamPathError {
    /// No leading slash.
    #[error("the path {0:?} does not begin with a slash.")]
    NotAbsolute(String),
    /// A query or a fragment.
    #[error("the path {0:?} contains a query or a fragment; remove it.")]
    QueryOrFragment(String),
    /// White space.
    #[error("the path {0:?} contains white space; remove it.")]
    WhiteSpace(String),
    /// A character that a client would escape or that the router reads as a pattern.
    #[error("the path {0:?} contains {1:?}; use letters, digits, slashes and the characters - . _ ~ only.")]
    Character(String, char),
    /// An empty or dotted segment, which clients normalize away.
    #[error("the path {0:?} contains an empty, a . or a .. segment; remove it.")]
    Segment(String),
    /// Only slashes.
    #[error("the path {0:?} is the root; choose a path such as /v1/codexd/events.")]
    Root(String),
    /// The path of another route.
    #[error("the path {0:?} is a route of codexd; choose a path such as /v1/codexd/events.")]
    Reserved(String),
    /// Letters that must not appear in the document of `/describe`.
    #[error(
        "the path {0:?} contains the letters {1:?}, which GET /describe must not show to clients of the retired batch \
         modes; choose one such as /v1/codexd/events."
    )]
    Retired(String, &'static str),
}

/// The letters that the document of `/describe` never contains, in either case: clients would take them for the retired
/// batch modes.
const RETIRED: [&str; 2] = ["runs", "exec"];

/// The paths of the other routes. A new route has to be added here, so that the event stream cannot hide it.
pub const RESERVED_PATHS: &[&str] = &[
    "/healthz",
    "/describe",
    "/openapi.json",
    "/metrics",
    "/v1/codexd/status",
    "/v1/codexd/sessions",
    "/v1/codexd/turn",
    "/v1/codexd/requests",
];

/// Parses the path of the event stream and removes its trailing slashes.
///
/// Paths below one of [`RESERVED_PATHS`] are rejected too, because routes with parameters are there.
pub fn parse_event_stream_path(text: &str) -> Result<String, StreamPathError> {
    let given = || without_secrets(text);
    if !text.starts_with('/') {
        return Err(StreamPathError::NotAbsolute(given()));
    }
    if text.contains(['?', '#']) {
        return Err(StreamPathError::QueryOrFragment(given()));
    }
    if text.contains(char::is_whitespace) {
        return Err(StreamPathError::WhiteSpace(given()));
    }
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '.' | '_' | '~');
    if let Some(other) = text.chars().find(|c| !is_allowed(*c)) {
        return Err(StreamPathError::Character(given(), other));
    }
    let path = text.trim_end_matches('/');
    if path.is_empty() {
        return Err(StreamPathError::Root(given()));
    }
    if path.split('/').skip(1).any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(StreamPathError::Segment(given()));
    }
    let is_reserved =
        |route: &&str| path.strip_prefix(*route).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if RESERVED_PATHS.iter().any(is_reserved) {
        return Err(StreamPathError::Reserved(given()));
    }
    let lowercase = path.to_ascii_lowercase();
    if let Some(retired) = RETIRED.into_iter().find(|retired| lowercase.contains(retired)) {
        return Err(StreamPathError::Retired(given(), retired));
    }
    Ok(path.to_owned())
}

/// The host, including brackets, and what follows its colon.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    let host_end = authority.rfind(']').unwrap_or(0);
    let (_, after_brackets) = authority.split_at(host_end);
    match after_brackets.find(':') {
        Some(colon) => {
            let (host, port) = authority.split_at(host_end + colon);
            (host, port.strip_prefix(':'))
        }
        None => (authority, None),
    }
}

fn loopback(host: &str) -> Option<IpAddr> {
    match host {
        "127.0.0.1" => Some(Ipv4Addr::LOCALHOST.into()),
        "[::1]" => Some(Ipv6Addr::LOCALHOST.into()),
        // The name is never resolved: a changed hosts file must not move the listener.
        name if name.eq_ignore_ascii_case("localhost") => Some(Ipv4Addr::LOCALHOST.into()),
        _ => None,
    }
}

/// `u16::from_str` alone would also accept a plus sign.
fn parse_port(digits: &str) -> Option<u16> {
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_api_base_accepts_three_loopback_hosts() {
        for (text, address) in [
            ("http://127.0.0.1:4319", "127.0.0.1:4319"),
            ("http://127.0.0.1:0", "127.0.0.1:0"),
            ("http://127.0.0.1", "127.0.0.1:80"),
            ("http://127.0.0.1:4319/", "127.0.0.1:4319"),
            ("HTTP://localhost:1", "127.0.0.1:1"),
            ("http://LocalHost", "127.0.0.1:80"),
            ("http://[::1]:65535", "[::1]:65535"),
            ("http://[::1]", "[::1]:80"),
        ] {
            let base = LocalApiBase::parse(text).unwrap();
            assert_eq!(base.socket_address().to_string(), address, "{text}");
            assert_eq!(base.as_str(), text);
        }
    }

    #[test]
    fn local_api_base_rejects_other_forms_with_specific_error() {
        use AddressError as E;
        type Case = (&'static str, fn(String) -> AddressError);
        let cases: &[Case] = &[
            ("", E::NotAUrl),
            ("127.0.0.1", E::NotAUrl),
            ("127.0.0.1:4319", E::NotAUrl),
            ("localhost:4319", E::NotAUrl),
            ("//127.0.0.1:4319", E::NotAUrl),
            ("http:127.0.0.1", E::NotAUrl),
            ("http:/127.0.0.1", E::NotAUrl),
            ("http://", E::NotAUrl),
            ("http:///", E::NotAUrl),
            ("http:// 127.0.0.1", E::NotAUrl),
            ("http://127.0.0.1 :4319", E::NotAUrl),
            ("http://127.0.0.1:4319\n", E::NotAUrl),
            ("http://127.0.0.1\\.evil.com", E::NotAUrl),
            ("http://127.0.0.1\0", E::NotAUrl),
            ("://127.0.0.1", E::NotAUrl),
            ("1http://127.0.0.1", E::NotAUrl),
            ("https://127.0.0.1:4319", E::NotHttp),
            ("ws://127.0.0.1", E::NotHttp),
            ("unix:///tmp/socket", E::NotHttp),
            ("http://user:secret@127.0.0.1", E::Credentials),
            ("http://127.0.0.1@evil.com", E::Credentials),
            ("http://@127.0.0.1", E::Credentials),
            ("http://127.0.0.1.evil.com", E::NotLoopback),
            ("http://127.0.0.1.", E::NotLoopback),
            ("http://127.1", E::NotLoopback),
            ("http://127.0.0.2", E::NotLoopback),
            ("http://0x7f.1", E::NotLoopback),
            ("http://2130706433", E::NotLoopback),
            ("http://0177.0.0.1", E::NotLoopback),
            ("http://127.000.000.001", E::NotLoopback),
            ("http://１２７.0.0.1", E::NotLoopback),
            ("http://127%2e0.0.1", E::NotLoopback),
            ("http://0.0.0.0:4319", E::NotLoopback),
            ("http://localhost.", E::NotLoopback),
            ("http://localhost.evil.com", E::NotLoopback),
            ("http://locaIhost", E::NotLoopback),
            ("http://evil.localhost", E::NotLoopback),
            ("http://::1:4319", E::NotLoopback),
            ("http://[::]:4319", E::NotLoopback),
            ("http://[0:0:0:0:0:0:0:1]", E::NotLoopback),
            ("http://[::ffff:127.0.0.1]", E::NotLoopback),
            ("http://[::1%25lo0]", E::NotLoopback),
            ("http://[127.0.0.1]", E::NotLoopback),
            ("http://[::1", E::NotLoopback),
            ("http://[::1]evil.com", E::NotLoopback),
            ("http://[::1].evil.com:80", E::NotLoopback),
            ("http://192.168.1.10:4319", E::NotLoopback),
            ("http://:4319", E::NotLoopback),
            ("http://127.0.0.1:", E::Port),
            ("http://127.0.0.1:65536", E::Port),
            ("http://127.0.0.1:-1", E::Port),
            ("http://127.0.0.1:+80", E::Port),
            ("http://127.0.0.1:http", E::Port),
            ("http://127.0.0.1:80:81", E::Port),
            ("http://[::1]:", E::Port),
            ("http://127.0.0.1/v1", E::Path),
            ("http://127.0.0.1//", E::Path),
            ("http://127.0.0.1/@evil.com", E::Path),
            ("http://127.0.0.1?", E::Query),
            ("http://127.0.0.1/?token=secret", E::Query),
            ("http://127.0.0.1#", E::Fragment),
            ("http://127.0.0.1/#secret", E::Fragment),
        ];
        for (text, error) in cases {
            let refusal = LocalApiBase::parse(text).unwrap_err();
            assert_eq!(refusal, error(without_secrets(text)), "{text}");
            assert!(!refusal.to_string().contains("secret"), "{refusal}");
            assert!(!refusal.to_string().contains('\n'), "{refusal}");
        }
    }

    #[test]
    fn event_stream_path_drops_trailing_slashes() {
        for (text, path) in [
            ("/v1/codexd/events", "/v1/codexd/events"),
            ("/v1/codexd/events//", "/v1/codexd/events"),
            ("/ws", "/ws"),
            ("/healthz-stream", "/healthz-stream"),
            ("/v1/codexd/turns", "/v1/codexd/turns"),
        ] {
            assert_eq!(parse_event_stream_path(text).unwrap(), path);
        }
    }

    #[test]
    fn event_stream_path_rejects_unroutable_paths() {
        use StreamPathError as E;
        let character = |text: &str, c| E::Character(text.to_owned(), c);
        for (text, error) in [
            ("events", E::NotAbsolute("events".into())),
            ("http://x/", E::NotAbsolute("http://x/".into())),
            ("/events?a", E::QueryOrFragment("/events?***".into())),
            ("/events#a", E::QueryOrFragment("/events#***".into())),
            ("/my events", E::WhiteSpace("/my events".into())),
            ("/{id}", character("/{id}", '{')),
            ("/:id", character("/:id", ':')),
            ("/a*", character("/a*", '*')),
            ("/%65vents", character("/%65vents", '%')),
            ("/", E::Root("/".into())),
            ("///", E::Root("///".into())),
            ("//events", E::Segment("//events".into())),
            ("/a/../healthz", E::Segment("/a/../healthz".into())),
            ("/./events", E::Segment("/./events".into())),
            ("/healthz", E::Reserved("/healthz".into())),
            ("/describe/", E::Reserved("/describe/".into())),
            ("/v1/codexd/status", E::Reserved("/v1/codexd/status".into())),
            ("/v1/codexd/turn", E::Reserved("/v1/codexd/turn".into())),
            ("/v1/codexd/sessions", E::Reserved("/v1/codexd/sessions".into())),
            ("/v1/codexd/sessions/events", E::Reserved("/v1/codexd/sessions/events".into())),
            ("/runs/exec", E::Retired("/runs/exec".into(), "runs")),
            ("/v1/TrunSystem", E::Retired("/v1/TrunSystem".into(), "runs")),
            ("/my-Executor", E::Retired("/my-Executor".into(), "exec")),
        ] {
            assert_eq!(parse_event_stream_path(text).unwrap_err(), error);
        }
    }
}
