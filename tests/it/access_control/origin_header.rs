//! The Origin and Sec-Fetch-Site headers: the daemon accepts requests without a page and from its own page only.

use serde_json::json;

use super::raw_http::{HANDSHAKE, HttpResponse, NamedRequest, assert_no_failures, first_responses, request};
use super::routes::{PathParameters, routes};
use crate::api::{
    SESSIONS, STATUS, new_session, start_daemon, start_turn, wait_until_idle, wait_until_ready,
};
use crate::duplex::pending_request;
use crate::sessions::RecordingAppServer;
use crate::support::daemon::Daemon;
use crate::support::http::{Target, get, post};
use crate::support::wait::wait_until;
use crate::support::websocket::EVENTS_PATH;

/// The status of each request of a row that is accepted.
const ACCEPTED_STATUSES: [u16; 3] = [201, 200, 101];

/// Header lines, and whether the daemon accepts a request with them.
pub(super) struct Row {
    headers: Vec<Vec<u8>>,
    is_accepted: bool,
}

impl Row {
    /// These header lines after this Host.
    pub(super) fn new(host: &str, lines: &[impl AsRef<[u8]>], is_accepted: bool) -> Self {
        let host = format!("Host: {host}").into_bytes();
        let lines = lines.iter().map(|line| line.as_ref().to_vec());
        Self { headers: std::iter::once(host).chain(lines).collect(), is_accepted }
    }

    /// A POST, a GET and a WebSocket handshake with these headers.
    fn requests(&self) -> [NamedRequest; 3] {
        let lines: Vec<_> = self.headers.iter().map(|line| String::from_utf8_lossy(line)).collect();
        let named = |line: &str, more: &[&str], body: &str| {
            let more = more.iter().map(|line| line.as_bytes().to_vec());
            let headers: Vec<Vec<u8>> = self.headers.iter().cloned().chain(more).collect();
            (format!("{line} {lines:?}"), request(line, &headers, body))
        };
        [
            named(&format!("POST {SESSIONS}"), &["Content-Type: application/json"], "{}"),
            named(&format!("GET {STATUS}"), &[], ""),
            named(&format!("GET {EVENTS_PATH}"), &HANDSHAKE, ""),
        ]
    }
}

/// Sends all requests of every row; fails with the list of rows that were not handled as expected, or when the number
/// of new sessions is wrong. Returns the responses to the accepted rows.
pub(super) async fn assert_rows(daemon: &Daemon, rows: &[Row]) -> Vec<(String, HttpResponse)> {
    let before = session_count(daemon).await;
    let sent: Vec<NamedRequest> = rows.iter().flat_map(Row::requests).collect();
    let expected = rows.iter().flat_map(|row| ACCEPTED_STATUSES.map(|status| (row.is_accepted, status)));
    let responses = first_responses(daemon, &sent).await;
    let (mut failures, mut accepted) = (Vec::new(), Vec::new());
    for (((name, _), (is_accepted, status)), response) in sent.iter().zip(expected).zip(responses) {
        let checked = response.and_then(|response| {
            if is_accepted {
                response.check(status, None)?;
                accepted.push((name.clone(), response));
                return Ok(());
            }
            response.check_error(403, "forbidden")?;
            check_no_cors_headers(&response)
        });
        failures.extend(checked.err().map(|why| format!("{name}: {why}")));
    }
    let created = session_count(daemon).await - before;
    let expected = rows.iter().filter(|row| row.is_accepted).count();
    if created != expected {
        failures.push(format!("{created} sessions were created instead of {expected}"));
    }
    assert_no_failures(&failures);
    accepted
}

/// Checks that no header allows a page of another origin to read the response.
pub(super) fn check_no_cors_headers(response: &HttpResponse) -> Result<(), String> {
    match response.headers_with_prefix("access-control-").as_slice() {
        [] => Ok(()),
        headers => Err(format!("{headers:?} in a response with {}", response.status)),
    }
}

pub(super) async fn session_count(daemon: &Daemon) -> usize {
    get(daemon, SESSIONS).await.data(200)["sessions"].as_array().unwrap().len()
}

pub(super) fn port(daemon: &Daemon) -> &str {
    daemon.authority().rsplit(':').next().unwrap()
}

