//! A minimal client of the real app-server, without codexd in between.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::support::codex::{CodexHome, codex};
use crate::support::wait::DEADLINE;

/// A running app-server; it is killed when dropped.
pub(super) struct AppServer {
    process: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr_path: PathBuf,
    last_id: u64,
}

/// A turn that has ended.
pub(super) struct Turn {
    /// All messages of the app-server during the turn, in order.
    pub(super) messages: Vec<Value>,
    /// `completed`, `interrupted` or `failed`.
    pub(super) status: String,
}

impl AppServer {
    /// Starts the native program in this home and initializes the connection.
    pub(super) async fn start(home: &CodexHome) -> Self {
        let stderr_path = home.user_home().join("app-server.stderr");
        let mut process = Command::new(&codex().native)
            .arg("app-server")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home.user_home())
            .env("CODEX_HOME", home.path())
            .env("TMPDIR", home.temporary())
            .current_dir(home.workspace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&stderr_path).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdin = process.stdin.take().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut app_server = Self { process, stdin, stdout, stderr_path, last_id: 0 };
        let client = json!({ "name": "codexd-tests", "title": null, "version": "0" });
        app_server.call("initialize", json!({ "clientInfo": client, "capabilities": null })).await;
        app_server.send(&json!({ "method": "initialized" })).await;
        app_server
    }

    /// Starts a thread with one turn.
    pub(super) async fn start_turn(&mut self, home: &CodexHome, prompt: &str) {
        let thread = self.call("thread/start", json!({ "cwd": home.workspace() })).await;
        let input = json!([{ "type": "text", "text": prompt, "text_elements": [] }]);
        self.call("turn/start", json!({ "threadId": thread["thread"]["id"], "input": input })).await;
    }

    /// Runs one turn in a new thread to its end and accepts all requests of the app-server.
    pub(super) async fn turn(&mut self, home: &CodexHome, prompt: &str) -> Turn {
        self.start_turn(home, prompt).await;
        let mut messages = Vec::new();
        loop {
            let message = self.read().await;
            if let (Some(id), true) = (message.get("id"), message["method"].is_string()) {
                self.send(&json!({ "id": id, "result": { "decision": "accept" } })).await;
            }
            let is_end = message["method"] == "turn/completed";
            let status = message["params"]["turn"]["status"].as_str().unwrap_or_default().to_owned();
            messages.push(message);
            if is_end {
                return Turn { messages, status };
            }
        }
    }

    /// Closes its stdin and waits for its exit.
    pub(super) async fn stop(self) {
        let Self { mut process, stdin, .. } = self;
        drop(stdin);
        let status = tokio::time::timeout(DEADLINE, process.wait()).await.unwrap().unwrap();
        assert!(status.success(), "{status}");
    }

    /// Calls a method; an error response fails the test.
    pub(super) async fn call(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        self.send(&json!({ "id": id, "method": method, "params": params })).await;
        loop {
            let mut message = self.read().await;
            if message["id"] == id && message.get("method").is_none() {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].take();
            }
        }
    }

    async fn send(&mut self, message: &Value) {
        self.stdin.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    async fn read(&mut self) -> Value {
        match tokio::time::timeout(DEADLINE, self.stdout.next_line()).await {
            Ok(Ok(Some(line))) => serde_json::from_str(&line).unwrap(),
            end => {
                let stderr = fs::read_to_string(&self.stderr_path).unwrap_or_default();
                panic!("the app-server sends no message ({end:?}); its stderr: {stderr}")
            }
        }
    }
}

impl Turn {
    /// The params of the notifications and requests of this method.
    pub(super) fn of(&self, method: &str) -> Vec<&Value> {
        self.messages
            .iter()
            .filter(|message| message["method"] == method)
            .map(|message| &message["params"])
            .collect()
    }

    /// The completed items of this type.
    pub(super) fn items(&self, item_type: &str) -> Vec<&Value> {
        let completed = self.of("item/completed").into_iter().map(|params| &params["item"]);
        completed.filter(|item| item["type"] == item_type).collect()
    }
}
