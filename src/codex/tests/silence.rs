//! The liveness check.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{CALL_TIMEOUT, Connection, until_idle};
use crate::codex::rpc::liveness;

const INTERVAL: Duration = Duration::from_secs(30);

/// Runs the liveness check; ends when the connection counts as unresponsive.
fn watch(connection: &Connection) -> JoinHandle<String> {
    let (client, last_received) = (connection.client.clone(), connection.last_received.clone());
    tokio::spawn(async move { liveness::wait_until_unresponsive(&client, &last_received, INTERVAL).await })
}

#[tokio::test(start_paused = true)]
async fn silent_connection_is_probed_twice_before_it_counts_as_gone() {
    let mut connection = Connection::new();
    let began = Instant::now();
    let watch = watch(&connection);
    for at in [30, 40] {
        connection.next_call("thread/loaded/list").await;
        assert_eq!(began.elapsed().as_secs(), at);
    }
    assert!(watch.await.unwrap().contains("nothing was received for 50 s"));
    assert_eq!(began.elapsed().as_secs(), 50);
}

#[tokio::test(start_paused = true)]
async fn error_and_late_responses_count_as_alive() {
    let mut connection = Connection::new();
    let began = Instant::now();
    let watch = watch(&connection);
    let id = connection.next_call("thread/loaded/list").await;
    connection.receive(format!("{{\"error\":{{\"code\":-32600,\"message\":\"no\"}},\"id\":{id}}}\n")).await;
    let late = connection.next_call("thread/loaded/list").await;
    assert_eq!(began.elapsed().as_secs(), 60);
    connection.next_call("thread/loaded/list").await;
    // The response to the first probe arrives while the second one is pending.
    connection.respond(late, "{}").await;
    connection.next_call("thread/loaded/list").await;
    assert_eq!(began.elapsed().as_secs(), 100);
    assert!(!watch.is_finished());
    watch.abort();
}

#[tokio::test(start_paused = true)]
async fn active_connection_is_not_probed() {
    let mut connection = Connection::new();
    let watch = watch(&connection);
    for _ in 0..10 {
        tokio::time::sleep(INTERVAL - Duration::from_secs(1)).await;
        connection.receive(b"{\"method\":\"a\"}\n").await;
    }
    assert!(connection.sent.try_recv().is_err());
    // While the reader is paused, silence means nothing.
    connection.backlog.add(usize::MAX / 2);
    connection.receive(b"{\"method\":\"a\"}\n").await;
    tokio::time::sleep(INTERVAL * 10).await;
    assert!(connection.sent.try_recv().is_err());
    watch.abort();
}

#[tokio::test(start_paused = true)]
async fn probe_ignores_the_in_flight_limit() {
    let mut connection = Connection::new();
    for _ in 0..200 {
        let client = connection.client.clone();
        tokio::spawn(async move { client.call("slow", &json!({}), CALL_TIMEOUT).await.is_ok() });
    }
    until_idle().await;
    for _ in 0..64 {
        connection.next_call("slow").await;
    }
    let watch = watch(&connection);
    let id = connection.next_call("thread/loaded/list").await;
    connection.respond(id, "{}").await;
    assert!(!watch.is_finished());
    watch.abort();
}

#[tokio::test(start_paused = true)]
async fn liveness_check_does_not_report_the_end_of_the_connection() {
    let connection = Connection::new();
    let watch = watch(&connection);
    connection.pending.close("it ended");
    tokio::time::sleep(INTERVAL * 5).await;
    assert!(!watch.is_finished());
    watch.abort();
}
