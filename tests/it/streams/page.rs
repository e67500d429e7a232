//! Pages of the log as JSON.

use hyper::Method;
use serde_json::{Value, json};

use super::{all_pages, connect, cursor, cursor_seq, epoch, events_path, is_cursor_of, page, seq, seqs};
use crate::api::{keys, new_session, start_daemon, start_turn, wait_until_idle};
use crate::support::http::{get, request};

#[tokio::test]
async fn page_has_events_and_cursor_of_the_next_page() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "deltas=250").await;
    wait_until_idle(&daemon, &session_id).await;
    let log = daemon.events_on_disk();

    let first = page(&daemon, "").await;
    assert_eq!(keys(&first), ["events", "cursor", "epoch", "oldest", "latest"]);
    assert_eq!(first["events"], json!(log[..100]), "the first page does not have the 100 oldest events");
    assert_eq!((&first["oldest"], &first["latest"]), (&json!(1), &json!(log.len())));
    assert!(is_cursor_of(&first["cursor"], &json!(100)));
    assert_eq!(first["epoch"], epoch(first["cursor"].as_str().unwrap()));

    let second = page(&daemon, &format!("after={}&limit=7", first["cursor"].as_str().unwrap())).await;
    assert_eq!(second["events"], json!(log[100..107]));
    assert!(is_cursor_of(&second["cursor"], &json!(107)));
    assert_eq!(all_pages(&daemon, "").await, log);

    let last = page(&daemon, &format!("after={}", log.len())).await;
    assert_eq!((&last["events"], is_cursor_of(&last["cursor"], &last["latest"])), (&json!([]), true));
    // A bare sequence number is a valid cursor, and empty and unknown parameters are ignored.
    assert_eq!(page(&daemon, "after=100&limit=7").await, second);
    assert_eq!(page(&daemon, "after=&limit=&sessionId=&type=&onGap=&other=1").await, first);
}

#[tokio::test]
async fn page_query_errors_name_the_parameter() {
    let daemon = start_daemon().await;
    for (query, parameter) in [
        ("after=x", "after"),
        ("after=-1", "after"),
        ("after=1.5", "after"),
        ("after=a_b-1", "after"),
        ("after=99999999999999999999", "after"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=many", "limit"),
        ("onGap=explode", "onGap"),
    ] {
        let response = get(&daemon, &events_path(query)).await;
        let message = response.error(400, "bad_request");
        assert!(message.starts_with(parameter) && message.ends_with('.'), "{query}: {message}");
    }
    assert_eq!(page(&daemon, "limit=1").await["events"].as_array().unwrap().len(), 1);
    page(&daemon, "limit=1000").await;
    let head = request(&daemon, Method::HEAD, &events_path("limit=1"), &[], "").await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    request(&daemon, Method::POST, &events_path(""), &[], "").await.error(404, "not_found");
}

#[tokio::test]
async fn page_of_large_events_is_limited_but_never_empty() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    // Each delta alone exceeds the size limit of a page.
    start_turn(&daemon, &session_id, "deltas=4 chars=3000000").await;
    wait_until_idle(&daemon, &session_id).await;
    let is_large = |event: &&Value| event["type"] == "app-server.turn.message.delta";
    let (mut after, mut large) = ("0".to_owned(), 0);
    loop {
        let page = page(&daemon, &format!("after={after}&limit=1000")).await;
        let page_events = page["events"].as_array().unwrap();
        let count = page_events.iter().filter(is_large).count();
        assert!(count <= 2, "{count} large events in one page");
        large += count;
        if is_cursor_of(&page["cursor"], &page["latest"]) {
            break;
        }
        assert!(!page_events.is_empty(), "the page has no event and is not the last one");
        after = page["cursor"].as_str().unwrap().to_owned();
    }
    assert_eq!(large, 4);
}

#[tokio::test]
async fn pages_return_every_event_of_a_growing_log() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let (_stream, hello) = connect(&daemon, "").await;
    let mut after = cursor(&hello);
    let turn_id = start_turn(&daemon, &session_id, "deltas=5000").await;
    let mut events = Vec::new();
    while !events.iter().rev().take(1000).any(|event| super::is_turn_end(event, &turn_id)) {
        let page = page(&daemon, &format!("after={after}&limit=999")).await;
        events.extend_from_slice(page["events"].as_array().unwrap());
        after = page["cursor"].as_str().unwrap().to_owned();
    }
    let first = cursor_seq(&cursor(&hello)) + 1;
    assert_eq!(seqs(&events), (first..first + events.len() as u64).collect::<Vec<_>>());
    assert_eq!(seq(events.last().unwrap()), cursor_seq(&after));
}
