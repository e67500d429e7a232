//! The values of the metrics after the events that they count.

use hyper::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{METRICS, Samples, parse, samples, value, wait_for};
use crate::api::{
    SESSIONS, STATUS, TURN, create_session, new_session, start_daemon, start_turn, text, wait_for_event_type,
    wait_until_idle, wait_until_ready,
};
use crate::support::daemon::Daemon;
use crate::support::http::{Target, get, post, raw, request};
use crate::support::sse::EventSource;
use crate::support::wait::wait_until_async;
use crate::support::websocket::{EVENTS_PATH, EventStream};

/// Returns the number of turns with this outcome.
fn turns(samples: &Samples, outcome: &str) -> f64 {
    value(samples, &format!("codexd_turn_duration_seconds_count{{outcome=\"{outcome}\"}}"))
}

/// Returns the number of turns for each outcome.
fn outcomes(samples: &Samples) -> [f64; 4] {
    ["completed", "interrupted", "failed", "other"].map(|outcome| turns(samples, outcome))
}

#[tokio::test]
async fn turn_metrics_count_outcomes() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let before = samples(&daemon).await;
    assert_eq!(outcomes(&before), [0.0; 4]);
    start_turn(&daemon, &session_id, "deltas=3 delay=300").await;
    wait_until_idle(&daemon, &session_id).await;
    let completed = samples(&daemon).await;
    assert_eq!(outcomes(&completed), [1.0, 0.0, 0.0, 0.0]);
    // There are two delays between three deltas.
    let took = value(&completed, "codexd_turn_duration_seconds_sum{outcome=\"completed\"}");
    assert!(took >= 0.3, "{took}");
    start_turn(&daemon, &session_id, "fail").await;
    wait_until_idle(&daemon, &session_id).await;
    assert_eq!(outcomes(&samples(&daemon).await), [1.0, 0.0, 1.0, 0.0]);
    start_turn(&daemon, &session_id, "hang").await;
    let running = samples(&daemon).await;
    assert_eq!(value(&running, "codexd_turns_running"), 1.0);
    let queued = json!({ "sessionId": session_id, "input": "hello", "whenBusy": "queue" });
    assert_eq!(post(&daemon, TURN, &queued).await.status, 202);
    assert_eq!(value(&samples(&daemon).await, "codexd_turns_queued"), 1.0);
    let interrupted = post(&daemon, &format!("{TURN}/interrupt"), &json!({ "sessionId": session_id })).await;
    assert_eq!(interrupted.status, 202, "{}", interrupted.text);
    // A turn may end between reading the gauges and reading the histogram.
    let after = wait_for(&daemon, "the queued turn to end", |now| {
        let gauges = ["codexd_turns_running", "codexd_turns_queued"].map(|gauge| value(now, gauge));
        turns(now, "completed") == 2.0 && gauges == [0.0; 2]
    })
    .await;
    assert_eq!(outcomes(&after), [2.0, 1.0, 1.0, 0.0]);
}

#[tokio::test]
async fn app_server_sigkill_counts_one_restart_and_one_failed_turn() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let before = samples(&daemon).await;
    assert_eq!(value(&before, "codexd_child_restarts_total"), 0.0);
    assert_eq!(value(&before, "codexd_child_state{state=\"running\"}"), 1.0);
    assert_eq!(value(&before, "codexd_ready"), 1.0);
    start_turn(&daemon, &session_id, "hang").await;
    let pid = get(&daemon, STATUS).await.data(200)["snapshot"]["daemon"]["child"]["pid"].as_i64().unwrap();
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
    wait_for_event_type(&daemon, "child.backoff").await;
    wait_until_ready(&daemon).await;
    let after = samples(&daemon).await;
    assert_eq!(value(&after, "codexd_child_restarts_total"), 1.0);
    assert_eq!(turns(&after, "failed"), 1.0);
    assert_eq!(value(&after, "codexd_ready"), 1.0);
}

#[tokio::test]
async fn child_state_metric_has_exactly_one_active_state() {
    let daemon = Daemon::builder().server("/nowhere/codex", &["app-server"]).start().await;
    let now = wait_for(&daemon, "the backoff state", |now| {
        value(now, "codexd_child_state{state=\"backoff\"}") == 1.0
            && value(now, "codexd_child_restarts_total") >= 1.0
    })
    .await;
    let states = now.iter().filter(|(name, _)| name.starts_with("codexd_child_state"));
    assert_eq!(states.map(|(_, value)| value).sum::<f64>(), 1.0, "{now:#?}");
    assert_eq!(value(&now, "codexd_ready"), 0.0);
    assert!(!now.contains_key("codexd_child_resident_memory_bytes"), "no child runs");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn child_memory_metric_includes_descendants() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let memory = |samples: &Samples| value(samples, "codexd_child_resident_memory_bytes");
    let before = samples(&daemon).await;
    let own = value(&before, "process_resident_memory_bytes");
    assert!((1e6..1e9).contains(&own) && (1e5..1e9).contains(&memory(&before)), "{before:#?}");
    let child = get(&daemon, STATUS).await.data(200)["snapshot"]["daemon"]["child"]["pid"].clone();
    start_turn(&daemon, &session_id, "spawn-background=300 hang").await;
    wait_for(&daemon, "more memory than the app-server alone", |now| {
        let alone = std::fs::read_to_string(format!("/proc/{child}/status")).unwrap();
        let alone = alone.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim();
        let alone: f64 = alone.strip_suffix(" kB").unwrap().parse().unwrap();
        memory(now) > alone * 1024.0 + 100e3
    })
    .await;
}

