//! Resuming after a cursor: in the middle of a turn, after a restart, and after SIGKILL of the daemon.

use std::fs;

use serde_json::json;

use super::{
    all_pages, connect, cursor, cursor_seq, epoch, events_path, is_cursor_of, is_turn_end, page, seq, seqs,
};
use crate::api::{new_session, start_daemon, start_turn, wait_for_event, wait_until_idle, wait_until_ready};
use crate::support::daemon::Daemon;
use crate::support::sse::EventSource;

#[tokio::test]
async fn websocket_reconnects_receive_every_event_exactly_once() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "deltas=3000").await;
    let (mut events, mut after) = (Vec::new(), "0".to_owned());
    for count in (1..).map(|round| round * 150) {
        let (mut stream, hello) = connect(&daemon, &format!("after={after}")).await;
        let mut remaining = count;
        let next_events = stream.collect_until("the next events", |event| {
            remaining -= 1;
            remaining == 0 || is_turn_end(event, &turn_id)
        });
        events.extend(next_events.await);
        after = format!("{}-{}", epoch(&cursor(&hello)), seq(events.last().unwrap()));
        if is_turn_end(events.last().unwrap(), &turn_id) {
            break;
        }
    }
    assert_eq!(events, daemon.events_on_disk()[..events.len()]);
    assert_eq!(seqs(&events), (1..=events.len() as u64).collect::<Vec<_>>());
    assert!(events.len() > 3000);
}

#[tokio::test]
async fn event_source_reconnects_receive_every_event_exactly_once() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "deltas=3000").await;
    // The URL stays the same; only the Last-Event-ID header has the cursor of the browser.
    let path = events_path("after=0");
    let mut source = EventSource::connect(&daemon, &path, None).await;
    let mut events = Vec::new();
    loop {
        let event = source.next_event().await;
        let is_last = is_turn_end(&event, &turn_id);
        events.push(event);
        if is_last {
            break;
        }
        if events.len() % 700 == 0 {
            let last = source.last_event_id.clone();
            source = EventSource::connect(&daemon, &path, Some(&last)).await;
        }
    }
    assert_eq!(source.retry, Some(1000));
    assert_eq!(events, daemon.events_on_disk()[..events.len()]);
    assert!(events.len() > 3000);
}

#[tokio::test]
async fn stream_starts_live_without_cursor_and_replays_gaplessly_with_cursor() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "deltas=50").await;
    wait_until_idle(&daemon, &session_id).await;
    let (mut from_now, hello) = connect(&daemon, "").await;
    let mut source = EventSource::connect(&daemon, &events_path(""), None).await;
    let now = cursor(&hello);
    let (mut resumed, second) = connect(&daemon, "after=3").await;
    assert_eq!(epoch(&cursor(&second)), epoch(&now));
    let turn_id = start_turn(&daemon, &session_id, "deltas=50").await;
    let last = |event: &serde_json::Value| is_turn_end(event, &turn_id);
    let live = from_now.collect_until("the end of the turn", last).await;
    assert_eq!(seq(&live[0]), cursor_seq(&now) + 1);
    let replayed = resumed.collect_until("the end of the turn", last).await;
    let log = daemon.events_on_disk();
    assert_eq!(live, log[cursor_seq(&now) as usize..][..live.len()]);
    assert_eq!(replayed, log[3..][..replayed.len()]);
    // The event source may have connected later than the WebSocket, and then starts at a later event.
    assert!(seq(&source.next_event().await) > cursor_seq(&now));
}

