//! The access log: one line on stderr for each request, without query strings or header values.

use std::collections::HashMap;

use hyper::Method;
use serde_json::json;

use super::raw_connection::{HANDSHAKE, RawConnection, head};
use crate::api::{new_session, start_turn, turn_event_types, wait_for_turn_end, wait_until_ready};
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::http::{Target, get, post, request};
use crate::support::sse::EventSource;
use crate::support::wait::wait_until;
use crate::support::websocket::{EVENTS_PATH, EventStream};

/// The fields of a line, by their names.
type Line = HashMap<String, String>;

/// The fields that every line of the access log has.
const FIELDS: [&str; 6] = ["request", "method", "path", "status", "ms", "bytes"];

fn builder() -> DaemonBuilder {
    Daemon::builder().env("BAA_CODEXD_LOG", "info")
}

/// The lines of the access log so far, in their order.
fn lines(daemon: &Daemon) -> Vec<Line> {
    let stderr = daemon.stderr();
    let all = stderr.lines().filter(|line| line.contains(" INFO ")).map(fields);
    all.filter(|line| FIELDS.iter().all(|name| line.contains_key(*name))).collect()
}

/// The fields of a line that have the form NAME=VALUE.
fn fields(line: &str) -> Line {
    let fields = line.split_whitespace().filter_map(|part| part.split_once('='));
    fields.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect()
}

/// The lines with this path, once there are at least `count` of them.
async fn lines_of_path(daemon: &Daemon, path: &str, count: usize) -> Vec<Line> {
    let found = || lines(daemon).into_iter().filter(|line| line["path"] == path).collect::<Vec<_>>();
    wait_until(&format!("the access log line of {path}"), || {
        Some(found()).filter(|lines| lines.len() >= count)
    })
    .await
}

fn number(line: &Line, name: &str) -> u64 {
    line[name].parse().unwrap_or_else(|_| panic!("{name} of {line:?}"))
}

#[tokio::test]
async fn access_log_has_one_line_per_request() {
    let daemon = builder().start().await;
    wait_until_ready(&daemon).await;
    // A line is written when its response has ended, which may be after the next request, so the order of the lines does not
    // tell which are earlier.
    get(&daemon, "/before").await;
    let first = number(&lines_of_path(&daemon, "/before", 1).await[0], "request");
    let requests = [
        (Method::GET, "/healthz", "", None, 200),
        (Method::HEAD, "/healthz", "", None, 200),
        (Method::GET, "/nowhere/to/go?question=secret-value", "", None, 404),
        (Method::POST, "/v1/codexd/sessions", "{}", None, 201),
        (Method::POST, "/v1/codexd/sessions?question=secret-value", "no JSON", None, 400),
        (Method::GET, "/v1/codexd/sessions", "", None, 200),
        (Method::DELETE, "/v1/codexd/status", "", None, 404),
        (Method::GET, "/v1/codexd/status", "", Some(("origin", "http://secret-value.example")), 403),
        (Method::GET, "/v1/codexd/events?limit=1", "", Some(("host", "secret-value.example")), 403),
    ];
    let mut responses = Vec::new();
    for (method, path, body, header, status) in &requests {
        let headers: Vec<_> = header.iter().copied().collect();
        let response = request(&daemon, method.clone(), path, &headers, *body).await;
        assert_eq!(response.status, *status, "{}", response.text);
        responses.push(response);
    }
    let mut found = wait_until("a line for each request", || {
        let mut lines = lines(&daemon);
        lines.retain(|line| number(line, "request") > first);
        (lines.len() >= requests.len()).then_some(lines)
    })
    .await;
    found.sort_by_key(|line| number(line, "request"));
    assert_eq!(found.len(), requests.len(), "{found:#?}");
    for ((line, (method, path, _, _, status)), response) in found.iter().zip(&requests).zip(&responses) {
        let path = path.split('?').next().unwrap();
        assert_eq!((line["method"].as_str(), line["path"].as_str()), (method.as_str(), path), "{line:?}");
        assert_eq!(number(line, "status"), u64::from(*status), "{line:?}");
        assert_eq!(number(line, "bytes"), response.text.len() as u64, "{line:?}");
        line["ms"].parse::<f64>().unwrap_or_else(|_| panic!("{line:?}"));
    }
    let created = responses[3].data(201)["session"]["sessionId"].as_str().unwrap();
    assert_eq!(found[3].get("session").map(String::as_str), Some(created), "{:?}", found[3]);
    assert!(!daemon.stderr().contains("secret-value"), "{}", daemon.stderr());
    let numbers: Vec<_> = lines(&daemon).iter().map(|line| number(line, "request")).collect();
    let mut distinct = numbers.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), numbers.len(), "two requests have the same number: {numbers:?}");
}

#[tokio::test]
async fn access_log_has_one_line_per_request_of_a_kept_alive_connection() {
    let daemon = builder().start().await;
    let mut connection = RawConnection::connect(&daemon).await;
    for path in ["/one", "/two", "/three"] {
        connection.send(head(&daemon, &format!("GET {path}"), "")).await;
        assert_eq!(connection.response().await.status, 404);
    }
    for path in ["/one", "/two", "/three"] {
        assert_eq!(lines_of_path(&daemon, path, 1).await.len(), 1);
    }
}

