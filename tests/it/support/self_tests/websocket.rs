//! Which messages the client of the event stream accepts, and which it rejects.

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::support::websocket::EventStream;

const HELLO: &str = r#"{"type":"hello","cursor":"e-0","recentEvents":[],"service":{},"snapshot":{}}"#;

/// Starts a server that sends these lines, answers one message with an event and a pong, and closes the connection.
async fn server(lines: &[&str]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let lines: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = accept_async(stream).await.unwrap();
        for line in lines {
            socket.send(Message::text(line)).await.unwrap();
        }
        socket.next().await.unwrap().unwrap();
        socket.send(Message::text(event(8) + "\n")).await.unwrap();
        socket.send(Message::text("{\"type\":\"pong\"}\n")).await.unwrap();
        let frame = CloseFrame { code: CloseCode::Away, reason: "stopping".into() };
        socket.close(Some(frame)).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
    });
    base_url
}

fn event(seq: u64) -> String {
    json!({ "type": "event", "event": { "seq": seq, "type": "test" } }).to_string()
}

#[tokio::test]
async fn event_stream_accepts_conforming_messages() {
    let base = server(&[HELLO, &event(3), &event(4), &event(6), &event(7)]).await;
    let mut stream = EventStream::connect(base.as_str()).await;
    assert_eq!(stream.hello().await["type"], "hello");
    assert_eq!(stream.next_event().await["seq"], 3);
    assert_eq!(stream.wait_for("the event 6", |event| event["seq"] == 6).await["seq"], 6);
    assert_eq!(stream.ask(&json!({ "type": "ping" })).await["type"], "pong");
    assert_eq!(stream.close_code().await, 1001);
}

#[tokio::test]
async fn event_stream_collects_all_events_until_match() {
    let base = server(&[HELLO, &event(3), &event(4), &event(6)]).await;
    let mut stream = EventStream::connect_to(base.as_str(), "/other?since=2", &[("x-test", "yes")]).await;
    let events = stream.collect_until("the event 6", |event| event["seq"] == 6).await;
    assert_eq!(events.len(), 3);
    stream.send(Message::binary(vec![0])).await;
    assert_eq!(stream.next_event().await["seq"], 8);
}

#[tokio::test]
async fn event_stream_rejects_nonconforming_messages() {
    for lines in
        [[HELLO, &event(3), &event(3)], [HELLO, &event(3), &event(2)], [HELLO, "{}", ""], [HELLO, "no", ""]]
    {
        let base = server(&lines).await;
        let read = tokio::spawn(async move {
            let mut stream = EventStream::connect(base.as_str()).await;
            stream.hello().await;
            stream.next_event().await;
            stream.next_event().await;
        });
        assert!(read.await.is_err(), "the client accepted {lines:?}");
    }
    // If the stream ends while the test waits for an event, the test fails at once.
    let base = server(&[&event(1)]).await;
    let read = tokio::spawn(async move {
        let mut stream = EventStream::connect(base.as_str()).await;
        stream.send(Message::text("{}")).await;
        stream.wait_for("an event that never comes", |event| event["seq"] == 100).await;
    });
    assert!(read.await.is_err());
}
