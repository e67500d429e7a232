//! Requests that two HTTP parsers could frame differently, each followed by hidden requests.
//!
//! A refused request closes its connection, so that the bytes after it are never parsed as a request. What hyper accepts
//! has one end, which nginx and HAProxy find too (`docs/proxies.md`).

use serde_json::json;

use super::raw_http::{HttpResponse, NamedRequest, all_responses, assert_no_failures};
use crate::api::{SESSIONS, STATUS, start_daemon, wait_until_ready};
use crate::sessions::RecordingAppServer;
use crate::support::http::{Target, get};

/// The name and the text of a request, in which `OWN` is replaced by the Host of the daemon.
type Row = (String, String);

/// Requests with these framing headers and this body, named after their headers.
fn framed(headers: &[impl AsRef<str>], body: &str) -> Vec<Row> {
    let request = |lines: &str| format!("POST {SESSIONS} HTTP/1.1\r\nHost: OWN\r\n{lines}\r\n\r\n{body}");
    headers.iter().map(|lines| (format!("{:?}", lines.as_ref()), request(lines.as_ref()))).collect()
}

/// Requests with these names and texts.
fn whole(rows: &[(&str, &str)]) -> Vec<Row> {
    rows.iter().map(|(name, bytes)| ((*name).to_owned(), (*bytes).to_owned())).collect()
}

/// The requests that follow an ambiguous one: one creates a session, one reads the status.
fn hidden() -> String {
    let create = format!("POST {SESSIONS} HTTP/1.1\r\nHost: OWN\r\nContent-Length: 2\r\n\r\n{{}}");
    format!("{create}GET {STATUS} HTTP/1.1\r\nHost: OWN\r\n\r\n")
}

/// Asserts that each row gets exactly one response, which passes this check, and that the hidden requests had no effect.
async fn assert_one_response(rows: Vec<Row>, check: impl Fn(&HttpResponse) -> Result<(), String>) {
    let app_server = RecordingAppServer::new();
    let daemon = app_server.builder().start().await;
    wait_until_ready(&daemon).await;
    let bytes = |row: String| format!("{row}{}", hidden()).replace("OWN", daemon.authority()).into_bytes();
    let sent: Vec<NamedRequest> = rows.into_iter().map(|(name, row)| (name, bytes(row))).collect();
    let mut failures = Vec::new();
    let mut created = 0;
    for ((name, _), responses) in sent.iter().zip(all_responses(&daemon, &sent).await) {
        let checked = responses.and_then(|responses| match responses.as_slice() {
            [response] => check(response).map(|()| created += usize::from(response.status == 201)),
            other => Err(format!("{:?}", other.iter().map(|response| response.status).collect::<Vec<_>>())),
        });
        failures.extend(checked.err().map(|why| format!("{name}: {why}")));
    }
    assert_no_failures(&failures);
    assert_eq!(get(&daemon, SESSIONS).await.data(200)["sessions"].as_array().unwrap().len(), created);
    assert_eq!(app_server.calls("thread/start").len(), created);
}

/// Asserts that the HTTP parser refuses each row.
async fn assert_unparsed(rows: Vec<Row>) {
    assert_one_response(rows, |response| response.check_unparsed(400)).await;
}

/// Asserts that each row gets these statuses; a last request that closes the connection follows each row.
async fn assert_answered(rows: &[(&str, String, &[u16])]) {
    let daemon = start_daemon().await;
    let last = "GET /nothing/here HTTP/1.1\r\nHost: OWN\r\nConnection: close\r\n\r\n";
    let bytes = |row: &str| format!("{row}{last}").replace("OWN", daemon.authority()).into_bytes();
    let sent: Vec<NamedRequest> =
        rows.iter().map(|(name, row, _)| ((*name).to_owned(), bytes(row))).collect();
    let mut failures = Vec::new();
    for ((name, _, statuses), responses) in rows.iter().zip(all_responses(&daemon, &sent).await) {
        let found =
            responses.map(|responses| responses.iter().map(|response| response.status).collect::<Vec<_>>());
        let expected = [statuses, &[404][..]].concat();
        if found.as_ref() != Ok(&expected) {
            failures.push(format!("{name}: {found:?} instead of {expected:?}"));
        }
    }
    assert_no_failures(&failures);
}

