//! The URL of a hook: `https`, or `http` on this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hyper::Uri;
use rustls::pki_types::ServerName;

/// The longest URL, in bytes.
const MAX_URL_BYTES: usize = 2048;

/// A URL that a hook may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HookUrl {
    /// The host, without the brackets of an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
    /// The value of `Host`.
    pub(super) authority: String,
    /// The path and the query.
    pub(super) path: String,
    pub(super) is_https: bool,
}

impl HookUrl {
    /// Parses a URL; the error is a sentence that does not quote it, because it may contain a secret.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let refused = |reason: &str| Err(format!("url {reason}."));
        if text.len() > MAX_URL_BYTES {
            return refused(&format!("is longer than {MAX_URL_BYTES} bytes"));
        }
        let Ok(uri) = text.parse::<Uri>() else { return refused("is not a URL") };
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return refused("must be absolute, such as https://example.org/hook");
        };
        if text.contains('#') || authority.as_str().contains('@') {
            return refused("must have no fragment and no credentials");
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let is_https = match scheme {
            "https" => true,
            "http" if is_loopback(&host) => false,
            "http" => {
                return refused(
                    "must be https; http is allowed to this machine only (localhost, 127.0.0.1, [::1])",
                );
            }
            _ => return refused("must be https, or http to this machine"),
        };
        if host.is_empty() || ServerName::try_from(host.as_str()).is_err() {
            return refused("has an invalid host");
        }
        // Text after the host that is no port would otherwise mean the default port, which is another service.
        let has_port = !authority.as_str().ends_with(authority.host());
        let port = match authority.port_u16() {
            Some(0) => None,
            None if !has_port => Some(if is_https { 443 } else { 80 }),
            port => port,
        };
        let Some(port) = port else { return refused("has an invalid port; it must be 1 to 65535") };
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { host, port, authority: authority.as_str().to_owned(), path, is_https })
    }

    /// The scheme and the host: what may be shown.
    pub(super) fn origin(&self) -> String {
        format!("{}://{}", if self.is_https { "https" } else { "http" }, self.authority)
    }

    /// The addresses of a host of this machine, without asking a resolver: a file or a server could give others.
    pub(super) fn loopback(&self) -> Vec<SocketAddr> {
        let addresses = match self.host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)],
        };
        addresses.into_iter().map(|address| SocketAddr::new(address, self.port)).collect()
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_https_or_http_to_this_machine() {
        for (text, origin, path) in [
            ("https://example.org", "https://example.org", "/"),
            ("https://example.org:8443/a?b=c", "https://example.org:8443", "/a?b=c"),
            ("https://192.0.2.1/", "https://192.0.2.1", "/"),
            ("http://localhost:8080/x", "http://localhost:8080", "/x"),
            ("http://127.0.0.1/", "http://127.0.0.1", "/"),
            ("http://127.8.9.1:1/", "http://127.8.9.1:1", "/"),
            ("http://[::1]:9/", "http://[::1]:9", "/"),
        ] {
            let url = HookUrl::parse(text).unwrap();
            assert_eq!((url.origin().as_str(), url.path.as_str()), (origin, path));
        }
        for (text, reason) in [
            ("http://example.org/", "must be https"),
            ("http://10.0.0.1/", "must be https"),
            ("http://localhost.example.org/", "must be https"),
            ("http://127.0.0.1.example.org/", "must be https"),
            ("http://2130706433/", "must be https"),
            ("http://0.0.0.0/", "must be https"),
            ("http://[::]/", "must be https"),
            ("http://[::ffff:127.0.0.1]/", "must be https"),
            ("ftp://127.0.0.1/", "must be https"),
            ("https://user:CANARY@example.org/", "no credentials"),
            ("https://example.org/#CANARY", "no fragment"),
            ("//example.org/", "must be absolute"),
            ("example.org", "must be absolute"),
            ("https://exa mple.org/", "is not a URL"),
            ("https://exa_%%mple/", ""),
            ("http://localhost:99999/", "invalid port"),
            ("http://localhost:4660x/", "invalid port"),
            ("http://localhost:/x", "invalid port"),
            ("http://localhost:0/", "invalid port"),
            ("http://[::1]:65536/", "invalid port"),
        ] {
            let error = HookUrl::parse(text).unwrap_err();
            assert!(error.contains(reason) && !error.contains("CANARY"), "{text}: {error}");
        }
        assert!(HookUrl::parse(&format!("https://example.org/{}", "x".repeat(2048))).is_err());
    }

    #[test]
    fn localhost_is_not_resolved() {
        let url = HookUrl::parse("http://localhost:7/").unwrap();
        assert_eq!(url.loopback(), ["127.0.0.1:7".parse().unwrap(), "[::1]:7".parse().unwrap()]);
    }
}