#[tokio::test]
async fn access_log_line_names_session_and_turn_of_the_request() {
    let daemon = builder().start().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "hello").await;
    wait_for_turn_end(&daemon, &session_id, &json!(turn_id)).await;
    let line = lines_of_path(&daemon, "/v1/codexd/turn", 1).await.remove(0);
    assert_eq!((line["method"].as_str(), line["status"].as_str()), ("POST", "202"));
    assert_eq!((&line["session"], &line["turn"]), (&session_id, &turn_id), "{line:?}");
    let events = daemon.events_on_disk();
    let types = turn_event_types(&events, &line["turn"]);
    assert!(types.contains(&"turn.accepted") && types.contains(&"app-server.turn.completed"), "{types:?}");

    let path = format!("/v1/codexd/sessions/{session_id}");
    get(&daemon, &path).await.data(200);
    assert_eq!(lines_of_path(&daemon, &path, 1).await[0]["session"], session_id);
    // The line of a request for an unknown session names no turn.
    post(&daemon, "/v1/codexd/turn", &json!({ "sessionId": "session-none", "input": "x" })).await;
    let line = lines_of_path(&daemon, "/v1/codexd/turn", 2).await.remove(1);
    assert_eq!(line["status"], "404");
    assert!(!line.contains_key("turn"), "{line:?}");
}

#[tokio::test]
async fn access_log_line_of_an_event_source_is_written_when_it_ends() {
    let daemon = builder().start().await;
    wait_until_ready(&daemon).await;
    let source = EventSource::connect(&daemon, &format!("{EVENTS_PATH}?type=secret-value"), None).await;
    get(&daemon, "/later").await.error(404, "not_found");
    lines_of_path(&daemon, "/later", 1).await;
    let about = |line: &Line| line["path"] == EVENTS_PATH;
    assert!(!lines(&daemon).iter().any(about), "there is a line before the stream ends");
    let mut source = source;
    source.block().await;
    drop(source);
    let line = lines_of_path(&daemon, EVENTS_PATH, 1).await.remove(0);
    assert_eq!(line["status"], "200");
    assert!(number(&line, "bytes") > 0, "{line:?}");
    assert!(!daemon.stderr().contains("secret-value"), "{}", daemon.stderr());
}

#[tokio::test]
async fn access_log_line_of_a_websocket_is_written_when_it_ends() {
    let daemon = builder().start().await;
    wait_until_ready(&daemon).await;
    let mut stream = EventStream::connect_to(&daemon, &format!("{EVENTS_PATH}?type=secret-value"), &[]).await;
    stream.hello().await;
    get(&daemon, "/later").await.error(404, "not_found");
    lines_of_path(&daemon, "/later", 1).await;
    assert!(
        !lines(&daemon).iter().any(|line| line["path"] == EVENTS_PATH),
        "there is a line before the stream ends"
    );
    drop(stream);
    let line = lines_of_path(&daemon, EVENTS_PATH, 1).await.remove(0);
    assert_eq!((line["method"].as_str(), line["status"].as_str()), ("GET", "101"));
    assert!(number(&line, "bytes") > 0, "{line:?}");
    assert!(!daemon.stderr().contains("secret-value"), "{}", daemon.stderr());

    // A refused handshake is logged like any other request.
    let mut connection = RawConnection::connect(&daemon).await;
    let lines = format!("{HANDSHAKE}Origin: http://foreign.example\r\n");
    connection.send(head(&daemon, &format!("GET {EVENTS_PATH}"), &lines)).await;
    connection.response().await.assert_error(403, "forbidden");
    assert_eq!(lines_of_path(&daemon, EVENTS_PATH, 2).await[1]["status"], "403");
}

#[tokio::test]
async fn access_log_has_lines_for_streams_closed_by_shutdown() {
    let mut daemon = builder().start().await;
    wait_until_ready(&daemon).await;
    let mut stream = EventStream::connect(&daemon).await;
    stream.hello().await;
    let mut source = EventSource::connect(&daemon, EVENTS_PATH, None).await;
    daemon.stop().await;
    stream.close_code().await;
    while source.next().await.is_some() {}
    let mut statuses: Vec<_> = lines_of_path(&daemon, EVENTS_PATH, 2).await.into_iter().collect();
    statuses.sort_by_key(|line| number(line, "status"));
    assert_eq!(statuses.iter().map(|line| line["status"].as_str()).collect::<Vec<_>>(), ["101", "200"]);
}

#[tokio::test]
async fn access_log_is_empty_at_level_warn() {
    let daemon = Daemon::builder().env("BAA_CODEXD_LOG", "warn").start().await;
    wait_until_ready(&daemon).await;
    let mut connection = RawConnection::connect(&daemon).await;
    connection
        .send(format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", daemon.authority()))
        .await;
    connection.read_to_end().await;
    assert_eq!(lines(&daemon), Vec::<Line>::new());
    assert!(!daemon.stderr().contains("/healthz"), "{}", daemon.stderr());
}
