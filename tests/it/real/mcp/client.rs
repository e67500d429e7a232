//! A client of the Model Context Protocol that sends and reads the messages itself.

use std::process::Stdio;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::Stage;
use crate::support::daemon::{Daemon, codexd};
use crate::support::http::Target;
use crate::support::wait::DEADLINE;

/// `codexd mcp` and the messages with it.
pub(super) struct Client {
    process: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    /// Messages that were read while another one was waited for.
    unread: Vec<Value>,
    newest_id: u64,
}

/// The first message of a client with these capabilities.
pub(super) fn initialize(capabilities: Value) -> Value {
    json!({
        "jsonrpc": "2.0", "id": 0, "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": capabilities,
            "clientInfo": { "name": "test", "version": "1" },
        },
    })
}

impl Client {
    /// Starts `codexd mcp` in the workspace for the daemon of `stage`, and initializes the protocol.
    pub(super) async fn start(stage: &Stage, capabilities: Value) -> Self {
        let mut command = codexd(&stage.home.user_home());
        command.args(["mcp", "--local-api-base", stage.daemon.base_url()]);
        command.current_dir(stage.home.workspace());
        let mut command = Command::from(command);
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let stdin = process.stdin.take().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut client = Self { process, stdin, stdout, unread: Vec::new(), newest_id: 0 };
        client.write(&initialize(capabilities)).await;
        let initialized = client.response(0).await;
        assert_eq!(initialized["protocolVersion"], "2025-06-18", "{initialized}");
        client.notify("notifications/initialized", json!({})).await;
        client
    }

    /// Sends a request; returns its ID.
    pub(super) async fn send(&mut self, method: &str, params: Value) -> u64 {
        self.newest_id += 1;
        let id = self.newest_id;
        self.write(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).await;
        id
    }

    /// Sends a request; returns its result.
    pub(super) async fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.send(method, params).await;
        self.response(id).await
    }

    /// Calls a tool; returns its result.
    pub(super) async fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.request("tools/call", json!({ "name": tool, "arguments": arguments })).await
    }

    /// Sends a notification.
    pub(super) async fn notify(&mut self, method: &str, params: Value) {
        self.write(&json!({ "jsonrpc": "2.0", "method": method, "params": params })).await;
    }

    /// Answers a request of the server.
    pub(super) async fn answer(&mut self, request: &Value, result: Value) {
        self.write(&json!({ "jsonrpc": "2.0", "id": request["id"], "result": result })).await;
    }

    /// Waits for the result of a request.
    pub(super) async fn response(&mut self, id: u64) -> Value {
        let response = self.next(|message| message["id"] == id && message.get("method").is_none()).await;
        response.get("result").unwrap_or_else(|| panic!("no result in {response}")).clone()
    }

    /// Waits for the next request of the server.
    pub(super) async fn next_request(&mut self) -> Value {
        self.next(|message| message.get("id").is_some() && message.get("method").is_some()).await
    }

    /// Waits for the next notification of this method.
    pub(super) async fn next_notification(&mut self, method: &str) -> Value {
        self.next(|message| message.get("id").is_none() && message["method"] == method).await
    }

    /// Closes stdin, and waits for the end of the program.
    pub(super) async fn end(self) {
        let Self { mut process, stdin, .. } = self;
        drop(stdin);
        let status = tokio::time::timeout(DEADLINE, process.wait()).await.unwrap().unwrap();
        assert!(status.success(), "codexd mcp ended with {status}");
    }

    async fn next(&mut self, is_meant: impl Fn(&Value) -> bool) -> Value {
        if let Some(index) = self.unread.iter().position(&is_meant) {
            return self.unread.remove(index);
        }
        loop {
            let line =
                tokio::time::timeout(DEADLINE, self.stdout.next_line()).await.unwrap().unwrap().unwrap();
            let message: Value = serde_json::from_str(&line).unwrap();
            if is_meant(&message) {
                return message;
            }
            self.unread.push(message);
        }
    }

    async fn write(&mut self, message: &Value) {
        self.stdin.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }
}

/// Posts a message to `/mcp`; returns the status, the header with the session, and the response to a request.
pub(super) async fn http_message(
    daemon: &Daemon,
    session: Option<&str>,
    message: &Value,
) -> (u16, Option<String>, Value) {
    let exchange = async {
        let stream = TcpStream::connect(daemon.authority()).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(Method::POST)
            .uri("/mcp")
            .header("host", daemon.authority())
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        if let Some(session) = session {
            request = request.header("mcp-session-id", session).header("mcp-protocol-version", "2025-06-18");
        }
        let request = request.body(Full::new(Bytes::from(message.to_string()))).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let header = response.headers().get("mcp-session-id").map(|value| value.to_str().unwrap().to_owned());
        let mut body = response.into_body();
        let mut text = String::new();
        let mut found = Value::Null;
        while let Some(Ok(frame)) = body.frame().await {
            text.push_str(&String::from_utf8_lossy(frame.data_ref().unwrap()));
            let lines = text.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
            let messages = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
            if let Some(response) = messages.into_iter().find(|found| found["id"] == message["id"]) {
                found = response;
                break;
            }
        }
        connection.abort();
        (status, header, found)
    };
    tokio::time::timeout(DEADLINE, exchange).await.unwrap()
}