#[tokio::test]
async fn waiting_requests_metric_drops_after_response() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "ask=command").await;
    let opened = wait_for_event_type(&daemon, "request.opened").await;
    // An event is on disk a moment before it changes the records.
    wait_for(&daemon, "the request", |now| value(now, "codexd_requests_waiting") == 1.0).await;
    let path = format!("/v1/codexd/requests/{}", text(&opened["detail"]["requestId"]));
    let answered = post(&daemon, &path, &json!({ "decision": "accept" })).await;
    assert_eq!(answered.status, 200, "{}", answered.text);
    assert_eq!(value(&samples(&daemon).await, "codexd_requests_waiting"), 0.0);
}

#[tokio::test]
async fn event_metrics_match_the_log() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "deltas=100").await;
    wait_until_idle(&daemon, &session_id).await;
    // Further events may follow the end of a turn.
    let now = wait_for(&daemon, "the metrics to match the log", |now| {
        let log = std::fs::read(daemon.logs_dir().join("events.jsonl")).unwrap();
        let lines = memchr::memchr_iter(b'\n', &log).count();
        let counted = (value(now, "codexd_events_total"), value(now, "codexd_event_bytes_total"));
        counted == (lines as f64, log.len() as f64)
    })
    .await;
    assert!(value(&now, "codexd_events_total") > 100.0, "{now:#?}");
    // The session and the turn were acknowledged after a sync.
    assert!(value(&now, "codexd_event_log_sync_duration_seconds_count") >= 2.0, "{now:#?}");
    assert_eq!(value(&now, "codexd_event_log_failing"), 0.0);
}

#[tokio::test]
async fn session_and_http_request_metrics_count() {
    let daemon = start_daemon().await;
    wait_until_ready(&daemon).await;
    let before = samples(&daemon).await;
    let closed = text(&create_session(&daemon, json!({})).await["sessionId"]);
    create_session(&daemon, json!({})).await;
    get(&daemon, "/nowhere").await.error(404, "not_found");
    assert_eq!(request(&daemon, Method::DELETE, &format!("{SESSIONS}/{closed}"), &[], "").await.status, 200);
    let after = samples(&daemon).await;
    assert_eq!(value(&after, "codexd_sessions{status=\"active\"}"), 1.0);
    assert_eq!(value(&after, "codexd_sessions{status=\"closed\"}"), 1.0);
    let more = |class: &str| {
        let name = format!("codexd_http_requests_total{{status=\"{class}\"}}");
        value(&after, &name) - value(&before, &name)
    };
    // Three requests of the test and the first request for the metrics.
    assert_eq!((more("2xx"), more("4xx"), more("5xx")), (4.0, 1.0, 0.0));
    assert!(value(&after, "codexd_connections") >= 1.0);
    let limit = value(&after, "codexd_connections_limit");
    assert!((256.0..=1024.0).contains(&limit), "{limit}");
}

#[tokio::test]
async fn event_stream_lag_metric_counts_non_reading_clients() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let clients = |samples: &Samples| {
        ["websocket", "sse"]
            .map(|form| value(samples, &format!("codexd_event_stream_clients{{form=\"{form}\"}}")))
    };
    let behind = |samples: &Samples| value(samples, "codexd_event_stream_behind_events");
    assert_eq!(clients(&samples(&daemon).await), [0.0, 0.0]);
    let mut source = EventSource::connect(&daemon, EVENTS_PATH, None).await;
    let mut stream = EventStream::connect(&daemon).await;
    stream.hello().await;
    wait_for(&daemon, "both clients to be counted", |now| clients(now) == [1.0, 1.0] && behind(now) == 0.0)
        .await;
    // Far more than the buffers between the daemon and a client hold.
    let turn_id = start_turn(&daemon, &session_id, "deltas=2000 chars=10000").await;
    wait_for(&daemon, "the non-reading clients to fall behind", |now| behind(now) > 500.0).await;
    let ends = |event: &serde_json::Value| {
        event["type"] == "app-server.turn.completed" && event["detail"]["turnId"] == turn_id.as_str()
    };
    stream.wait_for("the end of the turn", ends).await;
    while !ends(&source.next_event().await) {}
    // The clients have read all events, so the daemon has passed on the last one and the lag returns to 0.
    wait_for(&daemon, "both clients to catch up", |now| clients(now) == [1.0, 1.0] && behind(now) == 0.0)
        .await;
    drop((source, stream));
    wait_for(&daemon, "both clients to disconnect", |now| clients(now) == [0.0, 0.0] && behind(now) == 0.0)
        .await;
}

#[tokio::test]
async fn rejected_connections_metric_counts_overload() {
    let daemon = Daemon::builder().arg("--connection-limit").arg("2").start().await;
    // Both streams hold a connection slot that is never evicted.
    let mut streams = [EventStream::connect(&daemon).await, EventStream::connect(&daemon).await];
    for stream in &mut streams {
        stream.hello().await;
    }
    get(&daemon, "/healthz").await.error(503, "overloaded");
    drop(streams);
    let now = wait_until_async("a free connection slot", async || {
        let body = get_body(&daemon, METRICS).await?;
        body.starts_with("# HELP").then(|| parse(&body))
    })
    .await;
    // Requests that were rejected while the streams were closing are counted too.
    assert!(value(&now, "codexd_connections_turned_away_total") >= 1.0, "{now:#?}");
    assert_eq!(value(&now, "codexd_connections_limit"), 2.0);
}

/// Sends a GET and returns the body without checking the response; `None` when the connection ends before.
async fn get_body(daemon: &Daemon, path: &str) -> Option<String> {
    let head = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", daemon.authority());
    let response = raw(daemon, head.as_bytes()).await;
    response.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}
