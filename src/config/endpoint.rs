//! The endpoint of the app-server, and whether codexd starts and ends it.

use std::fmt;
use std::path::{Path, PathBuf};

use hyper::Uri;
use serde::Serialize;

use super::address::{parse_port, split_port};
use super::redact::without_secrets;

/// Whether codexd starts and ends the app-server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChildStrategy {
    /// codexd starts, supervises and stops it.
    Spawn,
    /// One for all programs of the user, at Codex's control socket: codexd connects to it, starts it if none runs, and
    /// never ends it.
    Shared,
    /// It runs by itself, and codexd connects to it.
    External,
}

impl ChildStrategy {
    /// The value in settings, files and responses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spawn => "spawn",
            Self::Shared => "shared",
            Self::External => "external",
        }
    }

    /// Whether the app-server has other clients and outlives codexd, so that its turns are not ours to end.
    pub fn has_other_clients(self) -> bool {
        self != Self::Spawn
    }
}

/// Which methods of the app-server clients may call directly; each value allows what those before it allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AllowedCalls {
    /// None.
    None,
    /// Those that read, and those that do what a person does to a thread or a login.
    Safe,
    /// All except those that codexd makes itself.
    All,
}

impl AllowedCalls {
    /// The value of the setting.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Safe => "safe",
            Self::All => "all",
        }
    }
}

/// Whether codexd keeps the machine from going to sleep by itself while turns run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeepAwake {
    /// Where the system has a program for it.
    Auto,
    /// Never.
    Off,
}

/// The beginning of the endpoint of a Unix socket; alone it is Codex's control socket.
pub(super) const SOCKET_SCHEME: &str = "unix://";

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
    pub(super) text: String,
    target: Endpoint,
}

impl ServerEndpoint {
    /// The endpoint of an app-server that codexd starts; the text is only a label.
    pub fn spawned(label: &str) -> Self {
        Self { text: label.to_owned(), target: Endpoint::Stdio }
    }

    /// The app-server at this socket, an absolute path.
    pub fn at_socket(path: &Path) -> Self {
        Self { text: format!("{SOCKET_SCHEME}{}", path.display()), target: Endpoint::Unix(path.to_owned()) }
    }

    /// Parses the endpoint of an external app-server; `http` means `ws` and `https` means `wss`, and `unix://` alone is
    /// Codex's control socket, where one is known. An error is a sentence without secrets.
    pub fn external(text: &str, control_socket: Option<&Path>) -> Result<Self, String> {
        if let Some(path) = control_socket.filter(|_| text.eq_ignore_ascii_case(SOCKET_SCHEME)) {
            return Ok(Self::at_socket(path));
        }
        let shown = without_secrets(text);
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let target = match scheme.to_ascii_lowercase().as_str() {
            "ws" | "http" => Endpoint::WebSocket(format!("ws://{rest}")),
            "wss" | "https" => Endpoint::WebSocket(format!("wss://{rest}")),
            "unix" => Endpoint::Unix(PathBuf::from(rest)),
            _ => {
                return Err(format!(
                    "an external app-server cannot be reached at {shown:?}; use an address that starts with ws://, \
                     wss://, http://, https:// or unix://."
                ));
            }
        };
        match &target {
            Endpoint::Unix(path)
                if !path.is_absolute() || path.file_name().is_none() || rest.ends_with('/') =>
            {
                Err(format!(
                    "{shown:?} is not the absolute path of a socket; use the form unix:///path/to/socket, or unix:// for the control \
                     socket of Codex."
                ))
            }
            // A WebSocket address must not have a fragment (RFC 6455, section 3).
            Endpoint::WebSocket(url) if url.contains('#') => {
                Err(format!("{shown:?} contains a fragment; remove it."))
            }
            // The client parses it with the same type, so an endpoint that passes here does not fail at the first
            // connection.
            Endpoint::WebSocket(url) if !url.parse().is_ok_and(|uri| is_valid(&uri)) => {
                Err(format!("{shown:?} is not a valid address; use the form ws://127.0.0.1:4500."))
            }
            _ => Ok(Self { text: text.to_owned(), target }),
        }
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
        let uri = url.parse::<Uri>().unwrap_or_default();
        let host = uri.host().unwrap_or_default();
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
fn is_valid(uri: &Uri) -> bool {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let (_, port) = split_port(authority.rsplit('@').next().unwrap_or_default());
    uri.host().is_some_and(|host| !host.is_empty()) && port.is_none_or(|port| parse_port(port).is_some())
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
            assert!(ServerEndpoint::external(here, None).unwrap().is_on_this_machine(), "{here}");
        }
        for elsewhere in
            ["ws://example.com", "wss://192.0.2.1:1", "ws://[2001:db8::1]:1", "ws://localhost.example"]
        {
            assert!(!ServerEndpoint::external(elsewhere, None).unwrap().is_on_this_machine(), "{elsewhere}");
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
            assert_eq!(ServerEndpoint::external(text, None).unwrap().target(), &target);
        }
    }