#[tokio::test]
async fn conflicting_content_length_or_transfer_encoding_is_refused() {
    let with_length = framed(
        &[
            "Content-Length: 2\r\nContent-Length: 4",
            "Content-Length: 4\r\nContent-Length: 2",
            "Content-Length: 0\r\nContent-Length: 2",
            "Content-Length:\r\nContent-Length: 2",
            "Content-Length: 2\r\nContent-Length:",
            "Content-Length: 2, 2",
            "Content-Length: 2,2",
            "Content-Length: 2, 4",
        ],
        "{}",
    );
    let with_chunks = framed(
        &[
            "Content-Length: 5\r\nTransfer-Encoding: identity",
            "Transfer-Encoding: xchunked\r\nContent-Length: 5",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding:",
        ],
        "0\r\n\r\n",
    );
    assert_unparsed([with_length, with_chunks].concat()).await;
}

#[tokio::test]
async fn connection_closes_after_transfer_encoding_beside_content_length() {
    let rows = framed(
        &[
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Content-Length: 0\r\nTransfer-Encoding: chunked",
            "Content-Length: 5\r\nAccept: */*\r\nTransfer-Encoding: chunked",
            "content-LENGTH: 5\r\ntransfer-ENCODING: chunked",
            "Content-Length: 5\r\nTransfer-Encoding: gzip, chunked",
        ],
        "0\r\n\r\n",
    );
    assert_one_response(rows, |response| response.check(201, None)).await;
}

#[tokio::test]
async fn content_length_with_other_characters_than_digits_is_refused() {
    let lengths = [
        "+2", "-2", "-0", "--2", "+ 2", "0x2", "0b10", "2.0", "2e0", "2 2", "2;", "2,", ",2", "2 ,", "\"2\"",
        "two", "", "2h", "#2", "2'", "½", "２", "NaN", "Infinity", "2\u{b}", "2\u{0}",
    ];
    let lines = lengths.map(|length| format!("Content-Length: {length}"));
    assert_unparsed(framed(&lines, "{}")).await;
}

#[tokio::test]
async fn transfer_encoding_that_does_not_end_with_chunked_is_refused() {
    let encodings = [
        "gzip",
        "deflate",
        "identity",
        "",
        "chunked, gzip",
        "chunked, identity",
        "xchunked",
        "chunkedx",
        "chunke",
        "chunked;q=1",
        "chunked ; x",
        "\"chunked\"",
        "chunked,",
        "chun ked",
        "x chunked",
        "chunked\u{b}",
        "\u{c}chunked",
        "chunĸed",
    ];
    let lines = encodings.map(|encoding| format!("Transfer-Encoding: {encoding}"));
    let mut rows = framed(&lines, "2\r\n{}\r\n0\r\n\r\n");
    let head = format!("POST {SESSIONS} HTTP/1.0\r\nHost: OWN\r\nConnection: keep-alive\r\n");
    rows.push(("in HTTP/1.0".to_owned(), format!("{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")));
    assert_unparsed(rows).await;
}

