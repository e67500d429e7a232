//! Which page asks: the headers Origin and Sec-Fetch-Site, and the pages that may ask from elsewhere.

use serde_json::json;

use super::routes::{Filled, routes};
use super::wire::{HANDSHAKE, Sent, WireAnswer, assert_all_good, first_answers, request};
use crate::api::{SESSIONS, STATUS, idle, ready, session, start, turn};
use crate::duplex::asked;
use crate::sessions::Wiretap;
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::http::{Target, get};
use crate::support::wait::wait_until;
use crate::support::websocket::EVENTS_PATH;

/// Two pages from elsewhere, for daemons that list them.
const LISTED: [&str; 2] = ["https://console.example", "http://localhost:3000"];

/// What each question is answered when it is let in.
const LET_IN: [u16; 3] = [201, 200, 101];

/// Header lines, and whether a request with them is let in.
struct Row {
    headers: Vec<Vec<u8>>,
    is_let_in: bool,
}

impl Row {
    /// These lines with this Host.
    fn new(host: &str, lines: &[impl AsRef<[u8]>], is_let_in: bool) -> Self {
        let host = format!("Host: {host}").into_bytes();
        let lines = lines.iter().map(|line| line.as_ref().to_vec());
        Self { headers: std::iter::once(host).chain(lines).collect(), is_let_in }
    }

    /// A request that changes something, one that does not, and a WebSocket.
    fn questions(&self) -> [Sent; 3] {
        let lines: Vec<_> = self.headers.iter().map(|line| String::from_utf8_lossy(line)).collect();
        let ask = |line: &str, more: &[&str], body: &str| {
            let more = more.iter().map(|line| line.as_bytes().to_vec());
            let headers: Vec<Vec<u8>> = self.headers.iter().cloned().chain(more).collect();
            (format!("{line} {lines:?}"), request(line, &headers, body))
        };
        [
            ask(&format!("POST {SESSIONS}"), &["Content-Type: application/json"], "{}"),
            ask(&format!("GET {STATUS}"), &[], ""),
            ask(&format!("GET {EVENTS_PATH}"), &HANDSHAKE, ""),
        ]
    }
}

/// Asks everything of every row, says which rows went otherwise than they should, and counts the sessions that came of
/// it; the answers to the rows that are let in.
async fn assert_rows(daemon: &Daemon, rows: &[Row]) -> Vec<(String, WireAnswer)> {
    let before = sessions(daemon).await;
    let sent: Vec<Sent> = rows.iter().flat_map(Row::questions).collect();
    let wanted = rows.iter().flat_map(|row| LET_IN.map(|status| (row.is_let_in, status)));
    let answers = first_answers(daemon, &sent).await;
    let (mut failures, mut let_in) = (Vec::new(), Vec::new());
    for (((name, _), (is_let_in, status)), answer) in sent.iter().zip(wanted).zip(answers) {
        let checked = answer.and_then(|answer| {
            if is_let_in {
                answer.is(status, None)?;
                let_in.push((name.clone(), answer));
                return Ok(());
            }
            answer.refuses(403, "forbidden")?;
            allows_nobody(&answer)
        });
        failures.extend(checked.err().map(|why| format!("{name}: {why}")));
    }
    let created = sessions(daemon).await - before;
    let expected = rows.iter().filter(|row| row.is_let_in).count();
    if created != expected {
        failures.push(format!("{created} sessions came of it instead of {expected}"));
    }
    assert_all_good(&failures);
    let_in
}

/// An answer that tells a browser to show it to a page from elsewhere.
fn allows_nobody(answer: &WireAnswer) -> Result<(), String> {
    match answer.headers_beginning("access-control-").as_slice() {
        [] => Ok(()),
        headers => Err(format!("{headers:?} in an answer of {}", answer.status)),
    }
}

async fn sessions(daemon: &Daemon) -> usize {
    get(daemon, SESSIONS).await.data(200)["sessions"].as_array().unwrap().len()
}

fn port(daemon: &Daemon) -> &str {
    daemon.authority().rsplit(':').next().unwrap()
}

