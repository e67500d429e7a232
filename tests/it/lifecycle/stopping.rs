//! Graceful and immediate stops of the daemon, and the cleanup of its processes.

use std::time::Instant;

use futures_util::future::join_all;
use hyper::header::RETRY_AFTER;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

use crate::api::{
    SESSIONS, TURN, assert_no_survivors, new_session, request_turn, start_daemon, start_turn, text, try_post,
    wait_for_event, wait_for_event_type, wait_until_not_ready, wait_until_ready,
};
use crate::support::daemon::{Daemon, Stopped};
use crate::support::http::{Target, get, get_text, post};
use crate::support::wait::wait_until_async;
use crate::support::websocket::{EVENTS_PATH, EventStream};

/// Asserts a graceful stop: exit code 0, `daemon.stopped` as the last event, and no process left.
fn assert_stopped(daemon: &Daemon, stopped: &Stopped) {
    assert!(stopped.status.success(), "{stopped:?}");
    let last = daemon.events_on_disk().pop().unwrap();
    assert_eq!((&last["type"], &last["message"]), (&json!("daemon.stopped"), &json!("codexd stopped.")));
    assert_no_survivors(daemon);
}

#[expect(
    clippy::print_stdout,
    reason = "the duration depends on the machine, so it is printed and not asserted"
)]
fn print(what: &str, stopped: &Stopped) {
    println!("{what}: {} ms", stopped.took.as_millis());
}

#[tokio::test]
async fn idle_daemon_stops_on_sigterm() {
    let mut daemon = start_daemon().await;
    wait_until_ready(&daemon).await;
    let stopped = daemon.stop().await;
    print("stop when idle", &stopped);
    assert_stopped(&daemon, &stopped);
    let exited = wait_for_event_type(&daemon, "child.exited").await;
    assert_eq!((&exited["level"], &exited["detail"]["code"]), (&json!("info"), &json!(0)));
    assert_eq!(exited["message"], "Codex child exited.");
    let events = daemon.events_on_disk();
    assert!(!events.iter().any(|event| event["type"] == "app-server.transport.closed"), "{events:?}");
}

#[tokio::test]
async fn sigint_and_sighup_stop_like_sigterm() {
    for signal in [Signal::INT, Signal::HUP] {
        let mut daemon = start_daemon().await;
        wait_until_ready(&daemon).await;
        daemon.signal(signal);
        let status = daemon.exited().await;
        assert!(status.success(), "{status}");
        assert_eq!(daemon.events_on_disk().pop().unwrap()["type"], "daemon.stopped");
        assert_no_survivors(&daemon);
    }
}

#[tokio::test]
async fn stop_interrupts_a_running_turn() {
    let mut daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "hang").await;
    wait_for_event_type(&daemon, "app-server.turn.started").await;
    let stopped = daemon.stop().await;
    assert_stopped(&daemon, &stopped);
    let completed = wait_for_event_type(&daemon, "app-server.turn.completed").await;
    assert_eq!(completed["detail"]["turnId"], turn_id);
    assert_eq!(completed["detail"]["status"], "interrupted");
    let events = daemon.events_on_disk();
    assert!(!events.iter().any(|event| event["type"] == "app-server.turn.completed.missing"));
}