    #[test]
    fn endpoint_is_the_control_socket_for_the_scheme_alone() {
        let socket = Path::new("/home/me/.codex/app-server-control/app-server-control.sock");
        for text in ["unix://", "UNIX://"] {
            let endpoint = ServerEndpoint::external(text, Some(socket)).unwrap();
            assert_eq!(endpoint.target(), &Endpoint::Unix(socket.to_owned()));
            assert_eq!(endpoint.to_string(), format!("unix://{}", socket.display()));
        }
        let other = ServerEndpoint::external("unix:///run/a.sock", Some(socket)).unwrap();
        assert_eq!(other.target(), &Endpoint::Unix("/run/a.sock".into()));
    }

    #[test]
    fn endpoint_rejects_other_addresses() {
        const SCHEME: &str = "an external app-server cannot be reached at ";
        const NOT_A_URL: &str = "is not a valid address;";
        const FRAGMENT: &str = "contains a fragment;";
        const SOCKET_PATH: &str = "is not the absolute path of a socket;";
        let cases = [
            ("stdio://codex-app-server", SCHEME),
            ("127.0.0.1:4500", SCHEME),
            ("ftp://user:secret@host", SCHEME),
            ("ws:host", SCHEME),
            ("ws://", NOT_A_URL),
            ("ws://:4500", NOT_A_URL),
            ("ws://host:port", NOT_A_URL),
            ("ws://host:65536", NOT_A_URL),
            ("ws://user:secret@host:65536", NOT_A_URL),
            ("ws://ho st", NOT_A_URL),
            ("ws://host/#secret", FRAGMENT),
            ("unix://relative/socket", SOCKET_PATH),
            ("unix://", SOCKET_PATH),
            ("unix:///", SOCKET_PATH),
            ("unix:///run/", SOCKET_PATH),
        ];
        for (text, error) in cases {
            let refusal = ServerEndpoint::external(text, None).unwrap_err();
            assert!(refusal.contains(error), "{text}: {refusal}");
            assert!(refusal.contains(&format!("{:?}", without_secrets(text))), "{text}: {refusal}");
            assert!(!refusal.contains("secret"), "{refusal}");
        }
    }

    #[test]
    fn endpoint_hides_secrets_in_display_and_debug() {
        for endpoint in [
            ServerEndpoint::external("wss://user:secret@host/path?token=secret", None).unwrap(),
            ServerEndpoint::spawned("wss://user:secret@host/path?token=secret"),
        ] {
            assert_eq!(endpoint.to_string(), "wss://***@host/path?***");
            assert!(endpoint.has_secrets());
            assert!(!format!("{endpoint:?}").contains("secret"));
        }
        assert!(!ServerEndpoint::external("wss://host/path", None).unwrap().has_secrets());
    }
}
