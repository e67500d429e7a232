//! The Host header and the authority of the request line: the daemon accepts its own names only, in any valid spelling.

use super::raw_http::{HANDSHAKE, NamedRequest, assert_no_failures, first_responses, request};
use crate::api::{STATUS, start_daemon};
use crate::support::daemon::Daemon;
use crate::support::http::{Target, get};
use crate::support::websocket::EVENTS_PATH;

/// How the daemon decides about a request.
#[derive(Clone, Copy, Debug)]
enum Verdict {
    Accepted,
    Refused(u16, &'static str),
}

use Verdict::{Accepted, Refused};

const BAD_REQUEST: Verdict = Refused(400, "bad_request");
const FORBIDDEN: Verdict = Refused(403, "forbidden");

/// One spelling: the authority of the request line, which may be empty, the header lines, and the expected verdict.
struct Row {
    authority: String,
    headers: Vec<Vec<u8>>,
    verdict: Verdict,
}

impl Row {
    /// A single Host with this value.
    fn host(value: impl AsRef<[u8]>, verdict: Verdict) -> Self {
        Self::headers(&[&[b"Host: ", value.as_ref()].concat()], verdict)
    }

    fn headers(lines: &[impl AsRef<[u8]>], verdict: Verdict) -> Self {
        let headers = lines.iter().map(|line| line.as_ref().to_vec()).collect();
        Self { authority: String::new(), headers, verdict }
    }

    /// An absolute request line with this scheme and authority, and a Host.
    fn absolute(authority: impl Into<String>, host: &str, verdict: Verdict) -> Self {
        let authority = authority.into();
        Self { authority, ..Self::host(host, verdict) }
    }

    fn name(&self, request_name: &str) -> String {
        let headers: Vec<_> = self.headers.iter().map(|line| String::from_utf8_lossy(line)).collect();
        format!("{request_name}, {:?} {headers:?}", self.authority)
    }

