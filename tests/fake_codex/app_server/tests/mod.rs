//! The server on threads of this process, driven over pipes.

mod initialize;
mod requests;
mod threads;
mod turns;

use std::io::{BufRead, BufReader, PipeWriter, Write, pipe};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::script::Startup;
use super::serve;
use super::server::Stopped;
use super::shared::{Ending, Shared};

/// Only a failing test waits this long.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// A client of one server.
struct Client {
    input: Option<PipeWriter>,
    lines: Receiver<Vec<u8>>,
    endings: Receiver<Ending>,
    stopped: Receiver<Stopped>,
    log: Arc<Mutex<Vec<u8>>>,
    next_id: i64,
}

/// A stderr that a test can read.
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Client {
    /// A server with these startup directives, before `initialize`.
    fn new(startup: &str, store: Option<&Path>) -> Self {
        let (server_input, input) = pipe().unwrap();
        let (output, server_output) = pipe().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || send_lines(BufReader::new(output), &sender));
        let (end, endings) = channel();
        let log = Arc::default();
        let shared = Arc::new(Shared::new(
            Box::new(server_output),
            Box::new(Log(Arc::clone(&log))),
            store.map(Path::to_owned),
            Startup::parse(&[startup.to_owned()]).unwrap(),
            Box::new(move |ending| end.send(ending).unwrap()),
        ));
        let (sender, stopped) = channel();
        std::thread::spawn(move || {
            let reason = serve(&shared, BufReader::new(server_input));
            drop(shared);
            // The test may have ended.
            let _ = sender.send(reason);
        });
        Self { input: Some(input), lines, endings, stopped, log, next_id: 0 }
    }

    /// A server after `initialize`.
    fn ready(startup: &str, store: Option<&Path>) -> Self {
        let mut client = Self::new(startup, store);
        client.initialize(&json!({ "experimentalApi": true }));
        client
    }

    fn initialize(&mut self, capabilities: &Value) {
        let info = json!({ "name": "test", "title": null, "version": "0" });
        self.call("initialize", &json!({ "clientInfo": info, "capabilities": capabilities })).unwrap();
        self.send(&json!({ "method": "initialized" }));
        assert_eq!(self.message()["method"], "remoteControl/status/changed");
    }

    fn send(&mut self, message: &Value) {
        self.send_bytes(format!("{message}\n").as_bytes());
    }

    fn send_bytes(&mut self, bytes: &[u8]) {
        self.input.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Sends a request and returns its ID.
    fn request(&mut self, method: &str, params: &Value) -> i64 {
        self.next_id += 1;
        self.send(&json!({ "id": self.next_id, "method": method, "params": params }));
        self.next_id
    }

    /// Sends a request and returns its result or the message of its error; skips notifications.
    fn call(&mut self, method: &str, params: &Value) -> Result<Value, String> {
        let id = self.request(method, params);
        self.response_to(id)
    }

    fn response_to(&mut self, id: i64) -> Result<Value, String> {
        let response = self.until(|message| message["id"] == id && message.get("method").is_none());
        match response.get("error") {
            Some(error) => Err(error["message"].as_str().unwrap().to_owned()),
            None => Ok(response["result"].clone()),
        }
    }

    fn line(&mut self) -> Vec<u8> {
        self.lines.recv_timeout(MESSAGE_TIMEOUT).expect("a line in time")
    }

    fn message(&mut self) -> Value {
        serde_json::from_slice(&self.line()).unwrap()
    }

    fn until(&mut self, matches: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.message();
            if matches(&message) {
                return message;
            }
        }
    }

    fn until_method(&mut self, method: &str) -> Value {
        self.until(|message| message["method"] == method)
    }

    /// All messages up to the one with this method.
    fn all_until(&mut self, method: &str) -> Vec<Value> {
        let mut messages = Vec::new();
        loop {
            let message = self.message();
            let last = message["method"] == method;
            messages.push(message);
            if last {
                return messages;
            }
        }
    }

    /// A new thread.
    fn thread(&mut self) -> String {
        let result = self.call("thread/start", &json!({})).unwrap();
        self.until_method("thread/started");
        result["thread"]["id"].as_str().unwrap().to_owned()
    }

    /// Starts a turn and returns its ID.
    fn turn(&mut self, thread: &str, text: &str) -> String {
        let result = self.call("turn/start", &turn_params(thread, text)).unwrap();
        result["turn"]["id"].as_str().unwrap().to_owned()
    }

    fn end_input(&mut self) -> Stopped {
        self.input = None;
        self.stopped.recv_timeout(MESSAGE_TIMEOUT).expect("the server stops")
    }

    /// Waits until every OS thread of the server has ended and its locks are released.
    fn shut_down(mut self) {
        self.end_input();
        // The output ends last.
        self.lines.iter().for_each(drop);
    }
}

/// A directory for a store, removed when dropped.
fn directory() -> tempfile::TempDir {
    let parent = env!("CARGO_TARGET_TMPDIR");
    tempfile::Builder::new().prefix("fake-codex-").tempdir_in(parent).unwrap()
}

fn send_lines(mut output: impl BufRead, lines: &Sender<Vec<u8>>) {
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line).unwrap() > 0 {
        if lines.send(std::mem::take(&mut line)).is_err() {
            return;
        }
    }
}

fn turn_params(thread: &str, text: &str) -> Value {
    json!({ "threadId": thread, "input": [{ "type": "text", "text": text, "text_elements": [] }] })
}

/// A message in short form: its method and the one detail that tests compare.
fn summary(message: &Value) -> String {
    let params = &message["params"];
    let method = message["method"].as_str().unwrap_or("response");
    let detail = match method {
        "item/started" | "item/completed" => {
            let item = &params["item"];
            format!("{} {}", text(&item["type"]), text(&item["status"]))
        }
        "item/agentMessage/delta" => text(&params["delta"]),
        "thread/status/changed" => {
            format!("{} {}", text(&params["status"]["type"]), text(&params["status"]["activeFlags"][0]))
        }
        "turn/completed" => text(&params["turn"]["status"]),
        "error" => params["willRetry"].to_string(),
        _ => String::new(),
    };
    format!("{method} {detail}").trim_end().to_owned()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn summaries(messages: &[Value]) -> Vec<String> {
    messages.iter().map(summary).collect()
}
