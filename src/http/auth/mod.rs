//! Authorizes requests.
//!
//! [`RequestGuard`] owns the accepted hosts and origins and the token file. The app calls [`RequestGuard::check`] for
//! every request before routing it and before reading its body.
//!
//! Invariant: all checks together are needed to reject web pages. A WebSocket handshake has `Origin` and no
//! `Sec-Fetch-Site`, an image request has `Sec-Fetch-Site` and no `Origin`, and a page whose name was rebound to
//! 127.0.0.1 passes both but has a foreign `Host` (measured with Chromium).

pub(super) mod local_key;
pub(super) mod peer;
pub(super) mod token;

use std::net::SocketAddr;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;

use super::error::ApiError;
use super::upgrade;
use peer::Peer;
use token::{Digest, TokenFile};

/// The paths that need no token: the health probe, and the page, which a browser requests without a token and which
/// holds no data.
pub(super) const TOKEN_FREE_PATHS: [&str; 2] = ["/", "/healthz"];
/// The methods that a page of an allowed origin may use.
const CORS_METHODS: &str = "GET, HEAD, POST, PATCH, DELETE";
/// The request headers that codexd uses. Other headers that a page requests are allowed too, such as the `traceparent`
/// that a tracing library adds to each request.
const CORS_HEADERS: &str = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID";
/// The response headers that such a page may read.
const CORS_EXPOSED_HEADERS: &str = "Retry-After, WWW-Authenticate, codexd-ignored";
/// How long a browser may cache a preflight response, in seconds.
const CORS_MAX_AGE_SECONDS: &str = "600";

/// Checks the peer, the host, the origin and the token of each request.
#[derive(Debug)]
pub(super) struct RequestGuard {
    /// The accepted values of `Host`.
    hosts: Vec<String>,
    /// Further names, with or without a port, under which proxies reach us; see `--allowed-host`.
    forwarded_hosts: Vec<String>,
    /// The origins that are allowed beside our own.
    origins: Vec<String>,
    clients: AllowedClients,
}

/// Who may use the daemon beside the programs of its user.
#[derive(Debug, Default)]
pub struct AllowedClients {
    /// The token that requests need.
    pub token: Option<TokenFile>,
    /// A token that only reads.
    pub read_token: Option<TokenFile>,
    /// Further users of this machine.
    pub uids: Vec<u32>,
}

/// The paths that a token which only reads does not open: they show what belongs to the person, not to the sessions of
/// codexd.
const PERSONAL_PATHS: [&str; 2] = ["/v1/codexd/account", "/v1/codexd/threads"];

/// The result of the checks that need no token file.
#[derive(Debug)]
enum HeadCheck {
    Preflight,
    /// Allowed without a token.
    Open,
    /// Allowed if the file holds the token with this digest; `None` if the request has no token.
    Token(Option<Digest>),
}

/// Why a request is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// With this token, if one is needed.
    Granted(Option<Credential>),
    /// A preflight: a browser checks whether its page may send a request (Fetch standard, section 4.8).
    Preflight,
}

/// The token that admitted a request; an extension of the request. Long responses use it to check that the token is still
/// valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Credential {
    digest: Digest,
    /// Whether it is the token that only reads.
    pub(super) only_reads: bool,
}

/// The address under which the client reaches codexd through a proxy; an extension of its requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ForwardedAddress {
    host: String,
    is_tls: bool,
}

impl ForwardedAddress {
    /// The URL with this scheme, whose secure form ends with an `s`, such as `wss://codexd.example.org`.
    pub(super) fn url(&self, scheme: &str) -> String {
        format!("{scheme}{}://{}", if self.is_tls { "s" } else { "" }, self.host)
    }
}

/// Whether it is certain that a request comes from the user of codexd or from root; an extension of the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Assurance {
    pub(super) is_user: bool,
}

