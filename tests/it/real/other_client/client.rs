//! A scripted client of an app-server's control socket.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::support::codex::CodexHome;
use crate::support::wait::wait_until;

/// A client; it is disconnected when dropped.
pub(crate) struct Client {
    received: Arc<Mutex<Vec<Value>>>,
    sender: mpsc::UnboundedSender<Value>,
    last_id: AtomicU64,
}

/// The socket of the app-server of a home; Codex puts it where its path is short, behind a link.
pub(crate) fn control_socket(home: &CodexHome) -> PathBuf {
    fs::read_link(home.path().join("app-server-control/app-server-control.sock")).unwrap()
}

/// Opens a WebSocket at the control socket of a home.
pub(super) async fn connect(home: &CodexHome) -> WebSocketStream<UnixStream> {
    let stream = UnixStream::connect(control_socket(home)).await.unwrap();
    client_async("ws://localhost/", stream).await.unwrap().0
}

impl Client {
    /// Connects to the app-server of a home.
    pub(crate) async fn connect(home: &CodexHome) -> Self {
        let (mut sink, mut stream) = connect(home).await.split();
        let (sender, mut outgoing) = mpsc::unbounded_channel::<Value>();
        tokio::spawn(async move {
            while let Some(message) = outgoing.recv().await {
                if sink.send(Message::text(message.to_string())).await.is_err() {
                    return;
                }
            }
            let _ = sink.close().await;
        });
        let received = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&received);
        tokio::spawn(async move {
            while let Some(Ok(message)) = stream.next().await {
                if let Message::Text(text) = message {
                    log.lock().unwrap().push(serde_json::from_str(&text).unwrap());
                }
            }
        });
        let client = Self { received, sender, last_id: AtomicU64::new(0) };
        let info = json!({ "name": "other-client", "title": null, "version": "1" });
        let params = json!({ "clientInfo": info, "capabilities": { "experimentalApi": true } });
        client.call("initialize", params).await.unwrap();
        client.sender.send(json!({ "method": "initialized" })).unwrap();
        client
    }

    /// Calls a method; returns its result or its error.
    pub(crate) async fn call(&self, method: &str, params: Value) -> Result<Value, Value> {
        let id = json!(self.last_id.fetch_add(1, Ordering::Relaxed) + 1);
        self.sender.send(json!({ "id": id, "method": method, "params": params })).unwrap();
        let is_response = |message: &Value| message["id"] == id && message.get("method").is_none();
        let response = self.wait_for(&format!("the response to {method}"), is_response).await;
        match response.get("error") {
            Some(error) => Err(error.clone()),
            None => Ok(response["result"].clone()),
        }
    }

    /// Starts a turn; returns its ID.
    pub(crate) async fn start_turn(&self, thread_id: &Value, prompt: &str) -> String {
        let input = json!([{ "type": "text", "text": prompt, "text_elements": [] }]);
        let params = json!({ "threadId": thread_id, "input": input });
        let started = self.call("turn/start", params).await.unwrap();
        started["turn"]["id"].as_str().unwrap().to_owned()
    }

    /// Waits for a request or a notification of the app-server about this turn.
    pub(crate) async fn message_about(&self, method: &str, turn_id: &str) -> Value {
        let is_it = |message: &Value| message["method"] == method && message["params"]["turnId"] == turn_id;
        self.wait_for(method, is_it).await
    }

    /// Answers a request of the app-server.
    pub(crate) fn respond(&self, id: &Value, result: Value) {
        self.sender.send(json!({ "id": id, "result": result })).unwrap();
    }

    /// Waits for the end of a turn; returns its status.
    pub(crate) async fn turn_ended(&self, turn_id: &str) -> String {
        let is_it = |message: &Value| {
            message["method"] == "turn/completed" && message["params"]["turn"]["id"] == turn_id
        };
        let ended = self.wait_for("the end of the turn", is_it).await;
        ended["params"]["turn"]["status"].as_str().unwrap().to_owned()
    }

    /// Waits until such a message has arrived, now or before.
    pub(crate) async fn wait_for(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let find = || self.received.lock().unwrap().iter().find(|message| is_it(message)).cloned();
        wait_until(what, find).await
    }
}
