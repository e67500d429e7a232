//! The endpoint of the app-server, and whether codexd starts it.

use std::fmt;
use std::path::PathBuf;

use super::redact::without_secrets;

/// Whether codexd starts the app-server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildStrategy {
    /// codexd starts, supervises and stops it.
    Spawn,
    /// It runs by itself, and codexd connects to it.
    External,
}

impl ChildStrategy {
    /// The value in settings, files and responses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spawn => "spawn",
            Self::External => "external",
        }
    }
}

/// How to reach the app-server.
///
/// `Debug` hides credentials and queries.
#[derive(Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Over the standard streams of the child process.
    Stdio,
    /// Over TCP; the URL starts with `ws://` or `wss://` and may contain secrets.
    WebSocket(String),
    /// A WebSocket over the Unix socket at this absolute path.
    Unix(PathBuf),
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdio => formatter.write_str("Stdio"),
            Self::WebSocket(url) => formatter.debug_tuple("WebSocket").field(&without_secrets(url)).finish(),
            Self::Unix(path) => formatter.debug_tuple("Unix").field(path).finish(),
        }
    }
}

/// The endpoint and the text it was given as.
///
/// `Display` and `Debug` hide credentials and queries; only [`ServerEndpoint::target`] has them.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerEndpoint {
    text: String,
    target: Endpoint,
}

/// Why an endpoint is rejected. The messages hide credentials and queries.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// A scheme that codexd cannot connect to.
    #[error(
        "an external app-server cannot be reached at {0:?}; use an address that starts with ws://, wss://, http://, https:// or unix://."
    )]
    Scheme(String),
    /// No valid URL after the scheme.
    #[error("{0:?} is not a valid address; use the form ws://127.0.0.1:4500.")]
    NotAUrl(String),
    /// A fragment, which a WebSocket address must not have (RFC 6455, section 3).
    #[error("{0:?} contains a fragment; remove it.")]
    Fragment(String),
    /// A socket path that is relative or empty.
    #[error("{0:?} is not the absolute path of a socket; use the form unix:///path/to/socket.")]
    SocketPath(String),
}

impl ServerEndpoint {
    /// The endpoint of an app-server that codexd starts; the text is only a label.
    pub fn spawned(label: &str) -> Self {
        Self { text: label.to_owned(), target: Endpoint::Stdio }
    }

    /// Parses the endpoint of an external app-server; `http` means `ws` and `https` means `wss`.
    pub fn external(text: &str) -> Result<Self, EndpointError> {
        let shown = || without_secrets(text);
        let (scheme, rest) = text.split_once("://").ok_or_else(|| EndpointError::Scheme(shown()))?;
        let target = match scheme.to_ascii_lowercase().as_str() {
            "ws" | "http" => Endpoint::WebSocket(format!("ws://{rest}")),
            "wss" | "https" => Endpoint::WebSocket(format!("wss://{rest}")),
            "unix" => Endpoint::Unix(PathBuf::from(rest)),
            _ => return Err(EndpointError::Scheme(shown())),
        };
        match &target {
            Endpoint::Stdio => {}
            Endpoint::Unix(path) => {
                if !path.is_absolute() || path.file_name().is_none() || rest.ends_with('/') {
                    return Err(EndpointError::SocketPath(shown()));
                }
            }
            Endpoint::WebSocket(url) => {
                if url.contains('#') {
                    return Err(EndpointError::Fragment(shown()));
                }
                // The client parses it with the same type, so an endpoint that passes here does not fail at the first
                // connection.
                let is_valid = url
                    .parse::<hyper::Uri>()
                    .is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()) && has_valid_port(&uri));
                if !is_valid {
                    return Err(EndpointError::NotAUrl(shown()));
                }
            }
        }
        Ok(Self { text: text.to_owned(), target })
    }

    /// The endpoint, including secrets.
    pub fn target(&self) -> &Endpoint {
        &self.target
    }

    /// Whether the app-server is on this machine, so that it sees its directories: it is a child process, or at a Unix
    /// socket or a loopback address.
    ///
    /// A tunnel from a loopback address to another machine cannot be distinguished from a local server.
    pub fn is_on_this_machine(&self) -> bool {
        let Endpoint::WebSocket(url) = &self.target else { return true };
        let uri = url.parse::<hyper::Uri>().ok();
        let host = uri.as_ref().and_then(hyper::Uri::host).unwrap_or_default();
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        address.map_or_else(|_| host.eq_ignore_ascii_case("localhost"), |address| address.is_loopback())
    }

    /// Whether it contains something that `Display` hides: credentials, a query or a fragment.
    pub fn has_secrets(&self) -> bool {
        without_secrets(&self.text) != self.text
    }
}

