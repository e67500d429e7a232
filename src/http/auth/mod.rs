//! Who may come in, how long they may take, and how many there may be at once.
//!
//! A connection is looked at once (`peer`), each head before it is parsed (`head`, `conversation`), and each request before
//! it is routed and before its body is read ([`RequestGuard::check`]).
//! No single check keeps a web page out: a WebSocket has an `Origin` and no `Sec-Fetch-Site`, an image has it the other way
//! round, and a page whose name was bound to 127.0.0.1 later has both in order and a foreign `Host` (measured with
//! Chromium).

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

/// The paths that need no token: the probe, and the page, which a browser asks for without any and which holds no data.
pub(super) const TOKEN_FREE_PATHS: [&str; 2] = ["/", "/healthz"];
/// What a page of another origin may send and read, where it is let in.
const CORS_METHODS: &str = "GET, HEAD, POST, PATCH, DELETE";
/// The headers that mean something here; those that a page asks for beside them are allowed too, such as the `traceparent`
/// that a tracing library adds to each request.
const CORS_HEADERS: &str = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID";
const CORS_EXPOSED_HEADERS: &str = "Retry-After, WWW-Authenticate, codexd-ignored";
/// How long a browser may remember that, in seconds.
const CORS_MAX_AGE_SECONDS: &str = "600";

/// What a request has to have to come in.
#[derive(Debug)]
pub(super) struct RequestGuard {
    /// The values of `Host` that are ours.
    hosts: Vec<String>,
    /// The origins that are let in beside our own.
    origins: Vec<String>,
    token: Option<TokenFile>,
}

/// What a head says about who sends it, before the token file is asked.
#[derive(Debug)]
enum HeadCheck {
    Preflight,
    /// It may come in without a token.
    Open,
    /// It may come in when the token with this digest is the one of the file; `None` when it brings none.
    Token(Option<Digest>),
}

/// How a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// With the token that has this digest, where one is needed.
    Granted(Option<Digest>),
    /// A browser asks whether its page may send the request that it has in mind (Fetch standard, section 4.8).
    Preflight,
}

impl RequestGuard {
    /// The door of a daemon that listens at `address`.
    pub(super) fn new(address: SocketAddr, origins: &[String], token: Option<TokenFile>) -> Self {
        let port = address.port();
        let names = ["127.0.0.1", "localhost", "[::1]"];
        let mut hosts: Vec<_> = names.iter().map(|name| format!("{name}:{port}")).collect();
        if port == 80 {
            hosts.extend(names.map(str::to_owned));
        }
        Self { hosts, origins: origins.to_owned(), token }
    }

    /// What somebody is told who has no business here, whatever it says.
    pub(super) fn peer_rejection(&self, peer: &Peer) -> Option<ApiError> {
        match peer {
            Peer::Foreign(why) => Some(ApiError::forbidden(format!("This connection is refused: {why}."))),
            Peer::Unowned => Some(ApiError::forbidden(
                "This connection is refused: no process holds its other side any more, so nobody knows whose it was.",
            )),
            // Where no system says whose a connection is, the token has to do; one that says so about some only is not
            // trusted without it.
            Peer::Unknown(why) if cfg!(target_os = "linux") && self.token.is_none() => {
                Some(ApiError::forbidden(format!(
                    "codexd cannot find out whose connection this is ({why}); start it with --auth-token-file."
                )))
            }
            Peer::Trusted | Peer::Unknown(_) => None,
        }
    }

    /// Whether a request may come in, by all that stands in its head.
    pub(super) async fn check(&self, peer: &Peer, request: &Parts) -> Result<Admission, ApiError> {
        match (self.check_head(peer, request)?, &self.token) {
            (HeadCheck::Preflight, _) => Ok(Admission::Preflight),
            (HeadCheck::Open, _) => Ok(Admission::Granted(None)),
            (HeadCheck::Token(Some(digest)), Some(file)) => match file.matches(&digest).await {
                Ok(true) => Ok(Admission::Granted(Some(digest))),
                Ok(false) => Err(ApiError::unauthorized()),
                Err(unanswered) => Err(ApiError::disk(format!(
                    "The token file {unanswered}, so no request that needs the token is taken; see to the file system \
                     that it lies on."
                ))),
            },
            (HeadCheck::Token(_), _) => Err(ApiError::unauthorized()),
        }
    }