#[tokio::test]
async fn stop_under_load_keeps_acknowledged_turns() {
    let mut daemon = start_daemon().await;
    let streaming = new_session(&daemon).await;
    let mut session_ids = Vec::new();
    for _ in 0..8 {
        session_ids.push(new_session(&daemon).await);
    }
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut events = EventStream::connect(&daemon).await;
        streams.push(tokio::spawn(async move { events.close_code().await }));
    }
    let mut accepted = vec![start_turn(&daemon, &streaming, "deltas=1000000 delay=1").await];
    wait_for_event_type(&daemon, "app-server.turn.message.delta").await;
    let base = daemon.base_url().to_owned();
    // Each client sends requests until the daemon no longer responds.
    let clients = session_ids.into_iter().map(|session_id| {
        let base = base.clone();
        tokio::spawn(async move {
            let mut accepted = Vec::new();
            let body = json!({ "sessionId": session_id, "input": "deltas=3" });
            while let Some((status, response)) = try_post(&base, TURN, &body).await {
                match (status, response["error"].as_str()) {
                    (202, _) => accepted.push(text(&response["data"]["turnId"])),
                    (409, Some("turn_in_progress")) => {}
                    (503, Some("shutting_down" | "app_server_unavailable")) => break,
                    other => panic!("{other:?}: {response}"),
                }
            }
            accepted
        })
    });
    let clients: Vec<_> = clients.collect();
    wait_for_event(&daemon, "turns of the clients", |event| {
        event["type"] == "turn.accepted" && event["detail"]["sessionId"] != streaming
    })
    .await;
    let stopped = daemon.stop().await;
    print("stop under load", &stopped);
    assert_stopped(&daemon, &stopped);
    for client in join_all(clients).await {
        accepted.extend(client.unwrap());
    }
    let events = daemon.events_on_disk();
    let logged: Vec<&Value> = events
        .iter()
        .filter(|event| event["type"] == "turn.accepted")
        .map(|event| &event["detail"]["turnId"])
        .collect();
    for turn_id in &accepted {
        assert!(logged.contains(&&json!(turn_id)), "turn {turn_id} was acknowledged and is not in the log");
    }
    for stream in join_all(streams).await {
        assert_eq!(stream.unwrap(), 1001);
    }
}

#[tokio::test]
async fn stop_does_not_wait_for_non_reading_websocket_clients() {
    const LIMIT: u64 = 8;
    let builder = Daemon::builder().arg("--client-timeout").arg(LIMIT.to_string());
    let mut daemon = builder.arg("--ping-interval").arg("3600").start().await;
    wait_until_ready(&daemon).await;
    let session_id = new_session(&daemon).await;
    let clients = [(); 3].map(|()| EventStream::connect_with_receive_buffer(&daemon, EVENTS_PATH, 4096));
    let clients = join_all(clients).await;
    start_turn(&daemon, &session_id, "deltas=200 chars=20000").await;
    wait_for_event_type(&daemon, "app-server.turn.completed").await;
    // The daemon closes them as too slow; the close frame is queued behind the data that they do not read.
    wait_until_async("clients in the closing state", async || {
        let page = get_text(&daemon, "/metrics", &[], "text/plain; version=0.0.4; charset=utf-8").await;
        let has_no_subscriber =
            page.lines().any(|line| line == "codexd_event_stream_clients{form=\"websocket\"} 0");
        let are_open = get(&daemon, "/healthz").await.json["service"]["websocketClients"] == clients.len();
        (has_no_subscriber && are_open).then_some(())
    })
    .await;
    let stopped = daemon.stop().await;
    print("stop with non-reading clients", &stopped);
    assert_stopped(&daemon, &stopped);
    assert!(stopped.took.as_secs() < LIMIT - 1, "{stopped:?}");
}

#[tokio::test]
async fn stop_does_not_wait_for_slow_or_waiting_clients() {
    let mut daemon = Daemon::builder().arg("--client-timeout").arg("3600").start().await;
    wait_until_ready(&daemon).await;
    let session_id = new_session(&daemon).await;
    let host = format!("Host: {}", daemon.authority());
    let hang = json!({ "sessionId": session_id, "input": "hang" }).to_string();
    let mut clients = Vec::new();
    for request in [
        format!("GET {EVENTS_PATH}?after=0 HTTP/1.1\r\n{host}\r\nAccept: text/event-stream\r\n\r\n"),
        format!("POST {TURN}?wait=3600 HTTP/1.1\r\n{host}\r\nContent-Length: {}\r\n\r\n{hang}", hang.len()),
        format!("POST {TURN} HTTP/1.1\r\n{host}\r\nContent-Length: 1000\r\n\r\n{{"),
        format!("GET {SESSIONS} HTTP/1.1\r\n"),
    ] {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut client = socket.connect(daemon.authority().parse().unwrap()).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        clients.push(client);
    }
    wait_for_event_type(&daemon, "app-server.turn.started").await;
    let other = new_session(&daemon).await;
    start_turn(&daemon, &other, "deltas=200 chars=20000").await;
    wait_for_event_type(&daemon, "app-server.turn.completed").await;
    let stopped = daemon.stop().await;
    print("stop with slow clients", &stopped);
    assert_stopped(&daemon, &stopped);
    assert!(stopped.took.as_secs() < 20, "{stopped:?}");
    drop(clients);
}

