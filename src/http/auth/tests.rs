//! Tests of the request guard, without a token file.

use axum::http::Request;

use super::*;

fn guard() -> RequestGuard {
    let (hosts, origins) = (["codexd.example".to_owned()], ["https://page.example".to_owned()]);
    let address = SocketAddr::from(([127, 0, 0, 1], 4319));
    RequestGuard::new(address, &hosts, &origins, AllowedClients::default())
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
fn guard_accepts_forwarded_hosts_with_their_origins() {
    for host in ["codexd.example", "CODEXD.example", "codexd.example:443", "codexd.example:9999"] {
        assert_eq!(check("GET", "/", &[("host", host)]), Ok(Admission::Granted(None)), "{host}");
        for (origin, expected) in [
            (format!("https://{}", host.to_lowercase()), Ok(Admission::Granted(None))),
            (format!("http://{}", host.to_lowercase()), Ok(Admission::Granted(None))),
            (format!("https://{}.", host.to_lowercase()), Err(403)),
            ("https://codexd.example.evil.example".to_owned(), Err(403)),
            ("https://codexd.example:1".to_owned(), Err(403)),
        ] {
            assert_eq!(
                check("GET", "/", &[("host", host), ("origin", &origin)]),
                expected,
                "{host} {origin}"
            );
        }
    }
    for foreign in
        ["codexd.example.evil.example", "evil.codexd.example", "codexd.example:x", "codexd.example."]
    {
        assert_eq!(check("GET", "/", &[("host", foreign)]), Err(403), "{foreign}");
    }
    let cross = [("host", "codexd.example"), ("sec-fetch-site", "cross-site")];
    assert_eq!(check("GET", "/", &cross), Err(403));
}

#[test]
fn address_is_that_of_the_proxy_only_under_its_name() {
    let address = |host: &'static str, proto: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static(host));
        headers.insert("x-forwarded-proto", HeaderValue::from_static(proto));
        guard().forwarded_address(&headers).map(|address| address.url("ws"))
    };
    assert_eq!(address("Codexd.example", "https").as_deref(), Some("wss://codexd.example"));
    assert_eq!(address("codexd.example:81", "http").as_deref(), Some("ws://codexd.example:81"));
    assert_eq!(address("127.0.0.1:4319", "https"), None);
}

#[test]
fn guard_rejects_untrusted_peers() {
    let (parts, ()) = Request::get("/").header("host", "127.0.0.1:4319").body(()).unwrap().into_parts();
    let check = |peer| guard().check_without_token_file(&peer, &parts).map_err(|error| error.status());
    assert_eq!(check(Peer::Trusted), Ok(Admission::Granted(None)));
    assert_eq!(check(Peer::Foreign("it is not".to_owned())), Err(403));
    let user = Peer::User { uid: 33, own_uid: 1000 };
    assert_eq!(check(user.clone()), Err(403));
    let mut guard = guard();
    guard.clients.uids = vec![33];
    assert!(guard.check_without_token_file(&user, &parts).is_ok());
    assert!(guard.check_without_token_file(&Peer::User { uid: 34, own_uid: 1000 }, &parts).is_err());
    let unknown = check(Peer::Unknown("no".to_owned()));
    assert_eq!(unknown.is_err(), cfg!(target_os = "linux"));
}