    /// [`RequestGuard::check`] without a look at the token file.
    fn check_head(&self, peer: &Peer, request: &Parts) -> Result<HeadCheck, ApiError> {
        if let Some(refusal) = self.peer_rejection(peer) {
            return Err(refusal);
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
        let is_upgrade = upgrade::is_asked_for(&request.headers);
        Ok(HeadCheck::Token(token::presented_token(&request.headers, is_upgrade)))
    }

    /// Whether the token that let a request in still does; not when the token file does not answer.
    pub(super) async fn still_admits(&self, digest: Option<&Digest>) -> bool {
        match (&self.token, digest) {
            (Some(file), Some(digest)) => file.matches(digest).await.unwrap_or(false),
            (Some(_), None) => false,
            (None, _) => true,
        }
    }

    /// What the head of a request says: whether it comes in without a token, and whether it is a preflight.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn verdict(&self, peer: &Peer, request: &Parts) -> Result<Admission, ApiError> {
        match self.check_head(peer, request)? {
            HeadCheck::Preflight => Ok(Admission::Preflight),
            HeadCheck::Open => Ok(Admission::Granted(None)),
            HeadCheck::Token(_) => Err(ApiError::unauthorized()),
        }
    }

    /// The value of `Host`, which is ours.
    fn check_host<'a>(&self, uri: &Uri, headers: &'a HeaderMap) -> Result<&'a str, ApiError> {
        let mut hosts = headers.get_all(header::HOST).into_iter();
        // RFC 9112 section 3.2: none and several are answered with 400.
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) if !host.is_empty() => host,
            _ => {
                let example = self.hosts.first().map_or("", String::as_str);
                return Err(ApiError::bad_request(format!(
                    "A request has exactly one header Host, such as Host: {example}."
                )));
            }
        };
        let foreign = || {
            ApiError::forbidden(format!(
                "The Host of this request is not this one; it must be {}.",
                self.hosts.join(" or ")
            ))
        };
        let is_ours = |host: &str| self.hosts.iter().any(|ours| ours.eq_ignore_ascii_case(host));
        // A whole address in the first line counts more than Host for some, and less for others: both must be ours.
        let is_here = uri.authority().is_none_or(|authority| is_ours(authority.as_str()))
            && uri.scheme_str().is_none_or(|scheme| scheme == "http");
        host.to_str().ok().filter(|host| is_here && is_ours(host)).ok_or_else(foreign)
    }

    /// Whether the request comes from a page that is let in although it is of another origin.
    ///
    /// Its own origin is the one that the request was sent to, and no other spelling of it: who listens at `[::1]` need
    /// not be who listens at `127.0.0.1`.
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
            "Web pages of this origin may not use codexd; --allowed-origin lets those of one more origin in.",
        ))
    }

    fn is_listed(&self, origin: &HeaderValue) -> bool {
        self.origins.iter().any(|listed| listed.as_bytes() == origin.as_bytes())
    }

    /// The origin of the page that sent this, where the page may read the answer.
    pub(super) fn readable_origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let mut origins = headers.get_all(header::ORIGIN).into_iter();
        let origin = origins.next().filter(|origin| self.is_listed(origin))?;
        origins.next().is_none().then(|| origin.clone())
    }
}

/// A browser says here what its page has to do with us: nothing that is not ours or the user's own may go on.
fn check_fetch_site(headers: &HeaderMap) -> Result<(), ApiError> {
    let mut sites = headers.get_all("sec-fetch-site").into_iter();
    match (sites.next().map(HeaderValue::as_bytes), sites.next()) {
        (None | Some(b"none" | b"same-origin"), None) => Ok(()),
        _ => Err(ApiError::forbidden(
            "A web page of another origin had the browser send this; codexd answers its own pages, and those that \
             --allowed-origin lets in.",
        )),
    }
}

