//! Cursors whose events the log does not have: the error in each form of the stream, and how a client continues.

use std::fs;

use serde_json::{Value, json};

use super::{connect, cursor, epoch, events_path, page, refused_event_source, seq};
use crate::api::{keys, new_session, start_daemon, start_turn, wait_until_idle};
use crate::support::daemon::Daemon;
use crate::support::http::get;
use crate::support::websocket::EventStream;

const CLOSE_BAD_QUERY: u16 = 4400;
const CLOSE_CURSOR_GONE: u16 = 4410;

/// Asserts that all three forms of the stream refuse this cursor with this reason.
async fn assert_gone(daemon: &Daemon, after: &str, reason: &str) {
    let query = format!("after={after}");
    for response in [
        get(daemon, &events_path(&query)).await,
        refused_event_source(daemon, &query, None).await,
        // The Last-Event-ID header overrides the cursor in the URL, which is that of the first connection.
        refused_event_source(daemon, "after=0", Some(after)).await,
    ] {
        let message = response.error(410, "cursor_gone");
        let details = &response.json["details"];
        assert_eq!(keys(details), ["reason", "epoch", "oldest", "latest", "cursor"]);
        assert_eq!(details["reason"], reason, "{after}");
        assert!(message.contains(details["cursor"].as_str().unwrap()), "{message}");
    }
    let (mut stream, hello) = connect(daemon, &query).await;
    let gap = stream.next_message().await;
    assert_eq!((&gap["type"], &gap["reason"]), (&json!("gap"), &json!(reason)), "{gap}");
    assert_eq!(gap["epoch"], epoch(&cursor(&hello)));
    assert!(gap["oldest"].is_u64() && gap["latest"].is_u64() && gap["message"].is_string(), "{gap}");
    assert_eq!(stream.close_code().await, CLOSE_CURSOR_GONE);

    // With `onGap=resync`, a gap message and a hello message replace the missing events, and the stream continues.
    let (mut stream, _) = connect(daemon, &format!("{query}&onGap=resync")).await;
    let gap = stream.next_message().await;
    assert_eq!((&gap["type"], &gap["reason"]), (&json!("gap"), &json!(reason)));
    let hello = stream.hello().await;
    let session_id = new_session(daemon).await;
    let created = |event: &Value| event["detail"]["sessionId"] == session_id;
    let later_events = stream.collect_until("the new session", created).await;
    assert_eq!(
        seq(&later_events[0]),
        super::cursor_seq(&cursor(&hello)) + 1,
        "events are missing after the hello message"
    );
    // The cursor in the gap message is valid.
    let offered = gap["cursor"].as_str().unwrap();
    assert!(!page(daemon, &format!("after={offered}")).await["events"].as_array().unwrap().is_empty());
}

fn remove_log(daemon: &Daemon) {
    for entry in fs::read_dir(daemon.logs_dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            fs::remove_file(path).unwrap();
        }
    }
}

#[tokio::test]
async fn cursor_ahead_of_the_log_is_refused() {
    let daemon = start_daemon().await;
    new_session(&daemon).await;
    let (_stream, hello) = connect(&daemon, "").await;
    let epoch = epoch(&cursor(&hello)).to_owned();
    assert_gone(&daemon, "1000000", "future").await;
    assert_gone(&daemon, &format!("{epoch}-18446744073709551615"), "future").await;
    assert_gone(&daemon, "otherepoch-1", "epoch").await;
}

#[tokio::test]
async fn cursor_of_a_lost_log_is_refused() {
    let mut before = start_daemon().await;
    let session_id = new_session(&before).await;
    let (_stream, hello) = connect(&before, "").await;
    let old = cursor(&hello);
    before.stop().await;
    let last = before.events_on_disk().last().map(seq).unwrap();
    remove_log(&before);

    let after = Daemon::builder().state_from(&before).start().await;
    let (_stream, hello) = connect(&after, "").await;
    assert_ne!(epoch(&cursor(&hello)), epoch(&old));
    assert_gone(&after, &old, "epoch").await;
    // The records on disk remain, and no sequence number is used twice.
    let oldest = page(&after, "limit=1").await;
    assert_eq!(oldest["oldest"], last + 1);
    assert_eq!(get(&after, &format!("{}/{session_id}", crate::api::SESSIONS)).await.status, 200);
    // A sequence number without an epoch refers to the present log.
    assert_gone(&after, "1", "expired").await;
}

#[tokio::test]
async fn cursor_is_refused_after_loss_of_the_epoch_file() {
    let mut before = start_daemon().await;
    let (_stream, hello) = connect(&before, "").await;
    before.stop().await;
    fs::remove_file(before.logs_dir().join("event-log.json")).unwrap();
    let after = Daemon::builder().state_from(&before).start().await;
    assert_gone(&after, &cursor(&hello), "epoch").await;
    // The events are still readable.
    let first = page(&after, "limit=1").await;
    assert_eq!(first["events"][0]["type"], "daemon.started");
    assert_eq!(first["oldest"], 1);
}

#[tokio::test]
async fn cursor_of_removed_segments_is_refused() {
    let daemon = Daemon::builder()
        .arg("--event-segment-bytes")
        .arg("20000")
        .arg("--event-log-bytes")
        .arg("100000")
        .start()
        .await;
    let session_id = new_session(&daemon).await;
    let (_stream, hello) = connect(&daemon, "").await;
    start_turn(&daemon, &session_id, "deltas=1000").await;
    wait_until_idle(&daemon, &session_id).await;
    let first = page(&daemon, "limit=1").await;
    let oldest = first["oldest"].as_u64().unwrap();
    assert!(oldest > super::cursor_seq(&cursor(&hello)) + 2, "{oldest}");
    assert_eq!(
        first["events"][0]["seq"], oldest,
        "a page without a cursor does not start at the oldest event"
    );
    assert_gone(&daemon, "0", "expired").await;
    assert_gone(&daemon, &cursor(&hello), "expired").await;
    let oldest = page(&daemon, "limit=1").await["oldest"].as_u64().unwrap();
    assert_gone(&daemon, &(oldest - 2).to_string(), "expired").await;
    let oldest = page(&daemon, "limit=1").await["oldest"].as_u64().unwrap();
    let (mut stream, _) = connect(&daemon, &format!("after={}", oldest - 1)).await;
    assert_eq!(seq(&stream.next_event().await), oldest, "the oldest valid cursor is refused");
}

#[tokio::test]
async fn invalid_query_is_refused_by_websocket_and_event_source() {
    let daemon = start_daemon().await;
    for query in ["after=x", "limit=0", "onGap=explode"] {
        let mut stream = EventStream::connect_to(&daemon, &events_path(query), &[]).await;
        let (events, code) = stream.rest().await;
        assert_eq!((events, code), (Vec::<Value>::new(), CLOSE_BAD_QUERY), "{query}");
        refused_event_source(&daemon, query, None).await.error(400, "bad_request");
    }
    refused_event_source(&daemon, "", Some("invalid cursor")).await.error(400, "bad_request");
}
