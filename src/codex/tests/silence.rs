//! Whether one that says nothing is still there.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Connection, PATIENCE, until_idle};
use crate::codex::rpc::liveness;

const INTERVAL: Duration = Duration::from_secs(30);

/// Watches over the connection; ends when it counts as gone.
fn watch(connection: &Connection) -> JoinHandle<String> {
    let (client, pulse) = (connection.client.clone(), connection.pulse.clone());
    tokio::spawn(async move { liveness::gone(&client, &pulse, INTERVAL).await })
}

#[tokio::test(start_paused = true)]
async fn silence_is_asked_about_twice_and_then_it_is_gone() {
    let mut connection = Connection::new();
    let began = Instant::now();
    let watch = watch(&connection);
    for at in [30, 40] {
        connection.next_call("thread/loaded/list").await;
        assert_eq!(began.elapsed().as_secs(), at);
    }
    assert!(watch.await.unwrap().contains("nothing was heard for 50 s"));
    assert_eq!(began.elapsed().as_secs(), 50);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_an_answer_and_so_is_a_late_one() {
    let mut connection = Connection::new();
    let began = Instant::now();
    let watch = watch(&connection);
    let id = connection.next_call("thread/loaded/list").await;
    connection.hear(format!("{{\"error\":{{\"code\":-32600,\"message\":\"no\"}},\"id\":{id}}}\n")).await;
    let late = connection.next_call("thread/loaded/list").await;
    assert_eq!(began.elapsed().as_secs(), 60);
    connection.next_call("thread/loaded/list").await;
    // The answer to the first question comes while the second one waits.
    connection.answer(late, "{}").await;
    connection.next_call("thread/loaded/list").await;
    assert_eq!(began.elapsed().as_secs(), 100);
    assert!(!watch.is_finished());
    watch.abort();
}

#[tokio::test(start_paused = true)]
async fn one_that_talks_is_not_asked() {
    let mut connection = Connection::new();
    let watch = watch(&connection);
    for _ in 0..10 {
        tokio::time::sleep(INTERVAL - Duration::from_secs(1)).await;
        connection.hear(b"{\"method\":\"a\"}\n").await;
    }
    assert!(connection.said.try_recv().is_err());
    // As long as nobody listens, silence means nothing.
    connection.backlog.add(usize::MAX / 2);
    connection.hear(b"{\"method\":\"a\"}\n").await;
    tokio::time::sleep(INTERVAL * 10).await;
    assert!(connection.said.try_recv().is_err());
    watch.abort();
}

#[tokio::test(start_paused = true)]
async fn a_question_waits_for_no_place_among_the_calls() {
    let mut connection = Connection::new();
    for _ in 0..200 {
        let client = connection.client.clone();
        tokio::spawn(async move { client.call("slow", &json!({}), PATIENCE).await.is_ok() });
    }
    until_idle().await;
    for _ in 0..64 {
        connection.next_call("slow").await;
    }
    let watch = watch(&connection);
    let id = connection.next_call("thread/loaded/list").await;
    connection.answer(id, "{}").await;
    assert!(!watch.is_finished());
    watch.abort();
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_connection_is_not_its_to_tell() {
    let connection = Connection::new();
    let watch = watch(&connection);
    connection.pending.close("it ended");
    tokio::time::sleep(INTERVAL * 5).await;
    assert!(!watch.is_finished());
    watch.abort();
}