fn is_preflight(request: &Parts) -> bool {
    request.method == Method::OPTIONS && request.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight.
pub(super) fn preflight_response(headers: &HeaderMap) -> Response {
    let mut response = Response::new(axum::body::Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let answer = response.headers_mut();
    let mut set = |name: HeaderName, value| answer.insert(name, HeaderValue::from_static(value));
    set(header::ACCESS_CONTROL_ALLOW_METHODS, CORS_METHODS);
    set(header::ACCESS_CONTROL_MAX_AGE, CORS_MAX_AGE_SECONDS);
    set(header::CACHE_CONTROL, "no-store");
    if headers.contains_key("access-control-request-private-network") {
        set(HeaderName::from_static("access-control-allow-private-network"), "true");
    }
    answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed_headers(headers));
    response
}

/// The headers that the page of a preflight may send: an origin is listed by the user, so all that it asks for.
fn allowed_headers(headers: &HeaderMap) -> HeaderValue {
    let asked = headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).into_iter();
    let names = asked.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    // A name that is none is left out.
    let names = names.filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok());
    let known =
        |name: &HeaderName| CORS_HEADERS.split(", ").any(|known| name.as_str().eq_ignore_ascii_case(known));
    let more = names.filter(|name| !known(name)).map(|name| format!(", {name}"));
    let all = std::iter::once(CORS_HEADERS.to_owned()).chain(more).collect::<String>();
    HeaderValue::try_from(all).unwrap_or(HeaderValue::from_static(CORS_HEADERS))
}

/// Lets the page of this origin read the answer.
pub(super) fn allow_reading(origin: HeaderValue, answer: &mut HeaderMap) {
    answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(CORS_EXPOSED_HEADERS));
    answer.insert(header::VARY, HeaderValue::from_static("Origin"));
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn guard() -> RequestGuard {
        let origins = ["https://page.example".to_owned()];
        RequestGuard::new(SocketAddr::from(([127, 0, 0, 1], 4319)), &origins, None)
    }

    fn verdict(method: &str, target: &str, headers: &[(&'static str, &str)]) -> Result<Admission, u16> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        guard().verdict(&Peer::Trusted, &parts).map_err(|error| error.status())
    }

    #[test]
    fn a_request_is_for_this_daemon_or_for_nobody() {
        let host = |host| verdict("GET", "/", &[("host", host)]);
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
        assert_eq!(verdict("GET", "/", &[]), Err(400));
        let ours = ("host", "localhost:4319");
        assert_eq!(verdict("GET", "/", &[ours, ours]), Err(400));
        assert_eq!(verdict("GET", "http://127.0.0.1:4319/", &[ours]), Ok(Admission::Granted(None)));
        for target in ["http://evil.example/", "https://127.0.0.1:4319/", "http://a@127.0.0.1:4319/"] {
            assert_eq!(verdict("GET", target, &[ours]), Err(403), "{target}");
        }
    }

    #[test]
    fn a_page_is_our_own_or_a_listed_one() {
        let ours = ("host", "127.0.0.1:4319");
        let origin = |origin| verdict("POST", "/", &[ours, ("origin", origin)]);
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
        assert_eq!(verdict("GET", "/", &[ours, listed, listed]), Err(403));
        let site = |site| verdict("GET", "/", &[ours, ("sec-fetch-site", site)]);
        assert_eq!(
            (site("none"), site("same-origin")),
            (Ok(Admission::Granted(None)), Ok(Admission::Granted(None)))
        );
        for bad in ["cross-site", "same-site", "", "None", "none, none"] {
            assert_eq!(site(bad), Err(403), "{bad}");
        }
        assert_eq!(
            verdict("GET", "/", &[ours, listed, ("sec-fetch-site", "cross-site")]),
            Ok(Admission::Granted(None))
        );
        let asks = ("access-control-request-method", "POST");
        assert_eq!(verdict("OPTIONS", "/", &[ours, listed, asks]), Ok(Admission::Preflight));
        assert_eq!(verdict("OPTIONS", "/", &[ours, asks]), Ok(Admission::Granted(None)));
    }

    #[test]
    fn a_connection_of_somebody_else_is_refused_whatever_it_says() {
        let (parts, ()) = Request::get("/").header("host", "127.0.0.1:4319").body(()).unwrap().into_parts();
        let check = |peer| guard().verdict(&peer, &parts).map_err(|error| error.status());
        assert_eq!(check(Peer::Trusted), Ok(Admission::Granted(None)));
        assert_eq!(check(Peer::Foreign("it is not".to_owned())), Err(403));
        let unknown = check(Peer::Unknown("no".to_owned()));
        assert_eq!(unknown.is_err(), cfg!(target_os = "linux"));
    }
}
