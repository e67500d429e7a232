//! What is too long, too deep or too much.

use serde_json::Value;

use super::raw_http::{Sent, all_answers, assert_all_good, first_answer, first_answers, request};
use crate::api::{SESSIONS, STATUS, ready, start};
use crate::support::daemon::Daemon;
use crate::support::http::{Target, get};

/// How long the head of a request may be, with the empty line at its end.
const HEAD: usize = 16 * 1024;
/// How many headers a request may have.
const HEADERS: usize = 100;
/// How long a body may be when nothing else is said.
pub(super) const BODY: usize = 16 * 1024 * 1024;
/// How deep JSON may be.
const DEPTH: usize = 127;

pub(super) const TOO_LARGE: (u16, Option<&str>) = (431, Some("headers_too_large"));
pub(super) const TOO_LONG: (u16, Option<&str>) = (413, Some("payload_too_large"));
pub(super) const WRONG: (u16, Option<&str>) = (400, Some("bad_request"));

/// A row: what is sent under its name, and the status and code of the answer.
pub(super) type Row = (Sent, (u16, Option<&'static str>));

pub(super) fn row(name: impl Into<String>, bytes: Vec<u8>, wanted: (u16, Option<&'static str>)) -> Row {
    ((name.into(), bytes), wanted)
}

async fn assert_rows(daemon: &Daemon, rows: Vec<Row>) {
    let (sent, wanted): (Vec<Sent>, Vec<_>) = rows.into_iter().unzip();
    let answers = first_answers(daemon, &sent).await;
    let checked = sent.iter().zip(wanted).zip(answers).map(|(((name, _), (status, code)), answer)| {
        answer.and_then(|answer| answer.is(status, code)).map_err(|why| format!("{name}: {why}"))
    });
    assert_all_good(&checked.filter_map(Result::err).collect::<Vec<_>>());
}

/// A head of exactly this length, with so many headers, and with the padding in the path or in its last header.
fn head(own: &str, length: usize, headers: usize, is_in_path: bool) -> Vec<u8> {
    let mut lines = vec![format!("Host: {own}")];
    lines.extend((2..headers).map(|number| format!("X-{number}: a")));
    lines.push("X-Last: ".to_owned());
    let bare = request("GET /healthz?", &lines, "").len();
    let padding = "a".repeat(length - bare);
    if is_in_path {
        return request(&format!("GET /healthz?{padding}"), &lines, "");
    }
    lines.last_mut().unwrap().push_str(&padding);
    request("GET /healthz?", &lines, "")
}

#[tokio::test]
async fn a_head_may_have_sixteen_kibibytes_and_a_hundred_headers_and_no_more() {
    let daemon = start().await;
    let own = daemon.authority();
    let mut rows = Vec::new();
    for is_in_path in [true, false] {
        let place = if is_in_path { "path" } else { "header" };
        for (length, wanted) in [
            (HEAD - 1, (200, None)),
            (HEAD, (200, None)),
            (HEAD + 1, TOO_LARGE),
            (HEAD + 2, TOO_LARGE),
            (4 * HEAD, TOO_LARGE),
            (64 * HEAD, TOO_LARGE),
        ] {
            rows.push(row(
                format!("{length} bytes in the {place}"),
                head(own, length, 2, is_in_path),
                wanted,
            ));
        }
    }
    for (headers, wanted) in
        [(HEADERS - 1, (200, None)), (HEADERS, (200, None)), (HEADERS + 1, TOO_LARGE), (1000, TOO_LARGE)]
    {
        rows.push(row(format!("{headers} headers"), head(own, HEAD, headers, false), wanted));
    }
    for (name, bytes) in [
        ("a request line without end", "a".repeat(HEAD + 1)),
        ("a path without end", format!("GET /{}", "a".repeat(HEAD))),
        ("a version without end", format!("GET / HTTP/{}", "1".repeat(HEAD))),
        ("a name without end", format!("GET / HTTP/1.1\r\nHost: {own}\r\n{}", "a".repeat(HEAD))),
        ("a value without end", format!("GET / HTTP/1.1\r\nHost: {own}\r\nX: {}", "a".repeat(HEAD))),
        ("headers without end", format!("GET / HTTP/1.1\r\nHost: {own}\r\n{}", "X: a\r\n".repeat(HEAD))),
        ("a megabyte of one letter", "G".repeat(1 << 20)),
    ] {
        rows.push(row(name, bytes.into_bytes(), TOO_LARGE));
    }
    assert_rows(&daemon, rows).await;
    get(&daemon, STATUS).await.data(200);
}

/// A request with this body in chunks of this size, without an end when it is told so.
pub(super) fn in_chunks(own: &str, body: &[u8], size: usize, has_end: bool) -> Vec<u8> {
    let mut bytes =
        format!("POST {SESSIONS} HTTP/1.1\r\nHost: {own}\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
    for chunk in body.chunks(size) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    if has_end {
        bytes.extend_from_slice(b"0\r\n\r\n");
    }
    bytes
}

/// A request that says how long its body will be, without one byte of it.
pub(super) fn declared(own: &str, length: impl std::fmt::Display, more: &str) -> Vec<u8> {
    format!("POST {SESSIONS} HTTP/1.1\r\nHost: {own}\r\nContent-Length: {length}\r\n{more}\r\n").into_bytes()
}

/// An object that takes exactly so many bytes.
pub(super) fn padded(bytes: usize) -> String {
    let frame = r#"{"ignored":""}"#.len();
    format!("{{\"ignored\":\"{}\"}}", "x".repeat(bytes - frame))
}

pub(super) fn posted(own: &str, body: &str) -> Vec<u8> {
    request(&format!("POST {SESSIONS}"), &[format!("Host: {own}")], body)
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let limit = 2000;
    let daemon = Daemon::builder().arg("--body-limit").arg(limit.to_string()).start().await;
    ready(&daemon).await;
    let own = daemon.authority();
    let mut rows = vec![
        row("the whole of the limit", posted(own, &padded(limit)), (201, None)),
        row(
            "the whole of the limit in chunks",
            in_chunks(own, padded(limit).as_bytes(), 7, true),
            (201, None),
        ),
        row("one byte more", posted(own, &padded(limit + 1)), TOO_LONG),
        row("one byte more in chunks", in_chunks(own, padded(limit + 1).as_bytes(), 7, true), TOO_LONG),
        row("one byte more and no end", in_chunks(own, padded(limit + 1).as_bytes(), 100, false), TOO_LONG),
        row("a long chunk that never ends", in_chunks(own, &[b' '; 4000], 4000, false), TOO_LONG),
        row("a mebibyte", posted(own, &padded(1 << 20)), TOO_LONG),
    ];
    for length in [limit + 1, BODY, 1 << 30, 1 << 50] {
        rows.push(row(format!("{length} bytes that never come"), declared(own, length, ""), TOO_LONG));
        let expects = declared(own, length, "Expect: 100-continue\r\n");
        rows.push(row(format!("{length} bytes that are asked for first"), expects, TOO_LONG));
    }
    assert_rows(&daemon, rows).await;

    // What stands where the body should have been is no request, and the connection ends.
    let hidden = format!("GET {STATUS} HTTP/1.1\r\nHost: {own}\r\n\r\n").into_bytes();
    let sent: Vec<Sent> = [limit + 1, 1 << 30]
        .map(|length| (length.to_string(), [declared(own, length, ""), hidden.repeat(3)].concat()))
        .into();
    for ((name, _), answers) in sent.iter().zip(all_answers(&daemon, &sent).await) {
        let answers = answers.unwrap_or_else(|why| panic!("{name}: {why}"));
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [413], "{name}");
        assert_eq!(answers[0].headers("connection"), ["close"], "{name}");
    }
}

#[tokio::test]
async fn a_number_that_no_length_can_be_is_refused() {
    let daemon = start().await;
    let own = daemon.authority();
    for length in
        ["18446744073709551615", "18446744073709551616", "99999999999999999999999999", &"9".repeat(1000)]
    {
        let answer = first_answer(own, &declared(own, length, "")).await.unwrap();
        let is_refused = answer.refuses(400, "bad_request").or(answer.refuses(413, "payload_too_large"));
        is_refused.unwrap_or_else(|why| panic!("{length}: {why}"));
    }
}

fn nested(depth: usize, open: &str, close: &str) -> String {
    format!("{{\"a\":{}1{}}}", open.repeat(depth - 1), close.repeat(depth - 1))
}

#[tokio::test]
async fn json_may_be_127_deep_and_not_more() {
    let daemon = start().await;
    let own = daemon.authority();
    let mut rows = Vec::new();
    for (depth, wanted) in
        [(100, (201, None)), (DEPTH, (201, None)), (DEPTH + 1, WRONG), (1000, WRONG), (100_000, WRONG)]
    {
        for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":[", "]}]")] {
            let depth = if open.len() > 5 { (depth + 1) / 3 + 1 } else { depth };
            rows.push(row(format!("{open} {depth} deep"), posted(own, &nested(depth, open, close)), wanted));
        }
        rows.push(row(format!("{depth} that never end"), posted(own, &"[".repeat(depth)), WRONG));
        rows.push(row(
            format!("{depth} objects that never end"),
            posted(own, &"{\"a\":".repeat(depth)),
            WRONG,
        ));
    }
    assert_rows(&daemon, rows).await;
}

#[tokio::test]
async fn a_body_that_is_no_text_is_refused() {
    let daemon = start().await;
    let own = daemon.authority();
    let mut rows = Vec::new();
    for bytes in [
        &b"{\"a\":\"\xff\"}"[..],
        b"{\"a\xfe\":1}",
        b"{\"a\":\"\xc0\xaf\"}",
        b"{\"a\":\"\xed\xa0\x80\"}",
        b"{\"a\":\"\xf4\x90\x80\x80\"}",
        b"{\"a\":\"\xe2\x82\"}",
        b"{\"a\":\"\x80\"}",
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf{",
        b"{\"a\":\"\x00\"}",
        b"{}\x00",
        b"{\"a\":\"\\ud800\"}",
        b"\x1f\x8b\x08\x00",
    ] {
        let mut whole = declared(own, bytes.len(), "");
        whole.extend_from_slice(bytes);
        rows.push(row(String::from_utf8_lossy(bytes), whole, WRONG));
    }
    assert_rows(&daemon, rows).await;
}

#[tokio::test]
async fn of_two_fields_of_one_name_the_last_one_counts() {
    let daemon = start().await;
    let own = daemon.authority();
    for (body, purpose) in [
        (r#"{"purpose":"worker","purpose":"duplex"}"#, "duplex"),
        (r#"{"purpose":"duplex","purpose":"worker"}"#, "worker"),
        (r#"{"purpose":"nonsense","\u0070urpose":"worker"}"#, "worker"),
    ] {
        let answer = first_answer(own, &posted(own, body)).await.unwrap();
        answer.is(201, None).unwrap_or_else(|why| panic!("{body}: {why}"));
        let answer: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(answer["data"]["session"]["purpose"], purpose, "{body}");
    }
}
