//! Cursors that lead nowhere: what is said, in each form, and how a client goes on.

use std::fs;

use serde_json::{Value, json};

use super::{connect, cursor, epoch, events_path, page, refused_source, seq};
use crate::api::{idle, keys, session, start, turn};
use crate::support::daemon::Daemon;
use crate::support::http::get;
use crate::support::websocket::EventStream;

const BAD_QUERY: u16 = 4400;
const CURSOR_GONE: u16 = 4410;

/// Asserts that this cursor is refused for this reason in all three forms.
async fn assert_gone(daemon: &Daemon, after: &str, reason: &str) {
    let query = format!("after={after}");
    for answer in [
        get(daemon, &events_path(&query)).await,
        refused_source(daemon, &query, None).await,
        // The header says more than the address, which is that of the first connection.
        refused_source(daemon, "after=0", Some(after)).await,
    ] {
        let message = answer.error(410, "cursor_gone");
        let details = &answer.json["details"];
        assert_eq!(keys(details), ["reason", "epoch", "oldest", "latest", "cursor"]);
        assert_eq!(details["reason"], reason, "{after}");
        assert!(message.contains(details["cursor"].as_str().unwrap()), "{message}");
    }
    let (mut stream, hello) = connect(daemon, &query).await;
    let gap = stream.next_message().await;
    assert_eq!((&gap["type"], &gap["reason"]), (&json!("gap"), &json!(reason)), "{gap}");
    assert_eq!(gap["epoch"], epoch(&cursor(&hello)));
    assert!(gap["oldest"].is_u64() && gap["latest"].is_u64() && gap["message"].is_string(), "{gap}");
    assert_eq!(stream.close_code().await, CURSOR_GONE);

    // With the wish to go on all the same there is a greeting in the place of what is missing, and then what follows.
    let (mut stream, _) = connect(daemon, &format!("{query}&onGap=resync")).await;
    let gap = stream.next_message().await;
    assert_eq!((&gap["type"], &gap["reason"]), (&json!("gap"), &json!(reason)));
    let hello = stream.hello().await;
    let session_id = session(daemon).await;
    let created = |event: &Value| event["detail"]["sessionId"] == session_id;
    let followed = stream.collect_until("the new session", created).await;
    assert_eq!(
        seq(&followed[0]),
        super::number(&cursor(&hello)) + 1,
        "nothing is between the greeting and it"
    );
    // The cursor that is offered in its place leads on.
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
async fn a_cursor_that_is_ahead_of_the_log_is_refused() {
    let daemon = start().await;
    session(&daemon).await;
    let (_stream, hello) = connect(&daemon, "").await;
    let epoch = epoch(&cursor(&hello)).to_owned();
    assert_gone(&daemon, "1000000", "future").await;
    assert_gone(&daemon, &format!("{epoch}-18446744073709551615"), "future").await;
    assert_gone(&daemon, "otherepoch-1", "epoch").await;
}

#[tokio::test]
async fn a_cursor_of_a_log_that_was_lost_is_refused() {
    let mut before = start().await;
    let session_id = session(&before).await;
    let (_stream, hello) = connect(&before, "").await;
    let old = cursor(&hello);
    before.stop().await;
    let last = before.events_on_disk().last().map(seq).unwrap();
    remove_log(&before);

    let after = Daemon::builder().state_from(&before).start().await;
    let (_stream, hello) = connect(&after, "").await;
    assert_ne!(epoch(&cursor(&hello)), epoch(&old));
    assert_gone(&after, &old, "epoch").await;
    // What is on disk elsewhere is still known, and no number is used twice.
    let oldest = page(&after, "limit=1").await;
    assert_eq!(oldest["oldest"], last + 1);
    assert_eq!(get(&after, &format!("{}/{session_id}", crate::api::SESSIONS)).await.status, 200);
    // A number without its log means the log there is.
    assert_gone(&after, "1", "expired").await;
}

#[tokio::test]
async fn a_cursor_of_a_log_whose_name_was_lost_is_refused() {
    let mut before = start().await;
    let (_stream, hello) = connect(&before, "").await;
    before.stop().await;
    fs::remove_file(before.logs_dir().join("event-log.json")).unwrap();
    let after = Daemon::builder().state_from(&before).start().await;
    assert_gone(&after, &cursor(&hello), "epoch").await;
    // The events themselves are still there.
    let first = page(&after, "limit=1").await;
    assert_eq!(first["events"][0]["type"], "daemon.started");
    assert_eq!(first["oldest"], 1);
}

#[tokio::test]
async fn a_cursor_whose_events_were_removed_is_refused() {
    let daemon = Daemon::builder()
        .arg("--event-segment-bytes")
        .arg("20000")
        .arg("--event-log-bytes")
        .arg("100000")
        .start()
        .await;
    let session_id = session(&daemon).await;
    let (_stream, hello) = connect(&daemon, "").await;
    turn(&daemon, &session_id, "deltas=1000").await;
    idle(&daemon, &session_id).await;
    let first = page(&daemon, "limit=1").await;
    let oldest = first["oldest"].as_u64().unwrap();
    assert!(oldest > super::number(&cursor(&hello)) + 2, "{oldest}");
    assert_eq!(first["events"][0]["seq"], oldest, "a page without a cursor begins at the oldest");
    assert_gone(&daemon, "0", "expired").await;
    assert_gone(&daemon, &cursor(&hello), "expired").await;
    let oldest = page(&daemon, "limit=1").await["oldest"].as_u64().unwrap();
    assert_gone(&daemon, &(oldest - 2).to_string(), "expired").await;
    let oldest = page(&daemon, "limit=1").await["oldest"].as_u64().unwrap();
    let (mut stream, _) = connect(&daemon, &format!("after={}", oldest - 1)).await;
    assert_eq!(seq(&stream.next_event().await), oldest, "the last cursor that still leads on");
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_over_the_stream_too() {
    let daemon = start().await;
    for query in ["after=x", "limit=0", "onGap=explode"] {
        let mut stream = EventStream::connect_to(&daemon, &events_path(query), &[]).await;
        let (events, code) = stream.rest().await;
        assert_eq!((events, code), (Vec::<Value>::new(), BAD_QUERY), "{query}");
        refused_source(&daemon, query, None).await.error(400, "bad_request");
    }
    refused_source(&daemon, "", Some("no cursor")).await.error(400, "bad_request");
}
