//! The log as pages of JSON.

use hyper::Method;
use serde_json::{Value, json};

use super::{all_pages, connect, cursor, ends_with, epoch, events_path, number, page, seq, seqs};
use crate::api::{idle, keys, session, start, turn};
use crate::support::http::{get, request};

#[tokio::test]
async fn a_page_has_the_events_and_where_to_go_on() {
    let daemon = start().await;
    let session_id = session(&daemon).await;
    turn(&daemon, &session_id, "deltas=250").await;
    idle(&daemon, &session_id).await;
    let log = daemon.events_on_disk();

    let first = page(&daemon, "").await;
    assert_eq!(keys(&first), ["events", "cursor", "epoch", "oldest", "latest"]);
    assert_eq!(first["events"], json!(log[..100]), "100 from the oldest one on");
    assert_eq!((&first["oldest"], &first["latest"]), (&json!(1), &json!(log.len())));
    assert!(ends_with(&first["cursor"], &json!(100)));
    assert_eq!(first["epoch"], epoch(first["cursor"].as_str().unwrap()));

    let second = page(&daemon, &format!("after={}&limit=7", first["cursor"].as_str().unwrap())).await;
    assert_eq!(second["events"], json!(log[100..107]));
    assert!(ends_with(&second["cursor"], &json!(107)));
    assert_eq!(all_pages(&daemon, "").await, log);

    let last = page(&daemon, &format!("after={}", log.len())).await;
    assert_eq!((&last["events"], ends_with(&last["cursor"], &last["latest"])), (&json!([]), true));
    // A bare number and an empty parameter are as good as what they stand for.
    assert_eq!(page(&daemon, "after=100&limit=7").await, second);
    assert_eq!(page(&daemon, "after=&limit=&sessionId=&type=&onGap=&other=1").await, first);
}

#[tokio::test]
async fn what_is_asked_wrongly_is_named() {
    let daemon = start().await;
    for (query, named) in [
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
        let answer = get(&daemon, &events_path(query)).await;
        let message = answer.error(400, "bad_request");
        assert!(message.starts_with(named) && message.ends_with('.'), "{query}: {message}");
    }
    assert_eq!(page(&daemon, "limit=1").await["events"].as_array().unwrap().len(), 1);
    page(&daemon, "limit=1000").await;
    let head = request(&daemon, Method::HEAD, &events_path("limit=1"), &[], "").await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    request(&daemon, Method::POST, &events_path(""), &[], "").await.error(404, "not_found");
}

#[tokio::test]
async fn a_page_of_large_events_is_smaller_and_always_goes_on() {
    let daemon = start().await;
    let session_id = session(&daemon).await;
    // Each delta alone is larger than what a page of large events holds altogether.
    turn(&daemon, &session_id, "deltas=4 chars=3000000").await;
    idle(&daemon, &session_id).await;
    let is_large = |event: &&Value| event["type"] == "app-server.turn.message.delta";
    let (mut after, mut large) = ("0".to_owned(), 0);
    loop {
        let page = page(&daemon, &format!("after={after}&limit=1000")).await;
        let events = page["events"].as_array().unwrap();
        let here = events.iter().filter(is_large).count();
        assert!(here <= 2, "{here} large events in one page");
        large += here;
        if ends_with(&page["cursor"], &page["latest"]) {
            break;
        }
        assert!(!events.is_empty(), "a page without an event leads nowhere");
        after = page["cursor"].as_str().unwrap().to_owned();
    }
    assert_eq!(large, 4);
}

#[tokio::test]
async fn pages_follow_a_log_that_is_being_written() {
    let daemon = start().await;
    let session_id = session(&daemon).await;
    let (_stream, hello) = connect(&daemon, "").await;
    let mut at = cursor(&hello);
    let turn_id = turn(&daemon, &session_id, "deltas=5000").await;
    let mut seen = Vec::new();
    while !seen.iter().rev().take(1000).any(|event| super::ends(event, &turn_id)) {
        let page = page(&daemon, &format!("after={at}&limit=999")).await;
        seen.extend_from_slice(page["events"].as_array().unwrap());
        at = page["cursor"].as_str().unwrap().to_owned();
    }
    let first = number(&cursor(&hello)) + 1;
    assert_eq!(seqs(&seen), (first..first + seen.len() as u64).collect::<Vec<_>>());
    assert_eq!(seq(seen.last().unwrap()), number(&at));
}