impl Assurance {
    /// The system reports the user of the connection, or the request has the token.
    pub(super) fn of(peer: &Peer, credential: Option<Credential>) -> Self {
        Self { is_user: *peer == Peer::Trusted || credential.is_some() }
    }
}

impl RequestGuard {
    /// Returns the guard of a daemon that listens at `address`.
    pub(super) fn new(
        address: SocketAddr,
        forwarded_hosts: &[String],
        origins: &[String],
        clients: AllowedClients,
    ) -> Self {
        let port = address.port();
        let names = ["127.0.0.1", "localhost", "[::1]"];
        let mut hosts: Vec<_> = names.iter().map(|name| format!("{name}:{port}")).collect();
        if port == 80 {
            hosts.extend(names.map(str::to_owned));
        }
        let (forwarded_hosts, origins) = (forwarded_hosts.to_owned(), origins.to_owned());
        Self { hosts, forwarded_hosts, origins, clients }
    }

    /// The error for a peer that may not use codexd at all.
    fn peer_rejection(&self, peer: &Peer) -> Option<ApiError> {
        match peer {
            Peer::User { uid, .. } if self.clients.uids.contains(uid) => None,
            Peer::User { uid, own_uid } => Some(ApiError::forbidden(format!(
                "This connection is refused: it belongs to user {uid}, and codexd serves user {own_uid} and root only; \
                 --allow-uid lets another user in, with a token."
            ))),
            Peer::Foreign(reason) => {
                Some(ApiError::forbidden(format!("This connection is refused: {reason}.")))
            }
            Peer::Unowned => Some(ApiError::forbidden(
                "This connection is refused: no process holds its other end any more, so its user is unknown.",
            )),
            // On a system that cannot report the user of a connection, the token decides. Linux can; there an unknown
            // user needs the token.
            Peer::Unknown(reason) if cfg!(target_os = "linux") && self.clients.token.is_none() => {
                Some(ApiError::forbidden(format!(
                    "codexd cannot determine the user of this connection ({reason}); start it with --auth-token-file."
                )))
            }
            Peer::Trusted | Peer::Unknown(_) => None,
        }
    }

    /// Checks the head of a request.
    pub(super) async fn check(&self, peer: &Peer, request: &Parts) -> Result<Admission, ApiError> {
        match (self.check_head(peer, request)?, &self.clients.token) {
            (HeadCheck::Preflight, _) => Ok(Admission::Preflight),
            (HeadCheck::Open, _) => Ok(Admission::Granted(None)),
            (HeadCheck::Token(Some(digest)), Some(file)) => {
                let granted = |only_reads| Ok(Admission::Granted(Some(Credential { digest, only_reads })));
                if matches(file, &digest).await? {
                    return granted(false);
                }
                match &self.clients.read_token {
                    Some(file) if matches(file, &digest).await? => {
                        check_reads(request)?;
                        granted(true)
                    }
                    _ => Err(ApiError::unauthorized()),
                }
            }
            (HeadCheck::Token(_), _) => Err(ApiError::unauthorized()),
        }
    }

    /// [`RequestGuard::check`] without reading the token file.
    fn check_head(&self, peer: &Peer, request: &Parts) -> Result<HeadCheck, ApiError> {
        if let Some(error) = self.peer_rejection(peer) {
            return Err(error);
        }
        let host = self.check_host(&request.uri, &request.headers)?;
        let is_listed = self.check_origin(host, &request.headers)?;
        if !is_listed {
            check_fetch_site(&request.headers)?;
        }
        if is_listed && is_preflight(request) {
            return Ok(HeadCheck::Preflight);
        }
        if self.clients.token.is_none() || TOKEN_FREE_PATHS.contains(&request.uri.path()) {
            return Ok(HeadCheck::Open);
        }
        let is_upgrade = upgrade::is_requested(&request.headers);
        Ok(HeadCheck::Token(token::presented_token(&request.headers, is_upgrade)))
    }