fn listing(origins: &[&str]) -> DaemonBuilder {
    origins.iter().fold(Daemon::builder(), |builder, origin| builder.arg("--allowed-origin").arg(origin))
}

#[tokio::test]
async fn no_page_and_our_own_are_let_in_and_get_no_word_for_browsers() {
    let daemon = start().await;
    let port = port(&daemon);
    let mut rows = Vec::new();
    for name in ["127.0.0.1", "localhost", "[::1]"] {
        let host = format!("{name}:{port}");
        rows.push(Row::new(&host, &[] as &[&str], true));
        rows.push(Row::new(&host, &[format!("Origin: http://{host}")], true));
        rows.push(Row::new(&host, &[format!("oRIGIN:  http://{host} \t")], true));
        for site in ["none", "same-origin"] {
            let site = format!("Sec-Fetch-Site: {site}");
            rows.push(Row::new(&host, &[format!("Origin: http://{host}"), site.clone()], true));
            rows.push(Row::new(&host, &[site, "Sec-Fetch-Mode: no-cors".to_owned()], true));
        }
    }
    for (name, answer) in assert_rows(&daemon, &rows).await {
        allows_nobody(&answer).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

/// What is no origin of ours where the Host is `own` and has this port.
fn foreign_origins(own: &str, port: &str) -> Vec<String> {
    let other = if port == "4319" { "4320" } else { "4319" };
    let fixed = [
        "",
        "null",
        "*",
        "undefined",
        "file://",
        "about:blank",
        "http://",
        "http://127.0.0.1",
        "http://localhost",
        "http://evil.example",
        "https://evil.example",
        "chrome-extension://mhjfbmdgcfjbbpaeojofohoefgiehjai",
        "moz-extension://7d1a6bf1-0a41-4f21-a2b6-4a3fbd0a8d5e",
        "safari-web-extension://A2F2A53C-0A6E-4E5F-8F0D-2A7B8C1D3E4F",
        "vscode-webview://0a1b2c3d",
        "app://obsidian.md",
        "tauri://localhost",
        "http://tauri.localhost",
        "capacitor://localhost",
    ];
    let made = [
        format!("https://{own}"),
        format!("ws://{own}"),
        format!("HTTP://{own}"),
        format!("Http://{own}"),
        format!("http:{own}"),
        format!("http:///{own}"),
        format!("//{own}"),
        own.to_owned(),
        format!("blob:http://{own}"),
        format!("view-source:http://{own}"),
        format!("http://{own}/"),
        format!("http://{own}/path"),
        format!("http://{own}."),
        format!("http://{own}?"),
        format!("http://{own}#"),
        format!("http://{own}@evil.example"),
        format!("http://user@{own}"),
        format!("http://{own},http://evil.example"),
        format!("http://{own}, http://{own}"),
        format!("http://evil.example http://{own}"),
        format!("http://{own} http://evil.example"),
        format!("http://{own};"),
        format!("\"http://{own}\""),
        format!("http://{own}0"),
        format!("http://127.0.0.1:{other}"),
        format!("http://localhost:{port}"),
        format!("http://LOCALHOST:{port}"),
        format!("http://[::1]:{port}"),
        format!("http://127.0.0.1.:{port}"),
        format!("http://127.0.0.1:0{port}"),
        format!("http://127.1:{port}"),
        format!("http://2130706433:{port}"),
        format!("http://0x7f000001:{port}"),
        format!("http://0.0.0.0:{port}"),
        format!("http://[::ffff:127.0.0.1]:{port}"),
        format!("http://evil.example:{port}"),
        format!("http://127.0.0.1.evil.example:{port}"),
        format!("http://localhost.evil.example:{port}"),
        format!("http://evil-localhost:{port}"),
        format!("http://１２７.0.0.1:{port}"),
    ];
    fixed.map(str::to_owned).into_iter().chain(made).collect()
}

#[tokio::test]
async fn a_page_from_elsewhere_is_refused() {
    let daemon = start().await;
    let (own, port) = (daemon.authority(), port(&daemon));
    let mut rows: Vec<Row> = foreign_origins(own, port)
        .iter()
        .map(|origin| Row::new(own, &[format!("Origin: {origin}")], false))
        .collect();
    // Our other names are other pages for a browser.
    for (host, page) in
        [("localhost", "127.0.0.1"), ("localhost", "[::1]"), ("[::1]", "127.0.0.1"), ("[::1]", "localhost")]
    {
        let origin = format!("Origin: http://{page}:{port}");
        rows.push(Row::new(&format!("{host}:{port}"), &[origin], false));
    }
    let own_line = format!("Origin: http://{own}");
    let evil_line = "Origin: http://evil.example";
    let pairs: [[&str; 2]; 6] = [
        [&own_line, &own_line],
        [&own_line, evil_line],
        [evil_line, &own_line],
        [evil_line, evil_line],
        [&own_line, "Origin:"],
        ["Origin: null", &own_line],
    ];
    rows.extend(pairs.iter().map(|pair| Row::new(own, pair, false)));
    rows.push(Row::new(own, &[[own_line.as_bytes(), b"\xff"].concat()], false));
    // What the browser says besides does not help.
    rows.push(Row::new(own, &[evil_line, "Sec-Fetch-Site: same-origin"], false));
    rows.push(Row::new(own, &[evil_line, "Sec-Fetch-Site: none"], false));
    let referer = format!("Referer: http://{own}/");
    rows.push(Row::new(own, &["Origin: null", referer.as_str(), "X-Requested-With: XMLHttpRequest"], false));
    assert_rows(&daemon, &rows).await;
    get(&daemon, STATUS).await.data(200);
}

#[tokio::test]
async fn what_a_browser_sends_for_another_site_is_refused() {
    let daemon = start().await;
    let own = daemon.authority();
    let values = [
        "cross-site",
        "same-site",
        "",
        "null",
        "None",
        "SAME-ORIGIN",
        "Same-Origin",
        "same origin",
        "same-origin;v=1",
        "same-origin,",
        "same-origin, none",
        "none, cross-site",
        "\"none\"",
        "nonesuch",
        "bogus",
    ];
    let origin = format!("Origin: http://{own}");
    let mut rows = Vec::new();
    for value in values {
        let site = format!("Sec-Fetch-Site: {value}");
        rows.push(Row::new(own, &[&site], false));
        rows.push(Row::new(own, &[&origin, &site], false));
    }
    for [first, second] in [
        ["none", "none"],
        ["same-origin", "same-origin"],
        ["same-origin", "cross-site"],
        ["cross-site", "same-origin"],
        ["none", ""],
    ] {
        let lines = [format!("Sec-Fetch-Site: {first}"), format!("Sec-Fetch-Site: {second}")];
        rows.push(Row::new(own, &lines, false));
    }
    rows.push(Row::new(own, &[&b"Sec-Fetch-Site: none\xff"[..]], false));
    assert_rows(&daemon, &rows).await;
}

/// Whether an answer is shown by a browser to the page that this is.
fn is_for(answer: &WireAnswer, origin: &str) -> Result<(), String> {
    let allowed = answer.headers("access-control-allow-origin");
    let vary = answer.headers("vary").join(",");
    let varies = vary.split(',').any(|name| name.trim().eq_ignore_ascii_case("origin"));
    if allowed != [origin] || !varies {
        return Err(format!("{}: allowed {allowed:?}, vary {vary:?}", answer.status));
    }
    Ok(())
}

#[tokio::test]
async fn a_listed_page_is_let_in_from_anywhere_and_may_read_every_answer() {
    let daemon = listing(&LISTED).start().await;
    let (own, port) = (daemon.authority(), port(&daemon));
    let mut rows = Vec::new();
    for origin in LISTED {
        let origin = format!("Origin: {origin}");
        for name in ["127.0.0.1", "localhost"] {
            rows.push(Row::new(&format!("{name}:{port}"), &[&origin], true));
        }
        for site in ["cross-site", "same-site", "same-origin", "none"] {
            rows.push(Row::new(own, &[&origin, &format!("Sec-Fetch-Site: {site}")], true));
        }
    }
    for (name, answer) in assert_rows(&daemon, &rows).await {
        let origin = LISTED.iter().find(|origin| name.contains(*origin)).unwrap();
        is_for(&answer, origin).unwrap_or_else(|why| panic!("{name}: {why}"));
    }

    // Errors too, and the answer to a HEAD.
    let mut sent = Vec::new();
    for (line, body) in [
        ("GET /nothing/here".to_owned(), ""),
        ("GET /v1/codexd/sessions/nobody".to_owned(), ""),
        (format!("POST {SESSIONS}"), "nonsense"),
        (format!("POST {SESSIONS}"), "[]"),
        (format!("HEAD {STATUS}"), ""),
        (format!("OPTIONS {STATUS}"), ""),
        ("GET /healthz".to_owned(), ""),
        (format!("GET {EVENTS_PATH}?limit=0"), ""),
    ] {
        let lines = [format!("Host: {own}"), format!("Origin: {}", LISTED[0])];
        sent.push((format!("{line} {body}"), request(&line, &lines, body)));
    }
    let answers = first_answers(&daemon, &sent).await;
    let checked = sent.iter().zip(answers).map(|((name, _), answer)| {
        let checked = answer.and_then(|answer| is_for(&answer, LISTED[0]));
        checked.map_err(|why| format!("{name}: {why}"))
    });
    let failures: Vec<String> = checked.filter_map(Result::err).collect();
    assert_all_good(&failures);
}

#[tokio::test]
async fn a_page_that_is_nearly_listed_is_refused() {
    let daemon = listing(&LISTED).start().await;
    let own = daemon.authority();
    let mut rows = Vec::new();
    for origin in [
        "https://console.example/",
        "https://console.example.",
        "https://console.example:443",
        "https://console.example:8443",
        "http://console.example",
        "https://CONSOLE.example",
        "HTTPS://console.example",
        "https://sub.console.example",
        "https://evilconsole.example",
        "https://console.example.evil.example",
        "https://console.exampl",
        "https://console.example, http://localhost:3000",
        "https://console.example http://localhost:3000",
        "http://localhost:30000",
        "http://localhost",
        "http://127.0.0.1:3000",
        "https://localhost:3000",
        "null",
        "*",
        "",
    ] {
        rows.push(Row::new(own, &[format!("Origin: {origin}")], false));
        rows.push(Row::new(
            own,
            &[format!("Origin: {origin}"), "Sec-Fetch-Site: same-origin".to_owned()],
            false,
        ));
    }
    let listed = LISTED.map(|origin| format!("Origin: {origin}"));
    rows.push(Row::new(own, &listed, false));
    rows.push(Row::new(own, &[&listed[0], &listed[0]], false));
    rows.push(Row::new(own, &[listed[0].as_str(), "Origin: null"], false));
    // Who lists pages has not said that requests without a page come from anywhere.
    rows.push(Row::new(own, &["Sec-Fetch-Site: cross-site"], false));
    // A list is no licence for another name of ours.
    rows.push(Row::new(own, &["Origin: http://evil.example", "Sec-Fetch-Site: none"], false));
    assert_rows(&daemon, &rows).await;
}

#[tokio::test]
async fn pages_are_listed_in_the_environment_too() {
    let json = json!(LISTED).to_string();
    let words = LISTED.join(" ");
    for value in [json, words] {
        let daemon = Daemon::builder().env("BAA_CODEXD_ALLOWED_ORIGINS", &value).start().await;
        let own = daemon.authority();
        let mut rows: Vec<Row> = Vec::new();
        for origin in LISTED {
            rows.push(Row::new(
                own,
                &[format!("Origin: {origin}"), "Sec-Fetch-Site: cross-site".to_owned()],
                true,
            ));
        }
        rows.push(Row::new(own, &["Origin: https://other.example"], false));
        assert_rows(&daemon, &rows).await;
    }
}

/// The question of a browser whether this page may send this.
fn preflight(host: &str, path: &str, headers: &[&str]) -> Vec<u8> {
    let host = format!("Host: {host}");
    request(&format!("OPTIONS {path}"), &[&[host.as_str()], headers].concat(), "")
}

#[tokio::test]
async fn a_listed_page_may_ask_beforehand_and_nobody_else() {
    let daemon = listing(&LISTED).start().await;
    let own = daemon.authority();
    let own_origin = format!("Origin: http://{own}");
    let asks = "Access-Control-Request-Method: POST";
    let more = "Access-Control-Request-Headers: authorization,content-type,idempotency-key";
    let listed = format!("Origin: {}", LISTED[0]);
    let mut failures = Vec::new();

    let mut sent: Vec<Sent> = Vec::new();
    for path in [SESSIONS, STATUS, EVENTS_PATH, "/nothing/here"] {
        for lines in [
            &[listed.as_str(), asks][..],
            &[&listed, asks, more],
            &[&listed, asks, more, "Sec-Fetch-Site: cross-site"],
        ] {
            sent.push((format!("{path} {lines:?}"), preflight(own, path, lines)));
        }
    }
    for ((name, _), answer) in sent.iter().zip(first_answers(&daemon, &sent).await) {
        let checked = answer.and_then(|answer| {
            answer.is(204, None)?;
            is_for(&answer, LISTED[0])?;
            let methods = answer.headers("access-control-allow-methods").join(",");
            let allowed = answer.headers("access-control-allow-headers").join(",").to_ascii_lowercase();
            for (list, word) in [
                (&methods, "GET"),
                (&methods, "POST"),
                (&methods, "DELETE"),
                (&allowed, "authorization"),
                (&allowed, "content-type"),
                (&allowed, "idempotency-key"),
            ] {
                if !list.split(',').any(|known| known.trim() == word) {
                    return Err(format!("{word} is not in {list:?}"));
                }
            }
            match answer.headers("access-control-allow-credentials").as_slice() {
                [] => Ok(()),
                values => Err(format!("credentials {values:?}")),
            }
        });
        failures.extend(checked.err().map(|why| format!("{name}: {why}")));
    }

    let mut refused: Vec<(Sent, u16, &str)> = Vec::new();
    for (lines, status, code) in [
        (&["Origin: http://evil.example", asks][..], 403, "forbidden"),
        (&["Origin: null", asks], 403, "forbidden"),
        (
            &["Origin: http://evil.example", asks, more, "Access-Control-Request-Private-Network: true"],
            403,
            "forbidden",
        ),
        (
            &["Origin: http://evil.example", asks, "Access-Control-Request-Local-Network: true"],
            403,
            "forbidden",
        ),
        (&[&listed, &listed, asks], 403, "forbidden"),
        (&["Sec-Fetch-Site: cross-site", asks], 403, "forbidden"),
        (&[&own_origin, asks], 404, "not_found"),
        (&[asks], 404, "not_found"),
        (&[], 404, "not_found"),
    ] {
        refused.push(((format!("{lines:?}"), preflight(own, SESSIONS, lines)), status, code));
    }
    let foreign = "a foreign Host".to_owned();
    refused.push(((foreign, preflight("evil.example", SESSIONS, &[&listed, asks])), 403, "forbidden"));
    let sent: Vec<Sent> = refused.iter().map(|(sent, _, _)| sent.clone()).collect();
    for (((name, _), status, code), answer) in refused.iter().zip(first_answers(&daemon, &sent).await) {
        let is_listed = name.contains("foreign");
        let checked = answer.and_then(|answer| {
            answer.refuses(*status, code)?;
            if is_listed { Ok(()) } else { allows_nobody(&answer) }
        });
        failures.extend(checked.err().map(|why| format!("{name}: {why}")));
    }
    assert_eq!(sessions(&daemon).await, 0);
    assert_all_good(&failures);
}

#[tokio::test]
async fn a_page_that_cannot_be_listed_is_refused_at_the_start() {
    for origin in [
        "*",
        "null",
        "",
        "console.example",
        "https://console.example/",
        "https://console.example/path",
        "https://console.example?",
        "https://user@console.example",
        "https://*.console.example",
        "https://console.example https://other.example",
        "https://",
    ] {
        let refusal = listing(&[origin]).start_refused().await;
        assert_eq!(refusal.status.code(), Some(2), "{origin:?}: {}", refusal.stderr);
        assert!(refusal.stderr.contains("--allowed-origin"), "{origin:?}: {}", refusal.stderr);
        assert!(refusal.stderr.trim_end().ends_with('.'), "{origin:?}: {}", refusal.stderr);
    }
}

#[tokio::test]
async fn an_image_and_a_link_can_change_nothing() {
    let wiretap = Wiretap::new();
    let daemon = wiretap.builder().arg("--check-interval").arg("3600").start().await;
    ready(&daemon).await;
    let session_id = session(&daemon).await;
    let turn_id = turn(&daemon, &session_id, "text=done").await;
    idle(&daemon, &session_id).await;
    let waiting = session(&daemon).await;
    turn(&daemon, &waiting, "ask=command").await;
    let request_id = asked(&daemon, &waiting).await["requestId"].clone();
    let names =
        Filled { session: session_id, turn: turn_id, request: request_id.as_str().unwrap().to_owned() };
    let paths: Vec<String> = routes(&daemon, &[]).await.iter().map(|route| names.fill(&route.path)).collect();
    assert!(paths.len() > 10, "{paths:?}");

    let own = format!("Host: {}", daemon.authority());
    let mut sent: Vec<Sent> = Vec::new();
    for path in paths.iter().map(String::as_str).chain(["/", "/nothing/here"]) {
        for method in ["GET", "HEAD"] {
            for (query, lines, body) in [
                ("", &[][..], ""),
                ("?wait=0&interrupt=true&limit=1&after=0&onGap=resync", &[], ""),
                ("?_method=DELETE&method=POST&decision=accept", &["X-HTTP-Method-Override: DELETE"], ""),
                ("?purpose=duplex&input=hello", &["X-HTTP-Method: POST", "X-Method-Override: POST"], ""),
                ("", &["Content-Type: application/json"], r#"{"input":"hello","decision":"accept"}"#),
                ("", &["Idempotency-Key: key", "Purpose: prefetch", "Sec-Purpose: prefetch"], ""),
            ] {
                let line = format!("{method} {path}{query}");
                let lines = [&[own.as_str()], lines].concat();
                sent.push((format!("{line} {lines:?} {body}"), request(&line, &lines, body)));
            }
        }
    }

    let view = async || {
        let sessions = get(&daemon, SESSIONS).await.data(200)["sessions"].clone();
        let requests = get(&daemon, "/v1/codexd/requests").await.data(200)["requests"].clone();
        (sessions, requests)
    };
    let methods = || {
        let text = std::fs::read_to_string(wiretap.heard()).unwrap();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let calls =
            whole.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["method"].take());
        calls.collect::<Vec<_>>()
    };
    // What is still on its way to the tap has to arrive before it is counted.
    wait_until("the turns to be heard", || (wiretap.told("turn/start").len() == 2).then_some(())).await;
    let (before, log, heard) = (view().await, daemon.events_on_disk(), methods());
    let mut failures = Vec::new();
    for ((name, _), answer) in sent.iter().zip(first_answers(&daemon, &sent).await) {
        let checked = answer.and_then(|answer| match answer.status {
            200 | 400 | 404 => Ok(()),
            status => Err(format!("{status}: {:?}", answer.body)),
        });
        failures.extend(checked.err().map(|why| format!("{name}: {why}")));
    }
    assert_all_good(&failures);
    assert_eq!(view().await, before);
    assert_eq!(daemon.events_on_disk(), log);
    let reads = ["model/list", "thread/read", "thread/turns/list"];
    let asked = &methods()[heard.len()..];
    assert!(asked.iter().all(|method| reads.iter().any(|known| method == known)), "{asked:?}");
}
