//! Who is meant: the header Host and the authority of the request line, in every spelling.

use super::raw_http::{HANDSHAKE, Sent, assert_all_good, first_answers, request};
use crate::api::{STATUS, start};
use crate::support::daemon::Daemon;
use crate::support::http::{Target, get};
use crate::support::websocket::EVENTS_PATH;

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
enum Verdict {
    LetIn,
    Refused(u16, &'static str),
}

use Verdict::{LetIn, Refused};

const WRONG: Verdict = Refused(400, "bad_request");
const FOREIGN: Verdict = Refused(403, "forbidden");

/// One spelling: the authority of the request line, if it has one, the header lines, and what becomes of it.
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

    fn name(&self, question: &str) -> String {
        let headers: Vec<_> = self.headers.iter().map(|line| String::from_utf8_lossy(line)).collect();
        format!("{question}, {:?} {headers:?}", self.authority)
    }

    /// A route that there is, one that there is not, and a WebSocket, with what each is answered once it is let in.
    fn questions(&self) -> [(Sent, u16, Option<&'static str>); 4] {
        let ask = |question: &str, method: &str, path: &str, more: &[&str], status, code| {
            let lines: Vec<&[u8]> = self.headers.iter().map(Vec::as_slice).collect();
            let more: Vec<&[u8]> = more.iter().map(|line| line.as_bytes()).collect();
            let line = format!("{method} {}{path}", self.authority);
            ((self.name(question), request(&line, &[lines, more].concat(), "")), status, code)
        };
        [
            ask("a route", "GET", STATUS, &[], 200, None),
            ask("no route", "GET", "/nothing/here", &[], 404, Some("not_found")),
            ask("another method", "OPTIONS", STATUS, &[], 404, Some("not_found")),
            ask("a WebSocket", "GET", EVENTS_PATH, &HANDSHAKE, 101, None),
        ]
    }
}

/// Asks everything of every row, and says which rows went otherwise than they should.
async fn assert_rows(daemon: &Daemon, rows: &[Row]) {
    let (mut sent, mut wanted) = (Vec::new(), Vec::new());
    for row in rows {
        for (asked, status, code) in row.questions() {
            wanted.push(match row.verdict {
                LetIn => (status, code),
                Refused(status, code) => (status, Some(code)),
            });
            sent.push(asked);
        }
    }
    let answers = first_answers(daemon, &sent).await;
    let mut failures = Vec::new();
    for (((name, _), (status, code)), answer) in sent.iter().zip(wanted).zip(answers) {
        if let Err(why) = answer.and_then(|answer| answer.is(status, code)) {
            failures.push(format!("{name}: {why}"));
        }
    }
    assert_all_good(&failures);
}

fn port(daemon: &Daemon) -> u16 {
    daemon.authority().rsplit(':').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_host_that_is_ours_is_let_in() {
    let daemon = start().await;
    let port = port(&daemon);
    let hosts = ["127.0.0.1", "localhost", "LOCALHOST", "LocalHost", "[::1]"];
    let mut rows: Vec<Row> = hosts.iter().map(|host| Row::host(format!("{host}:{port}"), LetIn)).collect();
    let own = format!("127.0.0.1:{port}");
    rows.push(Row::headers(&[format!("Host:{own}")], LetIn));
    rows.push(Row::headers(&[format!("hOsT: \t {own} \t ")], LetIn));
    // What proxies add is no word about who is meant.
    rows.push(Row::headers(
        &[&format!("Host: {own}"), "X-Forwarded-Host: evil.example", "Forwarded: host=evil.example"],
        LetIn,
    ));
    for host in hosts {
        rows.push(Row::absolute(format!("http://{host}:{port}"), &format!("{host}:{port}"), LetIn));
    }
    rows.push(Row::absolute(format!("HTTP://{own}"), &own, LetIn));
    assert_rows(&daemon, &rows).await;
}

#[tokio::test]
async fn a_host_that_is_not_there_once_is_wrong() {
    let daemon = start().await;
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
    let mut rows: Vec<Row> = tables.iter().map(|lines| Row::headers(lines, WRONG)).collect();
    // Nor does the request line stand in for it.
    for lines in [&[][..], &["Host:"], &[&own, &own]] {
        let authority = format!("http://{}", daemon.authority());
        rows.push(Row { authority, ..Row::headers(lines, WRONG) });
    }
    assert_rows(&daemon, &rows).await;
}

#[tokio::test]
async fn a_host_that_is_somebody_else_is_refused() {
    let daemon = start().await;
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
        with_port.iter().map(|host| Row::host(format!("{host}:{port}"), FOREIGN)).collect();
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
    rows.extend(whole.iter().map(|host| Row::host(host, FOREIGN)));
    rows.push(Row::host([own.as_bytes(), b"\xff"].concat(), FOREIGN));
    rows.push(Row::host([b"\xfe\xff", own.as_bytes()].concat(), FOREIGN));
    rows.push(Row::headers(&["Host: evil.example", &format!("X-Forwarded-Host: {own}")], FOREIGN));
    for authority in ["http://evil.example", &format!("http://evil.example:{port}"), "http://127.0.0.1:1"] {
        rows.push(Row::absolute(authority, &own, FOREIGN));
    }
    rows.push(Row::absolute(format!("http://{own}"), "evil.example", FOREIGN));
    rows.push(Row::absolute(format!("http://{own}"), &format!("evil.example:{port}"), FOREIGN));
    assert_rows(&daemon, &rows).await;
    // Whoever was refused harms nobody.
    get(&daemon, STATUS).await.data(200);
}

#[tokio::test]
async fn an_absolute_request_line_that_is_not_ours_is_refused_one_way_or_the_other() {
    let daemon = start().await;
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
    let answers = first_answers(&daemon, &sent).await;
    let mut failures = Vec::new();
    for ((name, _), answer) in sent.iter().zip(answers) {
        let is_refused = answer.and_then(|answer| {
            let code = match answer.status {
                400 => "bad_request",
                403 => "forbidden",
                _ => "not_found",
            };
            answer.refuses(answer.status, code)
        });
        if let Err(why) = is_refused {
            failures.push(format!("{name}: {why}"));
        }
    }
    assert_all_good(&failures);
}