    /// Whether the token that admitted a request is still valid; `false` when the token file does not answer.
    pub(super) async fn is_token_still_valid(&self, credential: Option<&Credential>) -> bool {
        let Some(file) = &self.clients.token else { return true };
        match (credential, &self.clients.read_token) {
            (Some(Credential { digest, only_reads: false }), _) => {
                file.matches(digest).await.unwrap_or(false)
            }
            (Some(Credential { digest, only_reads: true }), Some(file)) => {
                file.matches(digest).await.unwrap_or(false)
            }
            _ => false,
        }
    }

    /// The address that the client uses, if it is one of `--allowed-host`; such a proxy is trusted to say whether it has TLS.
    pub(super) fn forwarded_address(&self, headers: &HeaderMap) -> Option<ForwardedAddress> {
        let host = headers.get(header::HOST)?.to_str().ok().filter(|host| self.is_forwarded(host))?;
        let is_tls = headers.get("x-forwarded-proto").is_some_and(|proto| proto.as_bytes() == b"https");
        Some(ForwardedAddress { host: host.to_ascii_lowercase(), is_tls })
    }

    /// Whether a host, with or without a port, is one of `--allowed-host`; one without a port allows every port.
    fn is_forwarded(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.parse::<u16>().is_ok() => name,
            _ => host,
        };
        self.forwarded_hosts
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(host) || allowed.eq_ignore_ascii_case(name))
    }

    /// The result of [`RequestGuard::check_head`]; a request that needs a token is an error.
    #[cfg(test)]
    fn check_without_token_file(&self, peer: &Peer, request: &Parts) -> Result<Admission, ApiError> {
        match self.check_head(peer, request)? {
            HeadCheck::Preflight => Ok(Admission::Preflight),
            HeadCheck::Open => Ok(Admission::Granted(None)),
            HeadCheck::Token(_) => Err(ApiError::unauthorized()),
        }
    }

    /// Returns the value of `Host`, which must be one of ours.
    fn check_host<'a>(&self, uri: &Uri, headers: &'a HeaderMap) -> Result<&'a str, ApiError> {
        let mut hosts = headers.get_all(header::HOST).into_iter();
        // RFC 9112 section 3.2: no Host or several are answered with 400.
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) if !host.is_empty() => host,
            _ => {
                let example = self.hosts.first().map_or("", String::as_str);
                return Err(ApiError::bad_request(format!(
                    "A request must have exactly one Host header, such as Host: {example}."
                )));
            }
        };
        let foreign = || {
            ApiError::forbidden(format!(
                "The Host of this request is wrong; it must be {}, or a name that --allowed-host allows.",
                self.hosts.join(" or ")
            ))
        };
        let is_ours = |host: &str| {
            self.hosts.iter().any(|ours| ours.eq_ignore_ascii_case(host)) || self.is_forwarded(host)
        };
        // Parsers disagree whether an absolute URI or `Host` takes precedence, so both must be ours.
        let is_our_uri = uri.authority().is_none_or(|authority| is_ours(authority.as_str()))
            && uri.scheme_str().is_none_or(|scheme| scheme == "http");
        host.to_str().ok().filter(|host| is_our_uri && is_ours(host)).ok_or_else(foreign)
    }

    /// Whether the request comes from a page of an allowed foreign origin.
    ///
    /// Our own origin is the one that the request was sent to, in no other spelling: the process that listens at
    /// `[::1]` need not be the one that listens at `127.0.0.1`.
    fn check_origin(&self, host: &str, headers: &HeaderMap) -> Result<bool, ApiError> {
        let mut origins = headers.get_all(header::ORIGIN).into_iter();
        let Some(origin) = origins.next() else { return Ok(false) };
        if origins.next().is_none() {
            if self.is_listed(origin) {
                return Ok(true);
            }
            let host = host.to_ascii_lowercase();
            let is_own = |scheme: &str| origin.as_bytes() == format!("{scheme}://{host}").as_bytes();
            // TLS ends at the proxy.
            if is_own("http") || (self.is_forwarded(&host) && is_own("https")) {
                return Ok(false);
            }
        }
        Err(ApiError::forbidden(
            "Web pages of this origin may not use codexd; --allowed-origin allows one more origin.",
        ))
    }

    fn is_listed(&self, origin: &HeaderValue) -> bool {
        self.origins.iter().any(|listed| listed.as_bytes() == origin.as_bytes())
    }

    /// The origin of the requesting page, if that page may read the response.
    pub(super) fn readable_origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let mut origins = headers.get_all(header::ORIGIN).into_iter();
        let origin = origins.next().filter(|origin| self.is_listed(origin))?;
        origins.next().is_none().then(|| origin.clone())
    }
}

