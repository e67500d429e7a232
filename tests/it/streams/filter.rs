//! Filters: each form of the stream returns exactly the events of the log that match.

use serde_json::{Value, json};

use super::{all_pages, connect, events_path, is_cursor_of, is_turn_end, page, refused_event_source};
use crate::api::{create_session, new_session, start_daemon, start_turn, text, wait_until_idle};
use crate::support::daemon::Daemon;
use crate::support::http::get;
use crate::support::sse::EventSource;
use crate::support::websocket::EventStream;

/// Whether a value has one of these keys with its value, at any depth.
fn has_key_value(value: &Value, keys: &[(&str, &str)]) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(key, value)| {
            keys.iter().any(|(name, id)| key == name && value == id) || has_key_value(value, keys)
        }),
        Value::Array(values) => values.iter().any(|value| has_key_value(value, keys)),
        _ => false,
    }
}

fn has_type_prefix(event: &Value, types: &[&str]) -> bool {
    let event_type = event["type"].as_str().unwrap();
    types.is_empty() || types.iter().any(|prefix| event_type.starts_with(prefix))
}

/// Starts a daemon with two sessions and one equal turn in each.
async fn daemon_with_two_sessions() -> (Daemon, [Value; 2]) {
    let daemon = start_daemon().await;
    let mut records = Vec::new();
    for _ in 0..2 {
        let record = create_session(&daemon, json!({})).await;
        let session_id = text(&record["sessionId"]);
        start_turn(&daemon, &session_id, "deltas=30 reasoning plan diff command").await;
        records.push(wait_until_idle(&daemon, &session_id).await);
    }
    // Text that looks like the key of a session must not match the filter.
    let quoted = format!("text=\"sessionId\":\"{}\"", text(&records[0]["sessionId"]));
    let second = text(&records[1]["sessionId"]);
    start_turn(&daemon, &second, &quoted).await;
    wait_until_idle(&daemon, &second).await;
    (daemon, records.try_into().unwrap())
}

#[tokio::test]
async fn stream_filters_match_the_same_events_as_the_whole_log() {
    let (daemon, records) = daemon_with_two_sessions().await;
    let log = all_pages(&daemon, "").await;
    let ids_of =
        |record: &Value| [("sessionId", text(&record["sessionId"])), ("threadId", text(&record["threadId"]))];
    for (record, types) in [
        (None, &["app-server.turn."][..]),
        (None, &["daemon.", "session.created"]),
        (None, &["app-server.turn.message.delta"]),
        (None, &["urn"]),
        (Some(&records[0]), &[]),
        (Some(&records[1]), &[]),
        (Some(&records[1]), &["app-server.turn.message.delta", "turn."]),
    ] {
        let ids = record.map(ids_of);
        let is_expected = |event: &&Value| {
            let matches_session = ids
                .as_ref()
                .is_none_or(|ids| has_key_value(event, &ids.each_ref().map(|(key, id)| (*key, id.as_str()))));
            matches_session && has_type_prefix(event, types)
        };
        let expected: Vec<Value> = log.iter().filter(is_expected).cloned().collect();
        let mut query: String = types.iter().map(|prefix| format!("&type={prefix}")).collect();
        if let Some(record) = record {
            query += &format!("&sessionId={}", text(&record["sessionId"]));
        }
        assert_eq!(all_pages(&daemon, &query).await, expected, "pages of {query}");
        let limit = format!("{query}&limit=3");
        let first_page = page(&daemon, &limit).await;
        assert_eq!(first_page["events"], json!(expected[..expected.len().min(3)]), "a page of {query}");
        let Some(last) = expected.last() else { continue };
        let (mut stream, _) = connect(&daemon, &format!("after=0{query}")).await;
        let streamed =
            stream.collect_until("the last expected event", |event| event["seq"] == last["seq"]).await;
        assert_eq!(streamed, expected, "WebSocket of {query}");
        let mut source = EventSource::connect(&daemon, &events_path(&format!("after=0{query}")), None).await;
        for event in &expected {
            assert_eq!(source.next_event().await, *event, "server-sent events of {query}");
        }
    }
}

#[tokio::test]
async fn page_without_matching_events_has_the_latest_cursor() {
    let (daemon, records) = daemon_with_two_sessions().await;
    let of_session = format!("type=unknown.&sessionId={}", text(&records[0]["sessionId"]));
    for query in ["type=unknown.", &of_session] {
        let page = page(&daemon, query).await;
        assert_eq!(page["events"], json!([]));
        assert!(is_cursor_of(&page["cursor"], &page["latest"]), "{page}");
    }
}

#[tokio::test]
async fn filter_applies_to_live_and_resumed_streams() {
    let daemon = start_daemon().await;
    let (one, other) = (new_session(&daemon).await, new_session(&daemon).await);
    let (mut stream, _) = connect(&daemon, &format!("sessionId={one}&type=app-server.turn.")).await;
    let other_turn = start_turn(&daemon, &other, "deltas=50").await;
    wait_until_idle(&daemon, &other).await;
    let first = start_turn(&daemon, &one, "deltas=50").await;
    let events = stream.collect_until("the end of the turn", |event| is_turn_end(event, &first)).await;
    assert!(events.iter().all(|event| event["detail"]["turnId"] != other_turn), "{events:?}");
    assert_eq!(events.len(), 52, "started, 50 deltas, completed");
    // A client that reconnects in the middle gets the remaining events.
    let (mut resumed, _) =
        connect(&daemon, &format!("sessionId={one}&type=app-server.turn.&after={}", events[9]["seq"])).await;
    let rest = resumed.collect_until("the end of the turn", |event| is_turn_end(event, &first)).await;
    assert_eq!(rest, events[10..]);
}

#[tokio::test]
async fn session_filter_matches_turns_of_all_sessions_of_the_thread() {
    let daemon = start_daemon().await;
    let first = create_session(&daemon, json!({})).await;
    let first_id = text(&first["sessionId"]);
    let turn_id = start_turn(&daemon, &first_id, "deltas=2").await;
    wait_until_idle(&daemon, &first_id).await;
    let second = create_session(&daemon, json!({ "threadId": first["threadId"] })).await;
    let events = all_pages(&daemon, &format!("sessionId={}", text(&second["sessionId"]))).await;
    assert!(
        events.iter().any(|event| is_turn_end(event, &turn_id)),
        "the earlier turn of the thread is missing"
    );
    assert!(events.iter().any(|event| event["type"] == "session.resumed"));
}

#[tokio::test]
async fn filter_by_unknown_session_is_refused() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    for query in ["sessionId=typo", "sessionId=typo&after=0&onGap=resync", "sessionId=typo&type=daemon."] {
        let expected = "Unknown codexd session \"typo\".";
        assert_eq!(get(&daemon, &events_path(query)).await.error(404, "not_found"), expected);
        assert_eq!(refused_event_source(&daemon, query, None).await.error(404, "not_found"), expected);
        let mut stream = EventStream::connect_to(&daemon, &events_path(query), &[]).await;
        assert_eq!(stream.close_code().await, 4404);
    }
    let requests = get(&daemon, "/v1/codexd/requests?sessionId=typo").await;
    assert_eq!(requests.error(404, "not_found"), "Unknown codexd session \"typo\".");
    let known = format!("sessionId={session_id}");
    get(&daemon, &format!("/v1/codexd/requests?{known}")).await.data(200);
    assert!(!page(&daemon, &known).await["events"].as_array().unwrap().is_empty());
    connect(&daemon, &known).await;
}