#[tokio::test]
async fn client_resumes_at_its_cursor_after_restart() {
    let mut before = start_daemon().await;
    let session_id = new_session(&before).await;
    let (mut stream, hello) = connect(&before, "").await;
    let turn_id = start_turn(&before, &session_id, "deltas=20").await;
    let events = stream.collect_until("the end of the turn", |event| is_turn_end(event, &turn_id)).await;
    let resume_cursor = format!("{}-{}", epoch(&cursor(&hello)), seq(&events[5]));
    before.stop().await;
    let ended = before.events_on_disk();

    let after = Daemon::builder().state_from(&before).start().await;
    let (mut stream, second) = connect(&after, &format!("after={resume_cursor}")).await;
    assert_eq!(epoch(&cursor(&second)), epoch(&cursor(&hello)), "the epoch changed across a restart");
    let more = stream.collect_until("the app-server", |event| event["type"] == "app-server.connected").await;
    let log = after.events_on_disk();
    let from = seq(&events[5]) as usize;
    assert_eq!(more, log[from..][..more.len()]);
    // A graceful stop skips no sequence number.
    assert_eq!(seqs(&log), (1..=log.len() as u64).collect::<Vec<_>>());
    assert_eq!(log[ended.len()]["type"], "daemon.started");
}

#[tokio::test]
async fn sigkill_skips_sequence_numbers_and_loses_no_published_event() {
    let mut daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let (mut stream, hello) = connect(&daemon, "after=0").await;
    start_turn(&daemon, &session_id, "deltas=2000000").await;
    let mut published = stream.collect_until("a part of the turn", |event| seq(event) >= 2_000).await;
    daemon.kill().await;
    let (rest, _) = stream.rest().await;
    published.extend(rest);
    let last_published = seq(published.last().unwrap());

    let mut restarted = Daemon::builder().state_from(&daemon).start().await;
    wait_until_ready(&restarted).await;
    let is_new =
        |event: &serde_json::Value| event["type"] == "app-server.connected" && seq(event) > last_published;
    let last = wait_for_event(&restarted, "the new connection to the app-server", is_new).await;
    let resume_cursor = format!("{}-{last_published}", epoch(&cursor(&hello)));
    let (mut stream, second) = connect(&restarted, &format!("after={resume_cursor}")).await;
    assert_eq!(epoch(&cursor(&second)), epoch(&resume_cursor), "the epoch changed after a crash");
    let followed =
        stream.collect_until("the new connection to the app-server", |event| seq(event) == seq(&last)).await;
    let log = all_pages(&restarted, "").await;
    let known: Vec<_> = published.iter().chain(&followed).cloned().collect();
    assert_eq!(known, log[..known.len()], "the published events differ from the log");
    let skip =
        log.windows(2).find(|pair| seq(&pair[1]) > seq(&pair[0]) + 1).expect("no sequence number is skipped");
    assert!(seq(&skip[0]) >= last_published);
    assert!(
        wait_for_event(&restarted, "the recovery event", |event| event["type"] == "state.recovered").await["message"]
            .as_str()
            .unwrap()
            .contains("skipped"),
    );
    // A skipped sequence number is a valid cursor.
    let page_after_skip = page(&restarted, &format!("after={}&limit=1", seq(&skip[0]) + 1)).await;
    assert_eq!(page_after_skip["events"][0], skip[1]);
    restarted.stop().await;
}

#[tokio::test]
async fn page_and_hello_message_have_the_same_epoch_and_cursor() {
    let daemon = start_daemon().await;
    let (_stream, hello) = connect(&daemon, "").await;
    let resume_cursor = cursor(&hello);
    let recent = hello["recentEvents"].as_array().unwrap();
    assert_eq!(
        cursor_seq(&resume_cursor),
        recent.last().map_or(0, seq),
        "the cursor is not that of the newest recent event"
    );
    let page = page(&daemon, "limit=1000").await;
    assert_eq!(page["epoch"], epoch(&resume_cursor));
    assert!(is_cursor_of(&page["cursor"], &page["latest"]));
    let file = daemon.logs_dir().join("event-log.json");
    let log_metadata: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert_eq!(log_metadata["epoch"], epoch(&resume_cursor));
    assert_eq!(log_metadata["formatVersion"], json!(1));
}
