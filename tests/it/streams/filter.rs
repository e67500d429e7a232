//! Filters: what passes in each form is exactly what passes when all of the log is looked at.

use serde_json::{Value, json};

use super::{all_pages, connect, ends, ends_with, events_path, page, refused_source};
use crate::api::{create, idle, session, start, text, turn};
use crate::support::daemon::Daemon;
use crate::support::http::get;
use crate::support::sse::EventSource;
use crate::support::websocket::EventStream;

/// Whether a value has one of these keys with one of these texts, at any depth.
fn names(value: &Value, keys: &[(&str, &str)]) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(key, value)| {
            keys.iter().any(|(wanted, id)| key == wanted && value == id) || names(value, keys)
        }),
        Value::Array(values) => values.iter().any(|value| names(value, keys)),
        _ => false,
    }
}

fn of_types(event: &Value, types: &[&str]) -> bool {
    let event_type = event["type"].as_str().unwrap();
    types.is_empty() || types.iter().any(|prefix| event_type.starts_with(prefix))
}

/// A daemon with two sessions that had a turn each, both told apart by nothing but their names.
async fn busy_daemon() -> (Daemon, [Value; 2]) {
    let daemon = start().await;
    let mut records = Vec::new();
    for _ in 0..2 {
        let record = create(&daemon, json!({})).await;
        let session_id = text(&record["sessionId"]);
        turn(&daemon, &session_id, "deltas=30 reasoning plan diff command").await;
        records.push(idle(&daemon, &session_id).await);
    }
    // A text that looks like the key of a session is no such key.
    let quoted = format!("text=\"sessionId\":\"{}\"", text(&records[0]["sessionId"]));
    let second = text(&records[1]["sessionId"]);
    turn(&daemon, &second, &quoted).await;
    idle(&daemon, &second).await;
    (daemon, records.try_into().unwrap())
}

#[tokio::test]
async fn what_passes_is_exactly_what_passes_in_the_whole_log() {
    let (daemon, records) = busy_daemon().await;
    let whole = all_pages(&daemon, "").await;
    let about =
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
        let ids = record.map(about);
        let wanted = |event: &&Value| {
            let named = ids
                .as_ref()
                .is_none_or(|ids| names(event, &ids.each_ref().map(|(key, id)| (*key, id.as_str()))));
            named && of_types(event, types)
        };
        let expected: Vec<Value> = whole.iter().filter(wanted).cloned().collect();
        let mut query: String = types.iter().map(|prefix| format!("&type={prefix}")).collect();
        if let Some(record) = record {
            query += &format!("&sessionId={}", text(&record["sessionId"]));
        }
        assert_eq!(all_pages(&daemon, &query).await, expected, "pages of {query}");
        let limit = format!("{query}&limit=3");
        let few = page(&daemon, &limit).await;
        assert_eq!(few["events"], json!(expected[..expected.len().min(3)]), "a page of {query}");
        let Some(last) = expected.last() else { continue };
        let (mut stream, _) = connect(&daemon, &format!("after=0{query}")).await;
        let streamed = stream.collect_until("the last", |event| event["seq"] == last["seq"]).await;
        assert_eq!(streamed, expected, "WebSocket of {query}");
        let mut source = EventSource::connect(&daemon, &events_path(&format!("after=0{query}")), None).await;
        for event in &expected {
            assert_eq!(source.next_event().await, *event, "server-sent events of {query}");
        }
    }
}

#[tokio::test]
async fn a_page_on_which_nothing_passes_leads_to_the_end() {
    let (daemon, records) = busy_daemon().await;
    let of_session = format!("type=nothing.&sessionId={}", text(&records[0]["sessionId"]));
    for query in ["type=nothing.", &of_session] {
        let page = page(&daemon, query).await;
        assert_eq!(page["events"], json!([]));
        assert!(ends_with(&page["cursor"], &page["latest"]), "{page}");
    }
}

#[tokio::test]
async fn a_filter_holds_for_what_comes_later_and_for_what_is_resumed() {
    let daemon = start().await;
    let (one, other) = (session(&daemon).await, session(&daemon).await);
    let (mut stream, _) = connect(&daemon, &format!("sessionId={one}&type=app-server.turn.")).await;
    let other_turn = turn(&daemon, &other, "deltas=50").await;
    idle(&daemon, &other).await;
    let first = turn(&daemon, &one, "deltas=50").await;
    let seen = stream.collect_until("the end", |event| ends(event, &first)).await;
    assert!(seen.iter().all(|event| event["detail"]["turnId"] != other_turn), "{seen:?}");
    assert_eq!(seen.len(), 52, "started, 50 deltas, completed");
    // Whoever was away in the middle gets the rest of the same.
    let (mut again, _) =
        connect(&daemon, &format!("sessionId={one}&type=app-server.turn.&after={}", seen[9]["seq"])).await;
    let rest = again.collect_until("the end", |event| ends(event, &first)).await;
    assert_eq!(rest, seen[10..]);
}

#[tokio::test]
async fn two_sessions_of_one_thread_both_see_its_turns() {
    let daemon = start().await;
    let first = create(&daemon, json!({})).await;
    let first_id = text(&first["sessionId"]);
    let turn_id = turn(&daemon, &first_id, "deltas=2").await;
    idle(&daemon, &first_id).await;
    let second = create(&daemon, json!({ "threadId": first["threadId"] })).await;
    let seen = all_pages(&daemon, &format!("sessionId={}", text(&second["sessionId"]))).await;
    assert!(seen.iter().any(|event| ends(event, &turn_id)), "the earlier turn of its thread is about it too");
    assert!(seen.iter().any(|event| event["type"] == "session.resumed"));
}

#[tokio::test]
async fn a_filter_by_a_session_that_there_is_not_is_refused() {
    let daemon = start().await;
    let session_id = session(&daemon).await;
    for query in ["sessionId=typo", "sessionId=typo&after=0&onGap=resync", "sessionId=typo&type=daemon."] {
        let expected = "Unknown codexd session \"typo\".";
        assert_eq!(get(&daemon, &events_path(query)).await.error(404, "not_found"), expected);
        assert_eq!(refused_source(&daemon, query, None).await.error(404, "not_found"), expected);
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