/// Starts a daemon whose child ignores the end of stdin and SIGTERM, and sends SIGTERM to the daemon.
async fn stopping_with_unresponsive_child() -> Daemon {
    let daemon = Daemon::builder().startup("ignore-eof ignore-term").start().await;
    wait_until_ready(&daemon).await;
    daemon.signal(Signal::TERM);
    wait_until_not_ready(&daemon, "codexd is stopping.").await;
    daemon
}

#[tokio::test]
async fn second_signal_kills_unresponsive_child_immediately() {
    let mut daemon = stopping_with_unresponsive_child().await;
    let signaled = Instant::now();
    daemon.signal(Signal::TERM);
    let status = daemon.exited().await;
    let stopped = Stopped { status, took: signaled.elapsed() };
    print("immediate stop", &stopped);
    assert_stopped(&daemon, &stopped);
    // Without the second signal the stop would wait twice for four seconds.
    assert!(stopped.took.as_secs() < 7, "{stopped:?}");
    let exited = wait_for_event_type(&daemon, "child.exited").await;
    assert_eq!((&exited["detail"]["signal"], &exited["detail"]["code"]), (&json!("SIGKILL"), &Value::Null));
}

#[tokio::test]
async fn stopping_daemon_rejects_new_work_and_serves_reads() {
    let mut daemon = stopping_with_unresponsive_child().await;
    for (path, body) in [(SESSIONS, json!({})), (TURN, json!({ "sessionId": "x", "input": "x" }))] {
        let response = post(&daemon, path, &body).await;
        response.error(503, "shutting_down");
        assert!(response.headers.get(RETRY_AFTER).is_some(), "no Retry-After: {}", response.text);
    }
    assert_eq!(get(&daemon, SESSIONS).await.status, 200);
    daemon.signal(Signal::INT);
    assert!(daemon.exited().await.success());
}

#[tokio::test]
async fn stop_ends_child_that_never_initialized() {
    let mut daemon = Daemon::builder().startup("hang-initialize").start().await;
    wait_for_event_type(&daemon, "child.started").await;
    let stopped = daemon.stop().await;
    assert_stopped(&daemon, &stopped);
}

#[tokio::test]
async fn second_signal_ends_child_that_reads_nothing() {
    let mut daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "hang stop-reading").await;
    daemon.signal(Signal::TERM);
    daemon.signal(Signal::INT);
    let status = daemon.exited().await;
    assert!(status.success(), "{status}");
    assert_no_survivors(&daemon);
    assert_eq!(daemon.events_on_disk().pop().unwrap()["type"], "daemon.stopped");
}

#[tokio::test]
async fn stop_ends_all_processes_started_by_turns() {
    for prompt in ["spawn=300", "spawn-background=300 hang", "spawn-background=300"] {
        let mut daemon = start_daemon().await;
        let session_id = new_session(&daemon).await;
        let turn_id = request_turn(&daemon, &session_id, prompt).await.data(202)["turnId"].clone();
        wait_for_event(&daemon, "the process", |event| {
            let item = &event["detail"]["params"]["item"];
            event["detail"]["params"]["turnId"] == turn_id && item["type"] == "commandExecution"
        })
        .await;
        let stopped = daemon.stop().await;
        assert_stopped(&daemon, &stopped);
    }
}

#[tokio::test]
async fn stop_ends_processes_of_a_killed_app_server() {
    let mut daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "spawn-background=300 kill").await;
    wait_for_event_type(&daemon, "child.exited").await;
    let stopped = daemon.stop().await;
    assert_stopped(&daemon, &stopped);
}

#[tokio::test]
async fn stop_ends_reparented_processes() {
    let mut daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "spawn-double=300").await;
    wait_for_event_type(&daemon, "app-server.turn.completed").await;
    let stopped = daemon.stop().await;
    assert_stopped(&daemon, &stopped);
}