#[tokio::test]
async fn malformed_request_head_is_refused() {
    let rows = whole(&[
        ("a carriage return alone before it", "\rGET /healthz HTTP/1.1\r\nHost: OWN\r\n\r\n"),
        ("a line feed in a value", "GET /healthz HTTP/1.1\r\nHost: OWN\r\nX: a\nb\r\n\r\n"),
        ("a carriage return alone after the request line", "GET /healthz HTTP/1.1\rHost: OWN\r\n\r\n"),
        ("a carriage return alone in a value", "GET /healthz HTTP/1.1\r\nHost: OWN\r\nX: a\rb\r\n\r\n"),
        ("a carriage return alone after a header", "GET /healthz HTTP/1.1\r\nHost: OWN\rAccept: */*\r\n\r\n"),
        ("two carriage returns", "GET /healthz HTTP/1.1\r\nHost: OWN\r\r\n\r\n"),
        ("a carriage return alone in the path", "GET /heal\rthz HTTP/1.1\r\nHost: OWN\r\n\r\n"),
        ("a folded line", "GET /healthz HTTP/1.1\r\nHost: OWN\r\nX: a\r\n b\r\n\r\n"),
        ("a folded line with a tab", "GET /healthz HTTP/1.1\r\nHost: OWN\r\nX: a\r\n\tb\r\n\r\n"),
        ("a folded Host", "GET /healthz HTTP/1.1\r\nHost:\r\n OWN\r\n\r\n"),
        ("a folded encoding", "GET /healthz HTTP/1.1\r\nHost: OWN\r\nTransfer-Encoding:\r\n chunked\r\n\r\n"),
        ("a folded line of white space", "GET /healthz HTTP/1.1\r\nHost: OWN\r\nX: a\r\n \r\n\r\n"),
        ("white space before the first header", "GET /healthz HTTP/1.1\r\n Host: OWN\r\n\r\n"),
        ("a line of white space first", "GET /healthz HTTP/1.1\r\n \r\nHost: OWN\r\n\r\n"),
        ("a space before the colon", "GET /healthz HTTP/1.1\r\nHost : OWN\r\n\r\n"),
        ("a tab before the colon", "GET /healthz HTTP/1.1\r\nHost: OWN\r\nX\t: a\r\n\r\n"),
        (
            "a space before the colon of a length",
            "GET /healthz HTTP/1.1\r\nHost: OWN\r\nContent-Length : 4\r\n\r\n",
        ),
        ("a space in a name", "GET /healthz HTTP/1.1\r\nHost: OWN\r\nX Y: a\r\n\r\n"),
        ("no colon", "GET /healthz HTTP/1.1\r\nHost: OWN\r\nnonsense\r\n\r\n"),
        ("no name", "GET /healthz HTTP/1.1\r\nHost: OWN\r\n: a\r\n\r\n"),
        ("a bracket in a name", "GET /healthz HTTP/1.1\r\nHost: OWN\r\nX[]: a\r\n\r\n"),
        ("a name that is not ASCII", "GET /healthz HTTP/1.1\r\nHost: OWN\r\nHöst: a\r\n\r\n"),
        ("a NUL in the path", "GET /heal\0thz HTTP/1.1\r\nHost: OWN\r\n\r\n"),
        ("a NUL in a name", "GET /healthz HTTP/1.1\r\nHost: OWN\r\nX\0: a\r\n\r\n"),
        ("a NUL in a value", "GET /healthz HTTP/1.1\r\nHost: OWN\r\nX: a\0b\r\n\r\n"),
        (
            "a NUL before the colon",
            "GET /healthz HTTP/1.1\r\nHost: OWN\r\nTransfer-Encoding\0: chunked\r\n\r\n",
        ),
        ("a bell in a value", "GET /healthz HTTP/1.1\r\nHost: OWN\r\nX: a\u{7}b\r\n\r\n"),
        ("an escape in a value", "GET /healthz HTTP/1.1\r\nHost: OWN\r\nX: \u{1b}[31m\r\n\r\n"),
        ("a delete in a value", "GET /healthz HTTP/1.1\r\nHost: OWN\r\nX: a\u{7f}\r\n\r\n"),
        ("a vertical tab before a value", "GET /healthz HTTP/1.1\r\nHost: OWN\r\nX:\u{b}a\r\n\r\n"),
        ("a control character in the path", "GET /healthz\u{1} HTTP/1.1\r\nHost: OWN\r\n\r\n"),
        ("a control character in the method", "G\u{1}ET /healthz HTTP/1.1\r\nHost: OWN\r\n\r\n"),
    ]);
    assert_unparsed(rows).await;
}

