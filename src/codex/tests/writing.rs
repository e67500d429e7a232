//! What is sent to the app-server.

use futures_util::StreamExt;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::io::AsyncReadExt;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;

use super::{Connection, until_idle};
use crate::codex::rpc::connection::WriterEnd;
use crate::codex::rpc::wire::RpcError;
use crate::codex::transport::{stdio, websocket};

#[tokio::test(start_paused = true)]
async fn error_response_returns_the_id_unchanged() {
    let mut connection = Connection::new();
    connection.client.notify("initialized");
    assert_eq!(connection.next_sent().await, json!({ "method": "initialized" }));
    for id in ["0", "18446744073709551615", "\"x\\u0041\""] {
        let id = RawValue::from_string(id.to_owned()).unwrap();
        connection
            .client
            .respond_error(&id, &RpcError { code: -32601, message: "no".to_owned(), data: None });
        let line = String::from_utf8(connection.sent.recv().await.unwrap()).unwrap();
        assert_eq!(line, format!("{{\"id\":{id},\"error\":{{\"code\":-32601,\"message\":\"no\"}}}}"));
    }
}

#[tokio::test(start_paused = true)]
async fn every_line_ends_with_a_newline_however_many_are_queued() {
    let Connection { client, sent, .. } = Connection::new();
    let (stdin, mut received) = tokio::io::duplex(64);
    let close = CancellationToken::new();
    let methods: Vec<_> = (0..5000).map(|number| format!("notification/{number}")).collect();
    for method in &methods {
        client.notify(method);
    }
    let writer = tokio::spawn(stdio::write(stdin, sent, close.clone()));
    let expected: String = methods.iter().map(|method| format!("{{\"method\":\"{method}\"}}\n")).collect();
    let mut text = vec![0; expected.len()];
    received.read_exact(&mut text).await.unwrap();
    assert!(text == expected.as_bytes(), "the lines differ from what was sent");
    close.cancel();
    assert_eq!(writer.await.unwrap(), WriterEnd::Closed);
    assert_eq!(received.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn child_that_does_not_read_does_not_keep_its_stdin_open() {
    let Connection { client, sent, .. } = Connection::new();
    let (stdin, mut received) = tokio::io::duplex(16);
    let close = CancellationToken::new();
    client.notify("longer than what the pipe holds");
    let writer = tokio::spawn(stdio::write(stdin, sent, close.clone()));
    until_idle().await;
    assert!(!writer.is_finished());
    close.cancel();
    assert_eq!(writer.await.unwrap(), WriterEnd::Closed);
    let mut text = Vec::new();
    received.read_to_end(&mut text).await.unwrap();
    assert_eq!(text.len(), 16);
}

#[tokio::test(start_paused = true)]
async fn child_that_closed_its_stdin_ends_the_writer() {
    let Connection { client, sent, .. } = Connection::new();
    let (stdin, received) = tokio::io::duplex(16);
    drop(received);
    client.notify("anything");
    let WriterEnd::Failed(reason) = stdio::write(stdin, sent, CancellationToken::new()).await else {
        panic!("it did not fail");
    };
    assert!(reason.starts_with("its stdin failed: "), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn websocket_that_is_not_read_can_be_closed() {
    let Connection { client, sent, .. } = Connection::new();
    let (stream, _never_read) = tokio::io::duplex(64);
    let stream: Box<dyn websocket::Stream> = Box::new(stream);
    let socket = WebSocketStream::from_raw_socket(MaybeTlsStream::Plain(stream), Role::Client, None).await;
    let (sink, _stream) = socket.split();
    let close = CancellationToken::new();
    let writer = tokio::spawn(websocket::write(sink, sent, close.clone()));
    for _ in 0..1000 {
        client.notify("more than the stream holds");
    }
    until_idle().await;
    assert!(!writer.is_finished());
    close.cancel();
    let WriterEnd::CloseFailed(reason) = writer.await.unwrap() else { panic!("it was closed in order") };
    assert_eq!(reason, "nothing was read within 250 ms");
}
