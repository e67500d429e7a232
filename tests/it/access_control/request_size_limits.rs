//! The limits of request heads, bodies and the depth of JSON, and bodies that are no valid JSON.

use serde_json::Value;

use super::raw_http::{
    NamedRequest, all_responses, assert_no_failures, first_response, first_responses, request,
};
use crate::api::{SESSIONS, STATUS, start_daemon, wait_until_ready};
use crate::support::daemon::Daemon;
use crate::support::http::{Target, get};

/// The size limit of a request head, with the empty line at its end.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// The limit of the number of headers.
const MAX_HEADERS: usize = 100;
/// The default size limit of a body.
pub(super) const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
/// The limit of the depth of JSON.
const MAX_JSON_DEPTH: usize = 127;

/// The response of the HTTP parser, which has no body.
pub(super) const HEADERS_TOO_LARGE: (u16, Option<&str>) = (431, None);
pub(super) const PAYLOAD_TOO_LARGE: (u16, Option<&str>) = (413, Some("payload_too_large"));
pub(super) const BAD_REQUEST: (u16, Option<&str>) = (400, Some("bad_request"));

/// A named request with the expected status and code of its response.
pub(super) type Row = (NamedRequest, (u16, Option<&'static str>));

pub(super) fn row(name: impl Into<String>, bytes: Vec<u8>, expected: (u16, Option<&'static str>)) -> Row {
    ((name.into(), bytes), expected)
}

async fn assert_rows(daemon: &Daemon, rows: Vec<Row>) {
    let (sent, expected): (Vec<NamedRequest>, Vec<_>) = rows.into_iter().unzip();
    let responses = first_responses(daemon, &sent).await;
    let checked = sent.iter().zip(expected).zip(responses).map(|(((name, _), (status, code)), response)| {
        response.and_then(|response| response.check(status, code)).map_err(|why| format!("{name}: {why}"))
    });
    assert_no_failures(&checked.filter_map(Result::err).collect::<Vec<_>>());
}

/// A head of exactly this length with this number of headers; the padding is in the path or in the last header.
fn head(authority: &str, length: usize, headers: usize, is_in_path: bool) -> Vec<u8> {
    let mut lines = vec![format!("Host: {authority}")];
    lines.extend((2..headers).map(|number| format!("X-{number}: a")));
    lines.push("X-Last: ".to_owned());
    let unpadded = request("GET /healthz?", &lines, "").len();
    let padding = "a".repeat(length - unpadded);
    if is_in_path {
        return request(&format!("GET /healthz?{padding}"), &lines, "");
    }
    lines.last_mut().unwrap().push_str(&padding);
    request("GET /healthz?", &lines, "")
}

#[tokio::test]
async fn request_head_is_limited_to_16_kib_and_100_headers() {
    let daemon = start_daemon().await;
    let authority = daemon.authority();
    let mut rows = Vec::new();
    for is_in_path in [true, false] {
        let location = if is_in_path { "path" } else { "header" };
        for (length, expected) in [
            (MAX_HEAD_BYTES - 1, (200, None)),
            (MAX_HEAD_BYTES, (200, None)),
            (MAX_HEAD_BYTES + 1, HEADERS_TOO_LARGE),
            (MAX_HEAD_BYTES + 2, HEADERS_TOO_LARGE),
            (4 * MAX_HEAD_BYTES, HEADERS_TOO_LARGE),
            (64 * MAX_HEAD_BYTES, HEADERS_TOO_LARGE),
        ] {
            rows.push(row(
                format!("{length} bytes in the {location}"),
                head(authority, length, 2, is_in_path),
                expected,
            ));
        }
    }
    for (headers, expected) in [
        (MAX_HEADERS - 1, (200, None)),
        (MAX_HEADERS, (200, None)),
        (MAX_HEADERS + 1, HEADERS_TOO_LARGE),
        (1000, HEADERS_TOO_LARGE),
    ] {
        rows.push(row(
            format!("{headers} headers"),
            head(authority, MAX_HEAD_BYTES, headers, false),
            expected,
        ));
    }
    for (name, bytes) in [
        ("a request line without end", "a".repeat(MAX_HEAD_BYTES + 1)),
        ("a path without end", format!("GET /{}", "a".repeat(MAX_HEAD_BYTES))),
        (
            "a name without end",
            format!("GET / HTTP/1.1\r\nHost: {authority}\r\n{}", "a".repeat(MAX_HEAD_BYTES)),
        ),
        (
            "a value without end",
            format!("GET / HTTP/1.1\r\nHost: {authority}\r\nX: {}", "a".repeat(MAX_HEAD_BYTES)),
        ),
        (
            "headers without end",
            format!("GET / HTTP/1.1\r\nHost: {authority}\r\n{}", "X: a\r\n".repeat(MAX_HEAD_BYTES)),
        ),
        ("a megabyte of one letter", "G".repeat(1 << 20)),
    ] {
        rows.push(row(name, bytes.into_bytes(), HEADERS_TOO_LARGE));
    }
    assert_rows(&daemon, rows).await;
    get(&daemon, STATUS).await.data(200);
}

/// A request with this body in chunks of this size; `has_end` adds the last chunk.
pub(super) fn chunked_request(authority: &str, body: &[u8], size: usize, has_end: bool) -> Vec<u8> {
    let mut bytes =
        format!("POST {SESSIONS} HTTP/1.1\r\nHost: {authority}\r\nTransfer-Encoding: chunked\r\n\r\n")
            .into_bytes();
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

/// A request head with this content length, without a body.
pub(super) fn with_content_length(authority: &str, length: impl std::fmt::Display, more: &str) -> Vec<u8> {
    format!("POST {SESSIONS} HTTP/1.1\r\nHost: {authority}\r\nContent-Length: {length}\r\n{more}\r\n")
        .into_bytes()
}

/// A JSON object of exactly this number of bytes.
pub(super) fn body_of_length(bytes: usize) -> String {
    let frame = r#"{"ignored":""}"#.len();
    format!("{{\"ignored\":\"{}\"}}", "x".repeat(bytes - frame))
}

pub(super) fn post_request(authority: &str, body: &str) -> Vec<u8> {
    request(&format!("POST {SESSIONS}"), &[format!("Host: {authority}")], body)
}

#[tokio::test]
async fn body_limit_refuses_larger_bodies_before_reading_them() {
    let limit = 2000;
    let daemon = Daemon::builder().arg("--body-limit").arg(limit.to_string()).start().await;
    wait_until_ready(&daemon).await;
    let authority = daemon.authority();
    let mut rows = vec![
        row("a body of the limit", post_request(authority, &body_of_length(limit)), (201, None)),
        row(
            "a body of the limit in chunks",
            chunked_request(authority, body_of_length(limit).as_bytes(), 7, true),
            (201, None),
        ),
        row("one byte more", post_request(authority, &body_of_length(limit + 1)), PAYLOAD_TOO_LARGE),
        row(
            "one byte more in chunks",
            chunked_request(authority, body_of_length(limit + 1).as_bytes(), 7, true),
            PAYLOAD_TOO_LARGE,
        ),
        row(
            "one byte more and no end",
            chunked_request(authority, body_of_length(limit + 1).as_bytes(), 100, false),
            PAYLOAD_TOO_LARGE,
        ),
        row(
            "a long chunk that never ends",
            chunked_request(authority, &[b' '; 4000], 4000, false),
            PAYLOAD_TOO_LARGE,
        ),
        row("a mebibyte", post_request(authority, &body_of_length(1 << 20)), PAYLOAD_TOO_LARGE),
    ];
    for length in [limit + 1, MAX_BODY_BYTES, 1 << 30, 1 << 50] {
        rows.push(row(
            format!("{length} bytes that are not sent"),
            with_content_length(authority, length, ""),
            PAYLOAD_TOO_LARGE,
        ));
        let expects = with_content_length(authority, length, "Expect: 100-continue\r\n");
        rows.push(row(format!("{length} bytes with Expect"), expects, PAYLOAD_TOO_LARGE));
    }
    assert_rows(&daemon, rows).await;

    // Bytes in the position of the body are not parsed as requests, and the connection is closed.
    let hidden = format!("GET {STATUS} HTTP/1.1\r\nHost: {authority}\r\n\r\n").into_bytes();
    let sent: Vec<NamedRequest> = [limit + 1, 1 << 30]
        .map(|length| {
            (length.to_string(), [with_content_length(authority, length, ""), hidden.repeat(3)].concat())
        })
        .into();
    for ((name, _), responses) in sent.iter().zip(all_responses(&daemon, &sent).await) {
        let responses = responses.unwrap_or_else(|why| panic!("{name}: {why}"));
        let statuses: Vec<_> = responses.iter().map(|response| response.status).collect();
        assert_eq!(statuses, [413], "{name}");
        assert_eq!(responses[0].headers("connection"), ["close"], "{name}");
    }
}

#[tokio::test]
async fn content_length_beyond_64_bits_is_refused() {
    let daemon = start_daemon().await;
    let authority = daemon.authority();
    for length in
        ["18446744073709551615", "18446744073709551616", "99999999999999999999999999", &"9".repeat(1000)]
    {
        let response = first_response(authority, &with_content_length(authority, length, "")).await.unwrap();
        let checked = response
            .check_unparsed(400)
            .or(response.check_unparsed(431))
            .or(response.check_error(413, "payload_too_large"));
        checked.unwrap_or_else(|why| panic!("{length}: {why}"));
    }
}

fn nested(depth: usize, open: &str, close: &str) -> String {
    format!("{{\"a\":{}1{}}}", open.repeat(depth - 1), close.repeat(depth - 1))
}

#[tokio::test]
async fn json_depth_is_limited_to_127() {
    let daemon = start_daemon().await;
    let authority = daemon.authority();
    let mut rows = Vec::new();
    for (depth, expected) in [
        (100, (201, None)),
        (MAX_JSON_DEPTH, (201, None)),
        (MAX_JSON_DEPTH + 1, BAD_REQUEST),
        (1000, BAD_REQUEST),
        (100_000, BAD_REQUEST),
    ] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":[", "]}]")] {
            let depth = if open.len() > 5 { (depth + 1) / 3 + 1 } else { depth };
            rows.push(row(
                format!("{open} {depth} deep"),
                post_request(authority, &nested(depth, open, close)),
                expected,
            ));
        }
        rows.push(row(
            format!("{depth} unclosed arrays"),
            post_request(authority, &"[".repeat(depth)),
            BAD_REQUEST,
        ));
        rows.push(row(
            format!("{depth} unclosed objects"),
            post_request(authority, &"{\"a\":".repeat(depth)),
            BAD_REQUEST,
        ));
    }
    assert_rows(&daemon, rows).await;
}

#[tokio::test]
async fn body_with_invalid_utf8_or_control_characters_is_a_bad_request() {
    let daemon = start_daemon().await;
    let authority = daemon.authority();
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
        let mut whole = with_content_length(authority, bytes.len(), "");
        whole.extend_from_slice(bytes);
        rows.push(row(String::from_utf8_lossy(bytes), whole, BAD_REQUEST));
    }
    assert_rows(&daemon, rows).await;
}

#[tokio::test]
async fn last_of_duplicate_json_fields_is_used() {
    let daemon = start_daemon().await;
    let authority = daemon.authority();
    for (body, purpose) in [
        (r#"{"purpose":"worker","purpose":"duplex"}"#, "duplex"),
        (r#"{"purpose":"duplex","purpose":"worker"}"#, "worker"),
        (r#"{"purpose":"nonsense","\u0070urpose":"worker"}"#, "worker"),
    ] {
        let response = first_response(authority, &post_request(authority, body)).await.unwrap();
        response.check(201, None).unwrap_or_else(|why| panic!("{body}: {why}"));
        let response: Value = serde_json::from_str(&response.body).unwrap();
        assert_eq!(response["data"]["session"]["purpose"], purpose, "{body}");
    }
}