    /// Requests for a known route, an unknown route and a WebSocket, each with its status and code if it is accepted.
    fn requests(&self) -> [(NamedRequest, u16, Option<&'static str>); 4] {
        let row = |request_name: &str, method: &str, path: &str, more: &[&str], status, code| {
            let lines: Vec<&[u8]> = self.headers.iter().map(Vec::as_slice).collect();
            let more: Vec<&[u8]> = more.iter().map(|line| line.as_bytes()).collect();
            let line = format!("{method} {}{path}", self.authority);
            ((self.name(request_name), request(&line, &[lines, more].concat(), "")), status, code)
        };
        [
            row("a known route", "GET", STATUS, &[], 200, None),
            row("an unknown route", "GET", "/nothing/here", &[], 404, Some("not_found")),
            row("another method", "OPTIONS", STATUS, &[], 404, Some("not_found")),
            row("a WebSocket", "GET", EVENTS_PATH, &HANDSHAKE, 101, None),
        ]
    }
}

/// Sends all requests of every row; fails with the list of rows that were not handled as expected.
async fn assert_rows(daemon: &Daemon, rows: &[Row]) {
    let (mut sent, mut expected) = (Vec::new(), Vec::new());
    for row in rows {
        for (request, status, code) in row.requests() {
            expected.push(match row.verdict {
                Accepted => (status, code),
                Refused(status, code) => (status, Some(code)),
            });
            sent.push(request);
        }
    }
    let responses = first_responses(daemon, &sent).await;
    let mut failures = Vec::new();
    for (((name, _), (status, code)), response) in sent.iter().zip(expected).zip(responses) {
        if let Err(why) = response.and_then(|response| response.check(status, code)) {
            failures.push(format!("{name}: {why}"));
        }
    }
    assert_no_failures(&failures);
}

fn port(daemon: &Daemon) -> u16 {
    daemon.authority().rsplit(':').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn host_header_with_own_name_and_port_is_accepted() {
    let daemon = start_daemon().await;
    let port = port(&daemon);
    let hosts = ["127.0.0.1", "localhost", "LOCALHOST", "LocalHost", "[::1]"];
    let mut rows: Vec<Row> = hosts.iter().map(|host| Row::host(format!("{host}:{port}"), Accepted)).collect();
    let own = format!("127.0.0.1:{port}");
    rows.push(Row::headers(&[format!("Host:{own}")], Accepted));
    rows.push(Row::headers(&[format!("hOsT: \t {own} \t ")], Accepted));
    // The headers of proxies are ignored.
    rows.push(Row::headers(
        &[&format!("Host: {own}"), "X-Forwarded-Host: evil.example", "Forwarded: host=evil.example"],
        Accepted,
    ));
    for host in hosts {
        rows.push(Row::absolute(format!("http://{host}:{port}"), &format!("{host}:{port}"), Accepted));
    }
    rows.push(Row::absolute(format!("HTTP://{own}"), &own, Accepted));
    assert_rows(&daemon, &rows).await;
}

#[tokio::test]
async fn missing_empty_or_repeated_host_header_is_a_bad_request() {
    let daemon = start_daemon().await;
    let own = daemon.authority();
    let own = format!("Host: {own}");
    let evil = "Host: evil.example";
    let tables: [&[&str]; 11] = [
        &[],
        &["Host:"],
        &["Host: \t "],
        &["X-Forwarded-Host: 127.0.0.1"],
        &[&own, &own],
        &[&own, evil],
        &[evil, &own],
        &[evil, evil],
        &[&own, "Host:"],
        &["Host:", &own],
        &[&own, "Accept: */*", "hOST: localhost"],
    ];
    let mut rows: Vec<Row> = tables.iter().map(|lines| Row::headers(lines, BAD_REQUEST)).collect();
    // The authority of the request line does not replace it.
    for lines in [&[][..], &["Host:"], &[&own, &own]] {
        let authority = format!("http://{}", daemon.authority());
        rows.push(Row { authority, ..Row::headers(lines, BAD_REQUEST) });
    }
    assert_rows(&daemon, &rows).await;
}

#[tokio::test]
async fn host_header_with_foreign_name_or_port_is_forbidden() {
    let daemon = start_daemon().await;
    let port = port(&daemon);
    let other = if port == 65_535 { port - 1 } else { port + 1 };
    let with_port = [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1.nip.io",
        "evil-localhost",
        "localhost.localdomain",
        "localhost.",
        "127.0.0.1.",
        "127.0.0.2",
        "127.1",
        "127.0.1",
        "0.0.0.0",
        "0",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.01",
        "127.000.000.001",
        "[::]",
        "::1",
        "[::1",
        "[::1%25lo]",
        "[::1%lo]",
        "[::01]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[127.0.0.1]",
        "[localhost]",
        "user@127.0.0.1",
        "user:secret@127.0.0.1",
        "127.0.0.1@evil.example",
        "%31%32%37.0.0.1",
        "local%68ost",
        "127。0。0。1",
        "１２７.0.0.1",
        "ｌocalhost",
        "http://127.0.0.1",
        "//127.0.0.1",
        "\"127.0.0.1",
        "*",
        "",
    ];
    let mut rows: Vec<Row> =
        with_port.iter().map(|host| Row::host(format!("{host}:{port}"), FORBIDDEN)).collect();
    let own = format!("127.0.0.1:{port}");
    let whole = [
        "127.0.0.1".to_owned(),
        "localhost".to_owned(),
        "[::1]".to_owned(),
        "evil.example".to_owned(),
        "null".to_owned(),
        "127.0.0.1:".to_owned(),
        "127.0.0.1:80".to_owned(),
        "127.0.0.1:443".to_owned(),
        "localhost:80".to_owned(),
        format!("127.0.0.1:{other}"),
        format!("localhost:{other}"),
        format!("[::1]:{other}"),
        format!("127.0.0.1:0{port}"),
        format!("127.0.0.1:+{port}"),
        format!("127.0.0.1:{}", u32::from(port) + 65_536),
        format!("127.0.0.1:{port}0"),
        format!("[::1]{port}"),
        format!("{own}:{port}"),
        format!("{own}."),
        format!("{own}/"),
        format!("{own}/path"),
        format!("{own}?query"),
        format!("{own}#fragment"),
        format!("{own}@evil.example"),
        format!("{own},"),
        format!("{own},evil.example"),
        format!("{own}, {own}"),
        format!("evil.example, {own}"),
        format!("{own};evil.example"),
        format!("{own} evil.example"),
        format!("127.0.0.1 :{port}"),
        format!("127.0.0.1: {port}"),
        format!("{}{own}", "a".repeat(4000)),
    ];
    rows.extend(whole.iter().map(|host| Row::host(host, FORBIDDEN)));
    rows.push(Row::host([own.as_bytes(), b"\xff"].concat(), FORBIDDEN));
    rows.push(Row::host([b"\xfe\xff", own.as_bytes()].concat(), FORBIDDEN));
    rows.push(Row::headers(&["Host: evil.example", &format!("X-Forwarded-Host: {own}")], FORBIDDEN));
    for authority in ["http://evil.example", &format!("http://evil.example:{port}"), "http://127.0.0.1:1"] {
        rows.push(Row::absolute(authority, &own, FORBIDDEN));
    }
    rows.push(Row::absolute(format!("http://{own}"), "evil.example", FORBIDDEN));
    rows.push(Row::absolute(format!("http://{own}"), &format!("evil.example:{port}"), FORBIDDEN));
    assert_rows(&daemon, &rows).await;
    // The refused requests have no effect on later ones.
    get(&daemon, STATUS).await.data(200);
}

#[tokio::test]
async fn absolute_request_target_of_another_server_is_refused() {
    let daemon = start_daemon().await;
    let own = daemon.authority().to_owned();
    let mut sent = Vec::new();
    for line in [
        format!("GET https://{own}{STATUS}"),
        format!("GET ws://{own}{STATUS}"),
        format!("GET ftp://{own}{STATUS}"),
        format!("GET http://user@{own}{STATUS}"),
        format!("GET http://user:secret@{own}{STATUS}"),
        format!("GET http://{own}@evil.example{STATUS}"),
        format!("GET http://{STATUS}"),
        format!("GET http:{STATUS}"),
        format!("GET {own}{STATUS}"),
        format!("GET //evil.example{STATUS}"),
        format!("GET {}", STATUS.trim_start_matches('/')),
        format!("CONNECT {own}"),
        "CONNECT evil.example:443".to_owned(),
        "GET *".to_owned(),
        "OPTIONS *".to_owned(),
    ] {
        let bytes = request(&line, &[format!("Host: {own}")], "");
        sent.push((line, bytes));
    }
    let responses = first_responses(&daemon, &sent).await;
    let mut failures = Vec::new();
    for ((name, _), response) in sent.iter().zip(responses) {
        let is_refused = response.and_then(|response| match response.status {
            400 => response.check_unparsed(400).or(response.check_error(400, "bad_request")),
            403 => response.check_error(403, "forbidden"),
            _ => response.check_error(404, "not_found"),
        });
        if let Err(why) = is_refused {
            failures.push(format!("{name}: {why}"));
        }
    }
    assert_no_failures(&failures);
}