#[tokio::test]
async fn requests_without_origin_and_from_own_page_are_accepted_without_cors_headers() {
    let daemon = start_daemon().await;
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
    for (name, response) in assert_rows(&daemon, &rows).await {
        check_no_cors_headers(&response).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

/// Origins that are not the daemon's own, where the Host is `own` with this port.
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
async fn foreign_origin_is_forbidden() {
    let daemon = start_daemon().await;
    let (own, port) = (daemon.authority(), port(&daemon));
    let mut rows: Vec<Row> = foreign_origins(own, port)
        .iter()
        .map(|origin| Row::new(own, &[format!("Origin: {origin}")], false))
        .collect();
    // A page under another name of the daemon has another origin.
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
    // Other headers do not change that.
    rows.push(Row::new(own, &[evil_line, "Sec-Fetch-Site: same-origin"], false));
    rows.push(Row::new(own, &[evil_line, "Sec-Fetch-Site: none"], false));
    let referer = format!("Referer: http://{own}/");
    rows.push(Row::new(own, &["Origin: null", referer.as_str(), "X-Requested-With: XMLHttpRequest"], false));
    assert_rows(&daemon, &rows).await;
    get(&daemon, STATUS).await.data(200);
}

#[tokio::test]
async fn cross_site_sec_fetch_site_is_forbidden() {
    let daemon = start_daemon().await;
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

#[tokio::test]
async fn get_and_head_requests_change_no_state() {
    let app_server = RecordingAppServer::new();
    let daemon = app_server.builder().arg("--check-interval").arg("3600").start().await;
    wait_until_ready(&daemon).await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "text=done").await;
    wait_until_idle(&daemon, &session_id).await;
    let waiting_session = new_session(&daemon).await;
    start_turn(&daemon, &waiting_session, "ask=command").await;
    let request_id = pending_request(&daemon, &waiting_session).await["requestId"].clone();
    let body = json!({ "sessionId": waiting_session, "input": "text=done", "whenBusy": "queue" });
    let queue_id = post(&daemon, "/v1/codexd/turn", &body).await.data(202)["queueId"].clone();
    let [request_id, queue] = [request_id, queue_id].map(|id| id.as_str().unwrap().to_owned());
    let parameters = PathParameters { session: session_id, turn: turn_id, request: request_id, queue };
    let paths: Vec<String> =
        routes(&daemon, &[]).await.iter().map(|route| parameters.fill(&route.path)).collect();
    assert!(paths.len() > 10, "{paths:?}");

    let own = format!("Host: {}", daemon.authority());
    let mut sent: Vec<NamedRequest> = Vec::new();
    for path in paths.iter().map(String::as_str).chain(["/nothing/here"]) {
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

    let read_state = async || {
        let sessions = get(&daemon, SESSIONS).await.data(200)["sessions"].clone();
        let requests = get(&daemon, "/v1/codexd/requests").await.data(200)["requests"].clone();
        (sessions, requests)
    };
    let methods = || {
        let text = std::fs::read_to_string(app_server.recording()).unwrap();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let calls =
            whole.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["method"].take());
        calls.collect::<Vec<_>>()
    };
    // The recording must contain both turns before they are counted.
    wait_until("the turns in the recording", || (app_server.calls("turn/start").len() == 2).then_some(()))
        .await;
    let (before, log, earlier_methods) = (read_state().await, daemon.events_on_disk(), methods());
    let mut failures = Vec::new();
    for ((name, _), response) in sent.iter().zip(first_responses(&daemon, &sent).await) {
        let checked = response.and_then(|response| match response.status {
            200 | 400 | 404 => Ok(()),
            status => Err(format!("{status}: {:?}", response.body)),
        });
        failures.extend(checked.err().map(|why| format!("{name}: {why}")));
    }
    assert_no_failures(&failures);
    assert_eq!(read_state().await, before);
    assert_eq!(daemon.events_on_disk(), log);
    let reads = [
        "account/rateLimits/read",
        "account/read",
        "account/usage/read",
        "model/list",
        "thread/list",
        "thread/read",
        "thread/turns/list",
    ];
    let new_methods = &methods()[earlier_methods.len()..];
    assert!(new_methods.iter().all(|method| reads.iter().any(|known| method == known)), "{new_methods:?}");
}