#[tokio::test]
async fn malformed_request_line_and_other_protocols_are_refused() {
    let rows = whole(&[
        ("HTTP/0.9", "GET /healthz\r\n\r\n"),
        ("HTTP/0.9 with a version", "GET /healthz HTTP/0.9\r\nHost: OWN\r\n\r\n"),
        ("HTTP/1.2", "GET /healthz HTTP/1.2\r\nHost: OWN\r\n\r\n"),
        ("HTTP/1.10", "GET /healthz HTTP/1.10\r\nHost: OWN\r\n\r\n"),
        ("HTTP/1", "GET /healthz HTTP/1\r\nHost: OWN\r\n\r\n"),
        ("HTTP/01.1", "GET /healthz HTTP/01.1\r\nHost: OWN\r\n\r\n"),
        ("HTTP/2", "GET /healthz HTTP/2\r\nHost: OWN\r\n\r\n"),
        ("HTTP/2.0", "GET /healthz HTTP/2.0\r\nHost: OWN\r\n\r\n"),
        ("HTTP/3.0", "GET /healthz HTTP/3.0\r\nHost: OWN\r\n\r\n"),
        ("HTTP/9.9", "GET /healthz HTTP/9.9\r\nHost: OWN\r\n\r\n"),
        ("small letters", "GET /healthz http/1.1\r\nHost: OWN\r\n\r\n"),
        ("another name", "GET /healthz RTSP/1.0\r\nHost: OWN\r\n\r\n"),
        ("a space without a version", "GET /healthz \r\nHost: OWN\r\n\r\n"),
        ("two versions", "GET /healthz HTTP/1.1 HTTP/1.1\r\nHost: OWN\r\n\r\n"),
        ("a path with a space", "GET /heal thz HTTP/1.1\r\nHost: OWN\r\n\r\n"),
        ("two spaces before the path", "GET  /healthz HTTP/1.1\r\nHost: OWN\r\n\r\n"),
        ("two spaces after the path", "GET /healthz  HTTP/1.1\r\nHost: OWN\r\n\r\n"),
        ("tabs", "GET\t/healthz\tHTTP/1.1\r\nHost: OWN\r\n\r\n"),
        ("a space at the end", "GET /healthz HTTP/1.1 \r\nHost: OWN\r\n\r\n"),
        ("a space at the beginning", " GET /healthz HTTP/1.1\r\nHost: OWN\r\n\r\n"),
        ("no path", "GET HTTP/1.1\r\nHost: OWN\r\n\r\n"),
        ("no method", "/healthz HTTP/1.1\r\nHost: OWN\r\n\r\n"),
        ("an invalid method", "G(E)T /healthz HTTP/1.1\r\nHost: OWN\r\n\r\n"),
        ("nothing", "\u{0}\r\n\r\n"),
        ("a single word", "nonsense\r\n\r\n"),
        ("JSON", "{\"type\": \"ping\"}\r\n\r\n"),
        ("a TLS handshake", "\u{16}\u{3}\u{1}\0\u{5}\u{1}\0\0\u{1}\u{3}\r\n\r\n"),
        ("a response", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_unparsed(rows).await;
}

#[tokio::test]
async fn malformed_chunked_body_is_refused() {
    let bodies = [
        ("a negative size", "-2\r\n{}\r\n0\r\n\r\n"),
        ("a size with a sign", "+2\r\n{}\r\n0\r\n\r\n"),
        ("a size with a prefix", "0x2\r\n{}\r\n0\r\n\r\n"),
        ("a size of 17 digits", "10000000000000002\r\n{}\r\n0\r\n\r\n"),
        ("a size of 17 digits without end", "fffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
        ("a size that is no number", "g\r\n{}\r\n0\r\n\r\n"),
        ("no size", "\r\n{}\r\n0\r\n\r\n"),
        ("an extension without a size", ";a\r\n{}\r\n0\r\n\r\n"),
        ("two sizes", "2 2\r\n{}\r\n0\r\n\r\n"),
        ("a size and a comma", "2,\r\n{}\r\n0\r\n\r\n"),
        ("a size in quotes", "\"2\"\r\n{}\r\n0\r\n\r\n"),
        ("a size ended by a line feed alone", "2\n{}\r\n0\r\n\r\n"),
        ("a size ended by a carriage return alone", "2\r{}\r\n0\r\n\r\n"),
        ("an extension with a line feed alone", "2;a\n{}\r\n0\r\n\r\n"),
        ("an extension that hides a line", "2;a\nx\r\n{}\r\n0\r\n\r\n"),
        ("no line end after the data", "2\r\n{}0\r\n\r\n"),
        ("data ended by a line feed alone", "2\r\n{}\n0\r\n\r\n"),
        ("data ended by a carriage return alone", "2\r\n{}\r0\r\n\r\n"),
        ("more data than the size", "2\r\n{} \r\n0\r\n\r\n"),
        ("less data than the size", "3\r\n{}\r\n0\r\n\r\n"),
        ("no number at all", "{}"),
    ];
    let head = format!("POST {SESSIONS} HTTP/1.1\r\nHost: OWN\r\nTransfer-Encoding: chunked\r\n\r\n");
    let rows = bodies.map(|(name, body)| (name.to_owned(), format!("{head}{body}"))).to_vec();
    assert_one_response(rows, |response| response.check_error(400, "bad_request")).await;
}

#[tokio::test]
async fn unambiguous_pipelined_requests_are_answered_in_order() {
    let post =
        |lines: &str, body: &str| format!("POST {SESSIONS} HTTP/1.1\r\nHost: OWN\r\n{lines}\r\n\r\n{body}");
    let read = "GET /healthz HTTP/1.1\r\nHost: OWN\r\n\r\n";
    let hiding = "GET /healthz HTTP/1.1\r\nHost: OWN\r\nContent-Length: 42\r\n\r\nGET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    let chunked = "Transfer-Encoding: chunked";
    let rows: &[(&str, String, &[u16])] = &[
        ("an empty line before it", format!("\r\n{read}"), &[200]),
        ("an empty line without a carriage return before it", format!("\n{read}"), &[200]),
        ("line feeds alone", read.replace('\r', "").repeat(2), &[200, 200]),
        ("a line feed alone after the request line", read.replacen('\r', "", 1), &[200]),
        ("a line feed alone at the end", format!("{}\n", read.strip_suffix("\r\n").unwrap()), &[200]),
        (
            "an encoding behind a line feed alone",
            post("X: a\nTransfer-Encoding: chunked", "2\r\n{}\r\n0\r\n\r\n"),
            &[201],
        ),
        ("two equal lengths", post("Content-Length: 2\r\nContent-Length: 2", "{}"), &[201]),
        (
            "chunked twice",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
            &[201],
        ),
        ("chunked twice in a list", post("Transfer-Encoding: chunked, chunked", "0\r\n\r\n"), &[201]),
        (
            "another encoding before chunked",
            post("Transfer-Encoding: identity, chunked", "0\r\n\r\n"),
            &[201],
        ),
        ("white space after a size", post(chunked, "2 \r\n{}\r\n0\r\n\r\n"), &[201]),
        ("empty lines before each", format!("\r\n\r\n{read}\r\n{read}"), &[200, 200]),
        ("two requests at once", read.repeat(2), &[200, 200]),
        ("five requests at once", read.repeat(5), &[200; 5]),
        (
            "one that creates and one that reads",
            format!("{}{read}", post("Content-Length: 2", "{}")),
            &[201, 200],
        ),
        (
            "one that is wrong and one that reads",
            format!("{}{read}", post("Content-Length: 2", "[]")),
            &[400, 200],
        ),
        (
            "one in chunks and one that reads",
            format!("{}{read}", post(chunked, "2\r\n{}\r\n0\r\n\r\n")),
            &[201, 200],
        ),
        ("white space around a length", post("Content-Length: \t 2 \t", "{}"), &[201]),
        ("a length with zeros before it", post("Content-Length: 0002", "{}"), &[201]),
        ("a length of zero", post("Content-Length: 0", ""), &[201]),
        ("no length", post("Accept: */*", ""), &[201]),
        ("white space around chunked", post("Transfer-Encoding: \t chunked \t", "0\r\n\r\n"), &[201]),
        ("chunks", post(chunked, "1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"), &[201]),
        ("a size with zeros before it", post(chunked, "0002\r\n{}\r\n000\r\n\r\n"), &[201]),
        ("a size in capitals", post(chunked, &format!("A\r\n{{{}}}\r\n0\r\n\r\n", " ".repeat(8))), &[201]),
        ("extensions of chunks", post(chunked, "2;a;b=c;d=\"e\"\r\n{}\r\n0;last\r\n\r\n"), &[201]),
        ("trailers", post(chunked, "2\r\n{}\r\n0\r\nX: a\r\nHost: evil.example\r\n\r\n"), &[201]),
        ("a length in the trailers", post(chunked, "2\r\n{}\r\n0\r\nContent-Length: 99\r\n\r\n"), &[201]),
        ("tabs and bytes above ASCII in a value", post("X: a\tb\u{e9}", ""), &[201]),
        ("an empty value", post("X:", ""), &[201]),
        (
            "an upgrade to another protocol",
            post(
                "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
                "",
            ),
            &[201],
        ),
        ("a body of a GET", hiding.to_owned(), &[200]),
    ];
    assert_answered(rows).await;
}

#[tokio::test]
async fn unread_body_is_not_parsed_as_requests() {
    let daemon = start_daemon().await;
    let own = daemon.authority();
    let hidden = hidden().replace("OWN", own);
    let last = format!("GET /nothing/here HTTP/1.1\r\nHost: {own}\r\nConnection: close\r\n\r\n");
    let mut sent: Vec<NamedRequest> = Vec::new();
    for times in [1, 10, 2000] {
        let body = hidden.repeat(times);
        let length = format!("Content-Length: {}\r\n\r\n{body}", body.len());
        let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        for framed in [length, chunked] {
            for (kind, lines) in [
                ("an unknown route", format!("POST /nothing/here HTTP/1.1\r\nHost: {own}\r\n")),
                ("another Host", format!("POST {SESSIONS} HTTP/1.1\r\nHost: evil.example\r\n")),
                ("a foreign page", format!("POST {SESSIONS} HTTP/1.1\r\nHost: {own}\r\nOrigin: null\r\n")),
                ("a GET", format!("GET {STATUS} HTTP/1.1\r\nHost: {own}\r\n")),
                ("a HEAD of an unknown route", format!("HEAD /nothing/here HTTP/1.1\r\nHost: {own}\r\n")),
            ] {
                sent.push((format!("{kind}, {times} hidden"), format!("{lines}{framed}{last}").into_bytes()));
            }
        }
    }
    let mut failures = Vec::new();
    for ((name, _), responses) in sent.iter().zip(all_responses(&daemon, &sent).await) {
        let statuses =
            responses.map(|responses| responses.iter().map(|response| response.status).collect::<Vec<_>>());
        // The connection may be closed after the first response; the body must not be parsed as requests.
        match statuses.as_deref() {
            Ok([_] | [_, 404]) => {}
            other => failures.push(format!("{name}: {other:?}")),
        }
    }
    assert_no_failures(&failures);
    assert_eq!(get(&daemon, SESSIONS).await.data(200)["sessions"], json!([]));
}

#[tokio::test]
async fn http_1_0_request_is_answered_once_and_closes_the_connection() {
    let daemon = start_daemon().await;
    let own = daemon.authority();
    let bytes = format!("GET /healthz HTTP/1.0\r\nHost: {own}\r\n\r\n{}", hidden().replace("OWN", own));
    let sent = [("HTTP/1.0".to_owned(), bytes.into_bytes())];
    let responses = all_responses(&daemon, &sent).await.remove(0).unwrap();
    assert_eq!(responses.iter().map(|response| response.status).collect::<Vec<_>>(), [200]);
    assert_eq!(get(&daemon, SESSIONS).await.data(200)["sessions"], json!([]));
}
