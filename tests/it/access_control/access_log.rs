//! What the daemon says about each request: one line, and nothing in it that is nobody's business.

use std::collections::HashMap;

use hyper::Method;
use serde_json::json;

use super::raw_connection::{HANDSHAKE, Wire, head};
use crate::api::{ended, ready, session, turn, types_of_turn};
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::http::{Target, get, post, request};
use crate::support::sse::EventSource;
use crate::support::wait::wait_until;
use crate::support::websocket::{EVENTS_PATH, EventStream};

/// The fields of a line, by their names.
type Line = HashMap<String, String>;

/// What every line about a request has.
const FIELDS: [&str; 6] = ["request", "method", "path", "status", "ms", "bytes"];

fn daemon() -> DaemonBuilder {
    Daemon::builder().env("BAA_CODEXD_LOG", "info")
}

/// The lines about requests so far, in their order.
fn lines(daemon: &Daemon) -> Vec<Line> {
    let stderr = daemon.stderr();
    let all = stderr.lines().filter(|line| line.contains(" INFO ")).map(fields);
    all.filter(|line| FIELDS.iter().all(|name| line.contains_key(*name))).collect()
}

/// The words of a line that have the form NAME=VALUE.
fn fields(line: &str) -> Line {
    let words = line.split_whitespace().filter_map(|word| word.split_once('='));
    words.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect()
}

/// The lines about this path, once there are so many of them.
async fn lines_about(daemon: &Daemon, path: &str, count: usize) -> Vec<Line> {
    let found = || lines(daemon).into_iter().filter(|line| line["path"] == path).collect::<Vec<_>>();
    wait_until(&format!("the line about {path}"), || Some(found()).filter(|lines| lines.len() >= count)).await
}

fn number(line: &Line, name: &str) -> u64 {
    line[name].parse().unwrap_or_else(|_| panic!("{name} of {line:?}"))
}

#[tokio::test]
async fn each_request_has_one_line() {
    let daemon = daemon().start().await;
    ready(&daemon).await;
    let earlier = lines(&daemon).len();
    let asked = [
        (Method::GET, "/healthz", "", None, 200),
        (Method::HEAD, "/healthz", "", None, 200),
        (Method::GET, "/nowhere/to/go?question=unheard", "", None, 404),
        (Method::POST, "/v1/codexd/sessions", "{}", None, 201),
        (Method::POST, "/v1/codexd/sessions?question=unheard", "no JSON", None, 400),
        (Method::GET, "/v1/codexd/sessions", "", None, 200),
        (Method::DELETE, "/v1/codexd/status", "", None, 404),
        (Method::GET, "/v1/codexd/status", "", Some(("origin", "http://unheard.example")), 403),
        (Method::GET, "/v1/codexd/events?limit=1", "", Some(("host", "unheard.example")), 403),
    ];
    let mut answers = Vec::new();
    for (method, path, body, header, status) in &asked {
        let headers: Vec<_> = header.iter().copied().collect();
        let answer = request(&daemon, method.clone(), path, &headers, *body).await;
        assert_eq!(answer.status, *status, "{}", answer.text);
        answers.push(answer);
    }
    let mut found = wait_until("all lines", || {
        let lines = lines(&daemon);
        (lines.len() >= earlier + asked.len()).then_some(lines)
    })
    .await
    .split_off(earlier);
    // Lines come when answers are over, and that may be later than the next request.
    found.sort_by_key(|line| number(line, "request"));
    assert_eq!(found.len(), asked.len(), "{found:#?}");
    for ((line, (method, path, _, _, status)), answer) in found.iter().zip(&asked).zip(&answers) {
        let path = path.split('?').next().unwrap();
        assert_eq!((line["method"].as_str(), line["path"].as_str()), (method.as_str(), path), "{line:?}");
        assert_eq!(number(line, "status"), u64::from(*status), "{line:?}");
        assert_eq!(number(line, "bytes"), answer.text.len() as u64, "{line:?}");
        line["ms"].parse::<f64>().unwrap_or_else(|_| panic!("{line:?}"));
    }
    let created = answers[3].data(201)["session"]["sessionId"].as_str().unwrap();
    assert_eq!(found[3].get("session").map(String::as_str), Some(created), "{:?}", found[3]);
    assert!(!daemon.stderr().contains("unheard"), "{}", daemon.stderr());
    let numbers: Vec<_> = lines(&daemon).iter().map(|line| number(line, "request")).collect();
    let mut distinct = numbers.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), numbers.len(), "a number stands for one request: {numbers:?}");
}

#[tokio::test]
async fn requests_of_one_connection_have_a_line_each() {
    let daemon = daemon().start().await;
    let mut wire = Wire::connect(&daemon).await;
    for path in ["/one", "/two", "/three"] {
        wire.send(head(&daemon, &format!("GET {path}"), "")).await;
        assert_eq!(wire.answer().await.status, 404);
    }
    for path in ["/one", "/two", "/three"] {
        assert_eq!(lines_about(&daemon, path, 1).await.len(), 1);
    }
}

