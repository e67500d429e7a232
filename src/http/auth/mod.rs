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
    /// The origins that are allowed beside our own.
    origins: Vec<String>,
    token: Option<TokenFile>,
}

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
    /// With the token of this digest, if one is needed.
    Granted(Option<Digest>),
    /// A preflight: a browser checks whether its page may send a request (Fetch standard, section 4.8).
    Preflight,
}

/// The digest of the token that admitted a request; an extension of the request. Long responses use it to check that the
/// token is still valid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Credential(pub(super) Option<Digest>);

/// Whether it is certain that a request comes from the user of codexd or from root; an extension of the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Assurance {
    pub(super) is_user: bool,
}

impl Assurance {
    /// The system reports the user of the connection, or the request has the token.
    pub(super) fn of(peer: &Peer, credential: Option<Digest>) -> Self {
        Self { is_user: *peer == Peer::Trusted || credential.is_some() }
    }
}

impl RequestGuard {
    /// Returns the guard of a daemon that listens at `address`.
    pub(super) fn new(address: SocketAddr, origins: &[String], token: Option<TokenFile>) -> Self {
        let port = address.port();
        let names = ["127.0.0.1", "localhost", "[::1]"];
        let mut hosts: Vec<_> = names.iter().map(|name| format!("{name}:{port}")).collect();
        if port == 80 {
            hosts.extend(names.map(str::to_owned));
        }
        Self { hosts, origins: origins.to_owned(), token }
    }

    /// The error for a peer that may not use codexd at all.
    fn peer_rejection(&self, peer: &Peer) -> Option<ApiError> {
        match peer {
            Peer::Foreign(reason) => {
                Some(ApiError::forbidden(format!("This connection is refused: {reason}.")))
            }
            Peer::Unowned => Some(ApiError::forbidden(
                "This connection is refused: no process holds its other end any more, so its user is unknown.",
            )),
            // On a system that cannot report the user of a connection, the token decides. Linux can; there an unknown
            // user needs the token.
            Peer::Unknown(reason) if cfg!(target_os = "linux") && self.token.is_none() => {
                Some(ApiError::forbidden(format!(
                    "codexd cannot determine the user of this connection ({reason}); start it with --auth-token-file."
                )))
            }
            Peer::Trusted | Peer::Unknown(_) => None,
        }
    }