impl fmt::Display for ServerEndpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&without_secrets(&self.text))
    }
}

impl fmt::Debug for ServerEndpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ServerEndpoint({self}, {:?})", self.target)
    }
}

/// `Uri` keeps an invalid port as part of the authority and then reports that there is none.
fn has_valid_port(uri: &hyper::Uri) -> bool {
    let Some(authority) = uri.authority() else { return false };
    let host_and_port = authority.as_str().rsplit('@').next().unwrap_or_default();
    let after_host = host_and_port.rsplit(']').next().unwrap_or_default();
    !after_host.contains(':') || authority.port_u16().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_is_local_only_for_loopback_or_socket() {
        assert!(ServerEndpoint::spawned("ws://example.com").is_on_this_machine());
        for here in [
            "unix:///run/a.sock",
            "ws://127.0.0.1:4500",
            "ws://127.8.9.1",
            "ws://[::1]:4500/path",
            "wss://LocalHost:4500",
            "http://user:secret@localhost/",
        ] {
            assert!(ServerEndpoint::external(here).unwrap().is_on_this_machine(), "{here}");
        }
        for elsewhere in
            ["ws://example.com", "wss://192.0.2.1:1", "ws://[2001:db8::1]:1", "ws://localhost.example"]
        {
            assert!(!ServerEndpoint::external(elsewhere).unwrap().is_on_this_machine(), "{elsewhere}");
        }
    }

    #[test]
    fn endpoint_parses_external_addresses() {
        let web_socket = |url: &str| Endpoint::WebSocket(url.to_owned());
        for (text, target) in [
            ("ws://127.0.0.1:4500", web_socket("ws://127.0.0.1:4500")),
            ("WSS://host/path?token=x", web_socket("wss://host/path?token=x")),
            ("http://[::1]:4500", web_socket("ws://[::1]:4500")),
            ("https://user:password@host", web_socket("wss://user:password@host")),
            ("unix:///run/codex.sock", Endpoint::Unix("/run/codex.sock".into())),
        ] {
            assert_eq!(ServerEndpoint::external(text).unwrap().target(), &target);
        }
    }

    #[test]
    fn endpoint_rejects_other_addresses() {
        use EndpointError as E;
        type Case = (&'static str, fn(String) -> EndpointError);
        let cases: &[Case] = &[
            ("stdio://codex-app-server", E::Scheme),
            ("127.0.0.1:4500", E::Scheme),
            ("ftp://user:secret@host", E::Scheme),
            ("ws:host", E::Scheme),
            ("ws://", E::NotAUrl),
            ("ws://:4500", E::NotAUrl),
            ("ws://host:port", E::NotAUrl),
            ("ws://host:65536", E::NotAUrl),
            ("ws://user:secret@host:65536", E::NotAUrl),
            ("ws://ho st", E::NotAUrl),
            ("ws://host/#secret", E::Fragment),
            ("unix://relative/socket", E::SocketPath),
            ("unix://", E::SocketPath),
            ("unix:///", E::SocketPath),
            ("unix:///run/", E::SocketPath),
        ];
        for (text, error) in cases {
            let refusal = ServerEndpoint::external(text).unwrap_err();
            assert_eq!(refusal, error(without_secrets(text)), "{text}");
            assert!(!refusal.to_string().contains("secret"), "{refusal}");
        }
    }

    #[test]
    fn endpoint_hides_secrets_in_display_and_debug() {
        for endpoint in [
            ServerEndpoint::external("wss://user:secret@host/path?token=secret").unwrap(),
            ServerEndpoint::spawned("wss://user:secret@host/path?token=secret"),
        ] {
            assert_eq!(endpoint.to_string(), "wss://***@host/path?***");
            assert!(endpoint.has_secrets());
            assert!(!format!("{endpoint:?}").contains("secret"));
        }
        assert!(!ServerEndpoint::external("wss://host/path").unwrap().has_secrets());
    }
}