/// Whether the file holds the token; an error when it cannot be read in time.
async fn matches(file: &TokenFile, digest: &Digest) -> Result<bool, ApiError> {
    file.matches(digest).await.map_err(|unanswered| {
        ApiError::storage_unavailable(format!(
            "The token file {unanswered}, so requests that need the token are refused; check the file system that holds \
             it."
        ))
    })
}

/// Checks a request with the token that only reads. `GET` and `HEAD` change nothing.
fn check_reads(request: &Parts) -> Result<(), ApiError> {
    if ![Method::GET, Method::HEAD].contains(&request.method) {
        return Err(ApiError::only_reads());
    }
    match PERSONAL_PATHS.contains(&request.uri.path()) {
        true => Err(ApiError::forbidden(
            "This token only reads the sessions of codexd, not what else Codex has of its user; use the token of \
             --auth-token-file.",
        )),
        false => Ok(()),
    }
}

/// Checks the header with which a browser reports how a request was started: only our own pages and the user may start
/// one.
fn check_fetch_site(headers: &HeaderMap) -> Result<(), ApiError> {
    let mut sites = headers.get_all("sec-fetch-site").into_iter();
    match (sites.next().map(HeaderValue::as_bytes), sites.next()) {
        (None | Some(b"none" | b"same-origin"), None) => Ok(()),
        _ => Err(ApiError::forbidden(
            "A web page of another origin sent this request; codexd answers its own pages and those that \
             --allowed-origin allows.",
        )),
    }
}

fn is_preflight(request: &Parts) -> bool {
    request.method == Method::OPTIONS && request.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The response to a preflight.
pub(super) fn preflight_response(headers: &HeaderMap) -> Response {
    let mut response = Response::new(axum::body::Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let response_headers = response.headers_mut();
    let mut set = |name: HeaderName, value| response_headers.insert(name, HeaderValue::from_static(value));
    set(header::ACCESS_CONTROL_ALLOW_METHODS, CORS_METHODS);
    set(header::ACCESS_CONTROL_MAX_AGE, CORS_MAX_AGE_SECONDS);
    set(header::CACHE_CONTROL, "no-store");
    if headers.contains_key("access-control-request-private-network") {
        set(HeaderName::from_static("access-control-allow-private-network"), "true");
    }
    response_headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed_headers(headers));
    response
}

/// The headers that the page may send: all that it requests, because the user allowed its origin.
fn allowed_headers(headers: &HeaderMap) -> HeaderValue {
    let requested = headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).into_iter();
    let names = requested.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    // Invalid names are dropped.
    let names = names.filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok());
    let known =
        |name: &HeaderName| CORS_HEADERS.split(", ").any(|known| name.as_str().eq_ignore_ascii_case(known));
    let more = names.filter(|name| !known(name)).map(|name| format!(", {name}"));
    let all = std::iter::once(CORS_HEADERS.to_owned()).chain(more).collect::<String>();
    HeaderValue::try_from(all).unwrap_or(HeaderValue::from_static(CORS_HEADERS))
}

/// Adds the headers that allow a page of this origin to read the response.
pub(super) fn add_cors_headers(origin: HeaderValue, headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(CORS_EXPOSED_HEADERS));
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
}

#[cfg(test)]
mod tests;