    /// Checks the head of a request.
    pub(super) async fn check(&self, peer: &Peer, request: &Parts) -> Result<Admission, ApiError> {
        match (self.check_head(peer, request)?, &self.token) {
            (HeadCheck::Preflight, _) => Ok(Admission::Preflight),
            (HeadCheck::Open, _) => Ok(Admission::Granted(None)),
            (HeadCheck::Token(Some(digest)), Some(file)) => match file.matches(&digest).await {
                Ok(true) => Ok(Admission::Granted(Some(digest))),
                Ok(false) => Err(ApiError::unauthorized()),
                Err(unanswered) => Err(ApiError::storage_unavailable(format!(
                    "The token file {unanswered}, so requests that need the token are refused; check the file system that \
                     holds it."
                ))),
            },
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
        if self.token.is_none() || TOKEN_FREE_PATHS.contains(&request.uri.path()) {
            return Ok(HeadCheck::Open);
        }
        let is_upgrade = upgrade::is_requested(&request.headers);
        Ok(HeadCheck::Token(token::presented_token(&request.headers, is_upgrade)))
    }

    /// Whether the token that admitted a request is still valid; `false` when the token file does not answer.
    pub(super) async fn is_token_still_valid(&self, digest: Option<&Digest>) -> bool {
        match (&self.token, digest) {
            (Some(file), Some(digest)) => file.matches(digest).await.unwrap_or(false),
            (Some(_), None) => false,
            (None, _) => true,
        }
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
                "The Host of this request is wrong; it must be {}.",
                self.hosts.join(" or ")
            ))
        };
        let is_ours = |host: &str| self.hosts.iter().any(|ours| ours.eq_ignore_ascii_case(host));
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
            if origin.as_bytes() == format!("http://{}", host.to_ascii_lowercase()).as_bytes() {
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
mod tests {
    use axum::http::Request;

    use super::*;

    fn guard() -> RequestGuard {
        let origins = ["https://page.example".to_owned()];
        RequestGuard::new(SocketAddr::from(([127, 0, 0, 1], 4319)), &origins, None)
    }

    fn check(method: &str, target: &str, headers: &[(&'static str, &str)]) -> Result<Admission, u16> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        guard().check_without_token_file(&Peer::Trusted, &parts).map_err(|error| error.status())
    }

    #[test]
    fn guard_rejects_foreign_hosts() {
        let host = |host| check("GET", "/", &[("host", host)]);
        for ours in ["127.0.0.1:4319", "localhost:4319", "LocalHost:4319", "[::1]:4319"] {
            assert_eq!(host(ours), Ok(Admission::Granted(None)), "{ours}");
        }
        for foreign in [
            "evil.example",
            "evil.example:4319",
            "127.0.0.1",
            "127.0.0.1:80",
            "localhost.:4319",
            "a@localhost:4319",
        ] {
            assert_eq!(host(foreign), Err(403), "{foreign}");
        }
        assert_eq!(host(""), Err(400));
        assert_eq!(check("GET", "/", &[]), Err(400));
        let ours = ("host", "localhost:4319");
        assert_eq!(check("GET", "/", &[ours, ours]), Err(400));
        assert_eq!(check("GET", "http://127.0.0.1:4319/", &[ours]), Ok(Admission::Granted(None)));
        for target in ["http://evil.example/", "https://127.0.0.1:4319/", "http://a@127.0.0.1:4319/"] {
            assert_eq!(check("GET", target, &[ours]), Err(403), "{target}");
        }
    }

    #[test]
    fn guard_rejects_foreign_origins() {
        let ours = ("host", "127.0.0.1:4319");
        let origin = |origin| check("POST", "/", &[ours, ("origin", origin)]);
        for good in ["http://127.0.0.1:4319", "https://page.example"] {
            assert_eq!(origin(good), Ok(Admission::Granted(None)), "{good}");
        }
        for bad in [
            "null",
            "",
            "http://localhost:4319",
            "https://127.0.0.1:4319",
            "https://page.example.",
            "https://page.example/",
        ] {
            assert_eq!(origin(bad), Err(403), "{bad}");
        }
        let listed = ("origin", "https://page.example");
        assert_eq!(check("GET", "/", &[ours, listed, listed]), Err(403));
        let site = |site| check("GET", "/", &[ours, ("sec-fetch-site", site)]);
        assert_eq!(
            (site("none"), site("same-origin")),
            (Ok(Admission::Granted(None)), Ok(Admission::Granted(None)))
        );
        for bad in ["cross-site", "same-site", "", "None", "none, none"] {
            assert_eq!(site(bad), Err(403), "{bad}");
        }
        assert_eq!(
            check("GET", "/", &[ours, listed, ("sec-fetch-site", "cross-site")]),
            Ok(Admission::Granted(None))
        );
        let preflight = ("access-control-request-method", "POST");
        assert_eq!(check("OPTIONS", "/", &[ours, listed, preflight]), Ok(Admission::Preflight));
        assert_eq!(check("OPTIONS", "/", &[ours, preflight]), Ok(Admission::Granted(None)));
    }

    #[test]
    fn guard_rejects_untrusted_peers() {
        let (parts, ()) = Request::get("/").header("host", "127.0.0.1:4319").body(()).unwrap().into_parts();
        let check = |peer| guard().check_without_token_file(&peer, &parts).map_err(|error| error.status());
        assert_eq!(check(Peer::Trusted), Ok(Admission::Granted(None)));
        assert_eq!(check(Peer::Foreign("it is not".to_owned())), Err(403));
        let unknown = check(Peer::Unknown("no".to_owned()));
        assert_eq!(unknown.is_err(), cfg!(target_os = "linux"));
    }
}
