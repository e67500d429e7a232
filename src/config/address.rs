//! The address of the listener and the path of the event stream, parsed strictly.
//!
//! Nothing here may let the daemon listen on anything but loopback, or the event stream hide another route.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::redact::without_secrets;

const NOT_A_URL: &str = "{} is not an absolute URL; use the form http://127.0.0.1:4319.";

/// The address of the listener, from `--local-api-base`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalApiBase {
    text: String,
    ip: IpAddr,
    port: u16,
}

impl LocalApiBase {
    /// Parses an address of the form `http://HOST[:PORT]`, with or without a final slash.
    ///
    /// Nothing is resolved or normalized: a host is one of three spellings or it is rejected, so that no interpretation
    /// of a number or a name can leave this machine. Libraries are not strict enough for that: `url` reads 127.1, 0x7f.1
    /// and `http:\\127.0.0.1` as 127.0.0.1, and `http::Uri` takes the host of `http://[::1]evil.com` for `[::1]`. An
    /// error is a sentence without secrets.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
        // A backslash is a slash for some parsers and part of the host for others.
        let is_url = is_scheme && !rest.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\');
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (host, port) = split_port(authority);
        let ip: Option<IpAddr> = match host {
            "127.0.0.1" => Some(Ipv4Addr::LOCALHOST.into()),
            "[::1]" => Some(Ipv6Addr::LOCALHOST.into()),
            // The name is never resolved: a changed hosts file must not move the listener.
            name if name.eq_ignore_ascii_case("localhost") => Some(Ipv4Addr::LOCALHOST.into()),
            _ => None,
        };
        let before_fragment = tail.split('#').next().unwrap_or_default();
        let path = before_fragment.split('?').next().unwrap_or_default();
        let problem = match (ip, port.map_or(Some(80), parse_port)) {
            _ if !is_url => NOT_A_URL,
            _ if !scheme.eq_ignore_ascii_case("http") => {
                "the scheme of {} is not http; codexd serves plain HTTP on loopback only."
            }
            _ if authority.is_empty() => NOT_A_URL,
            _ if authority.contains('@') => "{} contains credentials; remove everything up to the @.",
            (None, _) => {
                "the host of {} is not one of 127.0.0.1, [::1] and localhost; codexd listens on loopback only."
            }
            (_, None) => "the port of {} is not a number from 0 to 65535.",
            _ if !matches!(path, "" | "/") => "{} contains a path; the address must end after the port.",
            _ if before_fragment.contains('?') => "{} contains a query; the address must end after the port.",
            _ if tail.contains('#') => "{} contains a fragment; the address must end after the port.",
            (Some(ip), Some(port)) => return Ok(Self { text: text.to_owned(), ip, port }),
        };
        Err(problem.replace("{}", &format!("{:?}", without_secrets(text))))
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

/// The host, including brackets, and what follows its colon.
pub(super) fn split_port(authority: &str) -> (&str, Option<&str>) {
    let host_end = authority.rfind(']').unwrap_or(0);
    match authority.split_at(host_end).1.find(':') {
        Some(colon) => {
            let (host, port) = authority.split_at(host_end + colon);
            (host, port.strip_prefix(':'))
        }
        None => (authority, None),
    }
}

/// `u16::from_str` alone would also accept a plus sign.
pub(super) fn parse_port(digits: &str) -> Option<u16> {
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
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

/// Parses the path of the event stream and removes its trailing slashes. An error is a sentence without secrets.
///
/// Paths below one of [`RESERVED_PATHS`] are rejected too, because routes with parameters are there.
pub fn parse_event_stream_path(text: &str) -> Result<String, String> {
    let path = text.trim_end_matches('/');
    let is_allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '.' | '_' | '~');
    let is_reserved =
        |route: &&str| path.strip_prefix(*route).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let lowercase = path.to_ascii_lowercase();
    let problem = if !text.starts_with('/') {
        "does not begin with a slash."
    } else if text.contains(['?', '#']) {
        "contains a query or a fragment; remove it."
    } else if text.contains(char::is_whitespace) {
        "contains white space; remove it."
    } else if let Some(other) = text.chars().find(|c| !is_allowed(c)) {
        // A client would escape it, or the router reads it as a pattern.
        &format!("contains {other:?}; use letters, digits, slashes and the characters - . _ ~ only.")
    } else if path.is_empty() {
        "is the root; choose a path such as /v1/codexd/events."
    } else if path.split('/').skip(1).any(|segment| matches!(segment, "" | "." | "..")) {
        // Clients normalize these away.
        "contains an empty, a . or a .. segment; remove it."
    } else if RESERVED_PATHS.iter().any(is_reserved) {
        "is a route of codexd; choose a path such as /v1/codexd/events."
    } else if let Some(retired) = RETIRED.into_iter().find(|retired| lowercase.contains(retired)) {
        &format!(
            "contains the letters {retired:?}, which GET /describe must not show to clients of the retired batch \
             modes; choose one such as /v1/codexd/events."
        )
    } else {
        return Ok(path.to_owned());
    };
    Err(format!("the path {:?} {problem}", without_secrets(text)))
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
        const NOT_A_URL: &str = "is not an absolute URL;";
        const NOT_HTTP: &str = "is not http;";
        const CREDENTIALS: &str = "contains credentials;";
        const NOT_LOOPBACK: &str = "is not one of 127.0.0.1, [::1] and localhost;";
        const PORT: &str = "is not a number from 0 to 65535.";
        const PATH: &str = "contains a path;";
        const QUERY: &str = "contains a query;";
        const FRAGMENT: &str = "contains a fragment;";
        let cases = [
            ("", NOT_A_URL),
            ("127.0.0.1", NOT_A_URL),
            ("127.0.0.1:4319", NOT_A_URL),
            ("localhost:4319", NOT_A_URL),
            ("//127.0.0.1:4319", NOT_A_URL),
            ("http:127.0.0.1", NOT_A_URL),
            ("http:/127.0.0.1", NOT_A_URL),
            ("http://", NOT_A_URL),
            ("http:///", NOT_A_URL),
            ("http:// 127.0.0.1", NOT_A_URL),
            ("http://127.0.0.1 :4319", NOT_A_URL),
            ("http://127.0.0.1:4319\n", NOT_A_URL),
            ("http://127.0.0.1\\.evil.com", NOT_A_URL),
            ("http://127.0.0.1\0", NOT_A_URL),
            ("://127.0.0.1", NOT_A_URL),
            ("1http://127.0.0.1", NOT_A_URL),
            ("https://127.0.0.1:4319", NOT_HTTP),
            ("ws://127.0.0.1", NOT_HTTP),
            ("unix:///tmp/socket", NOT_HTTP),
            ("http://user:secret@127.0.0.1", CREDENTIALS),
            ("http://127.0.0.1@evil.com", CREDENTIALS),
            ("http://@127.0.0.1", CREDENTIALS),
            ("http://127.0.0.1.evil.com", NOT_LOOPBACK),
            ("http://127.0.0.1.", NOT_LOOPBACK),
            ("http://127.1", NOT_LOOPBACK),
            ("http://127.0.0.2", NOT_LOOPBACK),
            ("http://0x7f.1", NOT_LOOPBACK),
            ("http://2130706433", NOT_LOOPBACK),
            ("http://0177.0.0.1", NOT_LOOPBACK),
            ("http://127.000.000.001", NOT_LOOPBACK),
            ("http://１２７.0.0.1", NOT_LOOPBACK),
            ("http://127%2e0.0.1", NOT_LOOPBACK),
            ("http://0.0.0.0:4319", NOT_LOOPBACK),
            ("http://localhost.", NOT_LOOPBACK),
            ("http://localhost.evil.com", NOT_LOOPBACK),
            ("http://locaIhost", NOT_LOOPBACK),
            ("http://evil.localhost", NOT_LOOPBACK),
            ("http://::1:4319", NOT_LOOPBACK),
            ("http://[::]:4319", NOT_LOOPBACK),
            ("http://[0:0:0:0:0:0:0:1]", NOT_LOOPBACK),
            ("http://[::ffff:127.0.0.1]", NOT_LOOPBACK),
            ("http://[::1%25lo0]", NOT_LOOPBACK),
            ("http://[127.0.0.1]", NOT_LOOPBACK),
            ("http://[::1", NOT_LOOPBACK),
            ("http://[::1]evil.com", NOT_LOOPBACK),
            ("http://[::1].evil.com:80", NOT_LOOPBACK),
            ("http://192.168.1.10:4319", NOT_LOOPBACK),
            ("http://:4319", NOT_LOOPBACK),
            ("http://127.0.0.1:", PORT),
            ("http://127.0.0.1:65536", PORT),
            ("http://127.0.0.1:-1", PORT),
            ("http://127.0.0.1:+80", PORT),
            ("http://127.0.0.1:http", PORT),
            ("http://127.0.0.1:80:81", PORT),
            ("http://[::1]:", PORT),
            ("http://127.0.0.1/v1", PATH),
            ("http://127.0.0.1//", PATH),
            ("http://127.0.0.1/@evil.com", PATH),
            ("http://127.0.0.1?", QUERY),
            ("http://127.0.0.1/?token=secret", QUERY),
            ("http://127.0.0.1#", FRAGMENT),
            ("http://127.0.0.1/#secret", FRAGMENT),
        ];
        for (text, error) in cases {
            let refusal = LocalApiBase::parse(text).unwrap_err();
            assert!(refusal.contains(error), "{text}: {refusal}");
            assert!(refusal.contains(&format!("{:?}", without_secrets(text))), "{text}: {refusal}");
            assert!(!refusal.contains("secret") && !refusal.contains('\n'), "{refusal}");
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
        for (text, shown, error) in [
            ("events", "events", "does not begin with a slash."),
            ("http://x/", "http://x/", "does not begin with a slash."),
            ("/events?a", "/events?***", "contains a query or a fragment;"),
            ("/events#a", "/events#***", "contains a query or a fragment;"),
            ("/my events", "/my events", "contains white space;"),
            ("/{id}", "/{id}", "contains '{';"),
            ("/:id", "/:id", "contains ':';"),
            ("/a*", "/a*", "contains '*';"),
            ("/%65vents", "/%65vents", "contains '%';"),
            ("/", "/", "is the root;"),
            ("///", "///", "is the root;"),
            ("//events", "//events", "contains an empty, a . or a .. segment;"),
            ("/a/../healthz", "/a/../healthz", "contains an empty, a . or a .. segment;"),
            ("/./events", "/./events", "contains an empty, a . or a .. segment;"),
            ("/healthz", "/healthz", "is a route of codexd;"),
            ("/describe/", "/describe/", "is a route of codexd;"),
            ("/v1/codexd/status", "/v1/codexd/status", "is a route of codexd;"),
            ("/v1/codexd/turn", "/v1/codexd/turn", "is a route of codexd;"),
            ("/v1/codexd/sessions", "/v1/codexd/sessions", "is a route of codexd;"),
            ("/v1/codexd/sessions/events", "/v1/codexd/sessions/events", "is a route of codexd;"),
            ("/runs/exec", "/runs/exec", "contains the letters \"runs\","),
            ("/v1/TrunSystem", "/v1/TrunSystem", "contains the letters \"runs\","),
            ("/my-Executor", "/my-Executor", "contains the letters \"exec\","),
        ] {
            let refusal = parse_event_stream_path(text).unwrap_err();
            assert!(refusal.starts_with(&format!("the path {shown:?} {error}")), "{refusal}");
        }
    }
}
