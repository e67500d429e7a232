//! The memory that oversized requests and messages cost the daemon, read from `/proc`.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::raw_http::{HttpResponse, assert_no_failures, first_response};
use super::request_size_limits::{
    BAD_REQUEST, HEADERS_TOO_LARGE, MAX_BODY_BYTES, PAYLOAD_TOO_LARGE, Row, body_of_length, chunked_request,
    post_request, row, with_content_length,
};
use crate::api::{TURN, new_session, start_daemon, wait_until_ready};
use crate::support::daemon::Daemon;
use crate::support::http::{Target, post};
use crate::support::skip::runs_long;
use crate::support::websocket::EventStream;

/// The size limit of a WebSocket message.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
const CLOSE_TOO_BIG: u16 = 1009;
/// The memory growth that one request may cause.
const MAX_GROWTH_BYTES: u64 = 64 * 1024 * 1024;

/// The peak memory of the daemon since the last call and its present memory, in bytes.
fn memory(daemon: &Daemon) -> (u64, u64) {
    let of_process = |name: &str| format!("/proc/{}/{name}", daemon.pid());
    let status = std::fs::read_to_string(of_process("status")).unwrap();
    let bytes = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    };
    // This resets the peak.
    std::fs::write(of_process("clear_refs"), "5").unwrap();
    (bytes("VmHWM:"), bytes("VmRSS:"))
}

/// The requests that could cost a server the most memory, each with the expected status and code.
fn large_requests(authority: &str) -> Vec<Row> {
    let array = |item: &str| format!("{{\"a\":[{}1]}}", item.repeat((MAX_BODY_BYTES - 16) / item.len()));
    let keys: String = (0..1_000_000).map(|number| format!("\"{number:07}\":0,")).collect();
    let over = vec![b' '; MAX_BODY_BYTES + 1];
    let headers_without_end = format!("GET / HTTP/1.1\r\n{}", "X: a\r\n".repeat(MAX_BODY_BYTES / 6));
    let lists = [
        ("an array of numbers", array("1,")),
        ("an array of arrays", array("[],")),
        ("an array of texts", array("\"\",")),
        ("an array of objects", array("{},")),
        ("an array of small objects", array("{\"a\":1},")),
        ("many keys", format!("{{{keys}\"last\":0}}")),
        ("one text", body_of_length(MAX_BODY_BYTES)),
        ("white space", " ".repeat(MAX_BODY_BYTES)),
        ("an array that is the body", format!("[{}1]", "1,".repeat(MAX_BODY_BYTES / 2 - 8))),
        ("brackets", "[".repeat(MAX_BODY_BYTES)),
    ];
    let mut rows = vec![
        row("a content length of a gibibyte", with_content_length(authority, 1 << 30, ""), PAYLOAD_TOO_LARGE),
        row(
            "a byte over the limit in chunks",
            chunked_request(authority, &over, 64 * 1024, false),
            PAYLOAD_TOO_LARGE,
        ),
        row(
            "a byte over the limit in small chunks",
            chunked_request(authority, &over, 1024, false),
            PAYLOAD_TOO_LARGE,
        ),
        row("a head without end", vec![b'a'; MAX_BODY_BYTES], HEADERS_TOO_LARGE),
        row("headers without end", headers_without_end.into_bytes(), HEADERS_TOO_LARGE),
    ];
    for (name, body) in lists {
        let is_valid = body.starts_with('{') || body.starts_with(' ');
        let expected = if is_valid { (0, None) } else { BAD_REQUEST };
        rows.push(row(name, post_request(authority, &body), expected));
    }
    rows
}

#[tokio::test]
async fn oversized_requests_and_messages_grow_memory_by_at_most_64_mib() {
    if !runs_long() {
        return;
    }
    let daemon = start_daemon().await;
    wait_until_ready(&daemon).await;
    let session_id = new_session(&daemon).await;
    let authority = daemon.authority();
    let (_, initial) = memory(&daemon);
    let (mut before, mut highest) = (initial, 0);
    let mut failures = Vec::new();
    let mut check_growth = |name: &str, response: Result<(), String>| {
        let (peak, now) = memory(&daemon);
        if peak.saturating_sub(before) > MAX_GROWTH_BYTES {
            failures.push(format!("{name}: {} MiB more", (peak - before) >> 20));
        }
        (before, highest) = (now, highest.max(peak));
        failures.extend(response.err().map(|why| format!("{name}: {why}")));
    };
    for ((name, bytes), (status, code)) in large_requests(authority) {
        let response = first_response(authority, &bytes).await;
        // A valid body may be accepted or refused; this test is about the memory.
        let check = |response: HttpResponse| match (status, response.status) {
            (0, 201 | 400 | 413) => Ok(()),
            _ => response.check(status, code),
        };
        check_growth(&name, response.and_then(check));
    }
    for bytes in [MAX_MESSAGE_BYTES + 1, 4 * MAX_MESSAGE_BYTES, 64 * MAX_MESSAGE_BYTES] {
        let mut events = EventStream::connect(&daemon).await;
        events.hello().await;
        events.send(Message::text("x".repeat(bytes))).await;
        let code = events.close_code().await;
        let checked = (code == CLOSE_TOO_BIG).then_some(()).ok_or_else(|| format!("closed with {code}"));
        check_growth(&format!("a message of {bytes} bytes"), checked);
    }
    // The memory that the allocator keeps of one request adds to that of the next one.
    if highest - initial > MAX_GROWTH_BYTES + MAX_GROWTH_BYTES / 2 {
        failures.push(format!("all together: {} MiB more", (highest - initial) >> 20));
    }
    assert_no_failures(&failures);
    let turn = post(&daemon, TURN, &json!({ "sessionId": session_id, "input": "hello" })).await;
    assert_eq!(turn.status, 202, "{}", turn.text);
}