#[tokio::test]
async fn a_turn_can_be_followed_from_its_request_to_its_end() {
    let daemon = daemon().start().await;
    let session_id = session(&daemon).await;
    let turn_id = turn(&daemon, &session_id, "hello").await;
    ended(&daemon, &session_id, &json!(turn_id)).await;
    let line = lines_about(&daemon, "/v1/codexd/turn", 1).await.remove(0);
    assert_eq!((line["method"].as_str(), line["status"].as_str()), ("POST", "202"));
    assert_eq!((&line["session"], &line["turn"]), (&session_id, &turn_id), "{line:?}");
    let events = daemon.events_on_disk();
    let types = types_of_turn(&events, &line["turn"]);
    assert!(types.contains(&"turn.accepted") && types.contains(&"app-server.turn.completed"), "{types:?}");

    let path = format!("/v1/codexd/sessions/{session_id}");
    get(&daemon, &path).await.data(200);
    assert_eq!(lines_about(&daemon, &path, 1).await[0]["session"], session_id);
    // A request that names no session that there is, is about none.
    post(&daemon, "/v1/codexd/turn", &json!({ "sessionId": "session-none", "input": "x" })).await;
    let line = lines_about(&daemon, "/v1/codexd/turn", 2).await.remove(1);
    assert_eq!(line["status"], "404");
    assert!(!line.contains_key("turn"), "{line:?}");
}

#[tokio::test]
async fn a_stream_has_its_line_when_it_ends() {
    let daemon = daemon().start().await;
    ready(&daemon).await;
    let source = EventSource::connect(&daemon, &format!("{EVENTS_PATH}?type=unheard"), None).await;
    get(&daemon, "/later").await.error(404, "not_found");
    lines_about(&daemon, "/later", 1).await;
    let about = |line: &Line| line["path"] == EVENTS_PATH;
    assert!(!lines(&daemon).iter().any(about), "it goes on");
    let mut source = source;
    source.block().await;
    drop(source);
    let line = lines_about(&daemon, EVENTS_PATH, 1).await.remove(0);
    assert_eq!(line["status"], "200");
    assert!(number(&line, "bytes") > 0, "{line:?}");
    assert!(!daemon.stderr().contains("unheard"), "{}", daemon.stderr());
}

#[tokio::test]
async fn a_websocket_has_its_line_when_it_ends() {
    let daemon = daemon().start().await;
    ready(&daemon).await;
    let mut stream = EventStream::connect_to(&daemon, &format!("{EVENTS_PATH}?type=unheard"), &[]).await;
    stream.hello().await;
    get(&daemon, "/later").await.error(404, "not_found");
    lines_about(&daemon, "/later", 1).await;
    assert!(!lines(&daemon).iter().any(|line| line["path"] == EVENTS_PATH), "it goes on");
    drop(stream);
    let line = lines_about(&daemon, EVENTS_PATH, 1).await.remove(0);
    assert_eq!((line["method"].as_str(), line["status"].as_str()), ("GET", "101"));
    assert!(number(&line, "bytes") > 0, "{line:?}");
    assert!(!daemon.stderr().contains("unheard"), "{}", daemon.stderr());

    // A handshake that is refused is an ordinary request.
    let mut wire = Wire::connect(&daemon).await;
    let lines = format!("{HANDSHAKE}Origin: http://elsewhere.example\r\n");
    wire.send(head(&daemon, &format!("GET {EVENTS_PATH}"), &lines)).await;
    wire.answer().await.assert_error(403, "forbidden");
    assert_eq!(lines_about(&daemon, EVENTS_PATH, 2).await[1]["status"], "403");
}

#[tokio::test]
async fn streams_that_a_stop_ends_have_their_lines_too() {
    let mut daemon = daemon().start().await;
    ready(&daemon).await;
    let mut stream = EventStream::connect(&daemon).await;
    stream.hello().await;
    let mut source = EventSource::connect(&daemon, EVENTS_PATH, None).await;
    daemon.stop().await;
    stream.close_code().await;
    while source.next().await.is_some() {}
    let mut statuses: Vec<_> = lines_about(&daemon, EVENTS_PATH, 2).await.into_iter().collect();
    statuses.sort_by_key(|line| number(line, "status"));
    assert_eq!(statuses.iter().map(|line| line["status"].as_str()).collect::<Vec<_>>(), ["101", "200"]);
}

#[tokio::test]
async fn who_wants_less_is_told_less() {
    let daemon = Daemon::builder().env("BAA_CODEXD_LOG", "warn").start().await;
    ready(&daemon).await;
    let mut wire = Wire::connect(&daemon).await;
    wire.send(format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", daemon.authority())).await;
    wire.rest().await;
    assert_eq!(lines(&daemon), Vec::<Line>::new());
    assert!(!daemon.stderr().contains("/healthz"), "{}", daemon.stderr());
}
