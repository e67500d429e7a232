//! Going on after a cursor: in the middle of a turn, after a restart, and after the daemon was killed.

use std::fs;

use serde_json::json;

use super::{all_pages, connect, cursor, ends, ends_with, epoch, events_path, number, page, seq, seqs};
use crate::api::{idle, logged, ready, session, start, turn};
use crate::support::daemon::Daemon;
use crate::support::sse::EventSource;

#[tokio::test]
async fn a_websocket_that_is_cut_off_again_and_again_misses_nothing_and_gets_nothing_twice() {
    let daemon = start().await;
    let session_id = session(&daemon).await;
    let turn_id = turn(&daemon, &session_id, "deltas=3000").await;
    let (mut seen, mut after) = (Vec::new(), "0".to_owned());
    for read in (1..).map(|round| round * 150) {
        let (mut stream, hello) = connect(&daemon, &format!("after={after}")).await;
        let mut left = read;
        let piece = stream.collect_until("the next events", |event| {
            left -= 1;
            left == 0 || ends(event, &turn_id)
        });
        seen.extend(piece.await);
        after = format!("{}-{}", epoch(&cursor(&hello)), seq(seen.last().unwrap()));
        if ends(seen.last().unwrap(), &turn_id) {
            break;
        }
    }
    assert_eq!(seen, daemon.events_on_disk()[..seen.len()]);
    assert_eq!(seqs(&seen), (1..=seen.len() as u64).collect::<Vec<_>>());
    assert!(seen.len() > 3000);
}

#[tokio::test]
async fn a_browser_that_connects_again_misses_nothing_and_gets_nothing_twice() {
    let daemon = start().await;
    let session_id = session(&daemon).await;
    let turn_id = turn(&daemon, &session_id, "deltas=3000").await;
    // The address stays as it was; only the header says how far the browser came.
    let address = events_path("after=0");
    let mut source = EventSource::connect(&daemon, &address, None).await;
    let mut seen = Vec::new();
    loop {
        let event = source.next_event().await;
        let is_last = ends(&event, &turn_id);
        seen.push(event);
        if is_last {
            break;
        }
        if seen.len() % 700 == 0 {
            let last = source.last_event_id.clone();
            source = EventSource::connect(&daemon, &address, Some(&last)).await;
        }
    }
    assert_eq!(source.retry, Some(1000));
    assert_eq!(seen, daemon.events_on_disk()[..seen.len()]);
    assert!(seen.len() > 3000);
}

#[tokio::test]
async fn a_stream_without_a_cursor_begins_now_and_one_with_a_cursor_has_no_seam() {
    let daemon = start().await;
    let session_id = session(&daemon).await;
    turn(&daemon, &session_id, "deltas=50").await;
    idle(&daemon, &session_id).await;
    let (mut from_now, hello) = connect(&daemon, "").await;
    let mut source = EventSource::connect(&daemon, &events_path(""), None).await;
    let now = cursor(&hello);
    let (mut resumed, second) = connect(&daemon, "after=3").await;
    assert_eq!(epoch(&cursor(&second)), epoch(&now));
    let turn_id = turn(&daemon, &session_id, "deltas=50").await;
    let last = |event: &serde_json::Value| ends(event, &turn_id);
    let live = from_now.collect_until("the end", last).await;
    assert_eq!(seq(&live[0]), number(&now) + 1);
    let replayed = resumed.collect_until("the end", last).await;
    let log = daemon.events_on_disk();
    assert_eq!(live, log[number(&now) as usize..][..live.len()]);
    assert_eq!(replayed, log[3..][..replayed.len()]);
    // The browser may have come a moment after the first one, and then begins a little later.
    assert!(seq(&source.next_event().await) > number(&now));
}

#[tokio::test]
async fn after_a_restart_a_client_goes_on_where_it_was() {
    let mut before = start().await;
    let session_id = session(&before).await;
    let (mut stream, hello) = connect(&before, "").await;
    let turn_id = turn(&before, &session_id, "deltas=20").await;
    let seen = stream.collect_until("the end", |event| ends(event, &turn_id)).await;
    let at = format!("{}-{}", epoch(&cursor(&hello)), seq(&seen[5]));
    before.stop().await;
    let ended = before.events_on_disk();

    let after = Daemon::builder().state_from(&before).start().await;
    let (mut stream, second) = connect(&after, &format!("after={at}")).await;
    assert_eq!(epoch(&cursor(&second)), epoch(&cursor(&hello)), "the log is the same");
    let more = stream.collect_until("the app-server", |event| event["type"] == "app-server.connected").await;
    let log = after.events_on_disk();
    let from = seq(&seen[5]) as usize;
    assert_eq!(more, log[from..][..more.len()]);
    // No number is skipped after a stop in order.
    assert_eq!(seqs(&log), (1..=log.len() as u64).collect::<Vec<_>>());
    assert_eq!(log[ended.len()]["type"], "daemon.started");
}

#[tokio::test]
async fn after_a_kill_numbers_jump_and_nothing_that_was_told_is_missing() {
    let mut daemon = start().await;
    let session_id = session(&daemon).await;
    let (mut stream, hello) = connect(&daemon, "after=0").await;
    turn(&daemon, &session_id, "deltas=2000000").await;
    let mut told = stream.collect_until("some of the turn", |event| seq(event) >= 2_000).await;
    daemon.kill().await;
    let (rest, _) = stream.rest().await;
    told.extend(rest);
    let last_told = seq(told.last().unwrap());

    let mut again = Daemon::builder().state_from(&daemon).start().await;
    ready(&again).await;
    let is_new =
        |event: &serde_json::Value| event["type"] == "app-server.connected" && seq(event) > last_told;
    let last = logged(&again, "the new life", is_new).await;
    let at = format!("{}-{last_told}", epoch(&cursor(&hello)));
    let (mut stream, second) = connect(&again, &format!("after={at}")).await;
    assert_eq!(epoch(&cursor(&second)), epoch(&at), "a crash is no new log");
    let followed = stream.collect_until("the new life", |event| seq(event) == seq(&last)).await;
    let log = all_pages(&again, "").await;
    let known: Vec<_> = told.iter().chain(&followed).cloned().collect();
    assert_eq!(known, log[..known.len()], "what was told before and after is the log");
    let jump = log.windows(2).find(|pair| seq(&pair[1]) > seq(&pair[0]) + 1).expect("the numbers jump");
    assert!(seq(&jump[0]) >= last_told);
    assert!(
        logged(&again, "the reason", |event| event["type"] == "state.recovered").await["message"]
            .as_str()
            .unwrap()
            .contains("skipped"),
    );
    // The hole itself is a cursor like any other.
    let in_the_hole = page(&again, &format!("after={}&limit=1", seq(&jump[0]) + 1)).await;
    assert_eq!(in_the_hole["events"][0], jump[1]);
    again.stop().await;
}

#[tokio::test]
async fn a_page_and_the_greeting_agree_on_the_cursor() {
    let daemon = start().await;
    let (_stream, hello) = connect(&daemon, "").await;
    let at = cursor(&hello);
    let recent = hello["recentEvents"].as_array().unwrap();
    assert_eq!(number(&at), recent.last().map_or(0, seq), "it is that of the newest recent event");
    let page = page(&daemon, "limit=1000").await;
    assert_eq!(page["epoch"], epoch(&at));
    assert!(ends_with(&page["cursor"], &page["latest"]));
    let file = daemon.logs_dir().join("event-log.json");
    let meta: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert_eq!(meta["epoch"], epoch(&at));
    assert_eq!(meta["formatVersion"], json!(1));
}
