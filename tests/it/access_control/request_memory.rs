//! What requests that are too much cost the daemon in memory, which Linux tells.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::raw_http::{WireAnswer, assert_all_good, first_answer};
use super::request_size_limits::{
    BODY, Row, TOO_LARGE, TOO_LONG, WRONG, declared, in_chunks, padded, posted, row,
};
use crate::api::{TURN, ready, session, start};
use crate::support::daemon::Daemon;
use crate::support::http::{Target, post};
use crate::support::skip::runs_long;
use crate::support::websocket::EventStream;

/// How long a message over a WebSocket may be.
const MESSAGE: usize = 1024 * 1024;
const TOO_BIG: u16 = 1009;
/// How much more memory all of this together may cost.
const MEMORY: u64 = 64 * 1024 * 1024;

/// The most memory that the daemon had since the last look, and what it has now, in bytes.
fn memory(daemon: &Daemon) -> (u64, u64) {
    let of_process = |name: &str| format!("/proc/{}/{name}", daemon.pid());
    let status = std::fs::read_to_string(of_process("status")).unwrap();
    let bytes = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    };
    // From now on the most is counted anew.
    std::fs::write(of_process("clear_refs"), "5").unwrap();
    (bytes("VmHWM:"), bytes("VmRSS:"))
}

/// What costs a careless server the most memory: each with what becomes of it.
fn monsters(own: &str) -> Vec<Row> {
    let array = |item: &str| format!("{{\"a\":[{}1]}}", item.repeat((BODY - 16) / item.len()));
    let keys: String = (0..1_000_000).map(|number| format!("\"{number:07}\":0,")).collect();
    let over = vec![b' '; BODY + 1];
    let lists = [
        ("an array of numbers", array("1,")),
        ("an array of arrays", array("[],")),
        ("an array of texts", array("\"\",")),
        ("an array of objects", array("{},")),
        ("an array of small objects", array("{\"a\":1},")),
        ("many keys", format!("{{{keys}\"last\":0}}")),
        ("one text", padded(BODY)),
        ("white space", " ".repeat(BODY)),
        ("an array that is the body", format!("[{}1]", "1,".repeat(BODY / 2 - 8))),
        ("brackets", "[".repeat(BODY)),
    ];
    let mut rows = vec![
        row("a gibibyte declared", declared(own, 1 << 30, ""), TOO_LONG),
        row("a byte over the limit in chunks", in_chunks(own, &over, 64 * 1024, false), TOO_LONG),
        row("a byte over the limit in small chunks", in_chunks(own, &over, 1024, false), TOO_LONG),
        row("a head without end", vec![b'a'; BODY], TOO_LARGE),
        row("headers without end", "X: a\r\n".repeat(BODY / 6).into_bytes(), TOO_LARGE),
    ];
    for (name, body) in lists {
        let is_in_order = body.starts_with('{') || body.starts_with(' ');
        let wanted = if is_in_order { (0, None) } else { WRONG };
        rows.push(row(name, posted(own, &body), wanted));
    }
    rows
}

#[tokio::test]
async fn nothing_that_is_too_much_costs_memory() {
    if !runs_long() {
        return;
    }
    let daemon = start().await;
    ready(&daemon).await;
    let session_id = session(&daemon).await;
    let own = daemon.authority();
    let (_, at_first) = memory(&daemon);
    let (mut before, mut most) = (at_first, 0);
    let mut failures = Vec::new();
    let mut cost = |name: &str, answer: Result<(), String>| {
        let (peak, now) = memory(&daemon);
        if peak.saturating_sub(before) > MEMORY {
            failures.push(format!("{name}: {} MiB more", (peak - before) >> 20));
        }
        (before, most) = (now, most.max(peak));
        failures.extend(answer.err().map(|why| format!("{name}: {why}")));
    };
    for ((name, bytes), (status, code)) in monsters(own) {
        let answer = first_answer(own, &bytes).await;
        // What is in order may be taken or refused; it is the memory that counts.
        let is = |answer: WireAnswer| match (status, answer.status) {
            (0, 201 | 400 | 413) => Ok(()),
            _ => answer.is(status, code),
        };
        cost(&name, answer.and_then(is));
    }
    for bytes in [MESSAGE + 1, 4 * MESSAGE, 64 * MESSAGE] {
        let mut events = EventStream::connect(&daemon).await;
        events.hello().await;
        events.send(Message::text("x".repeat(bytes))).await;
        let code = events.close_code().await;
        let is_too_big = (code == TOO_BIG).then_some(()).ok_or_else(|| format!("closed with {code}"));
        cost(&format!("a message of {bytes} bytes"), is_too_big);
    }
    // What the allocator keeps of one request is there beside the next one.
    if most - at_first > MEMORY + MEMORY / 2 {
        failures.push(format!("all together: {} MiB more", (most - at_first) >> 20));
    }
    assert_all_good(&failures);
    let turn = post(&daemon, TURN, &json!({ "sessionId": session_id, "input": "hello" })).await;
    assert_eq!(turn.status, 202, "{}", turn.text);
}
