//! The hooks of a daemon: a program and a loopback URL, and the events that they got.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::api::{self, Method};
use crate::followers::Notable;
use crate::instance::Instance;

/// The event types of the hook with a program; few, because each delivery starts a process.
const PROGRAM_TYPES: [&str; 1] = ["app-server.turn.completed"];
/// The event types of the hook with a URL.
const URL_TYPES: [&str; 3] = ["turn", "session", "request"];
/// Of how many deliveries the URL rejects one.
const REJECTS_ONE_OF: usize = 20;

/// A hook and what it got.
pub(crate) struct Hook {
    pub(crate) name: &'static str,
    types: &'static [&'static str],
    /// The newest event before the hook was added.
    added_after: u64,
    deliveries: Deliveries,
}

enum Deliveries {
    /// The program appends each delivery to this file.
    File(PathBuf),
    Url(Arc<Mutex<Vec<u64>>>),
}

impl Hook {
    /// Adds the hook with a program, which appends to a file in this directory.
    pub(crate) async fn program(instance: &Instance, directory: &Path) -> Self {
        let file = directory.join(format!("hook-{}", instance.plan.name));
        let script = "input=$(cat) && printf '%s\\n' \"$input\" >> \"$1\"";
        let command = json!(["sh", "-c", script, "sh", file]);
        Self::add(instance, "program", &PROGRAM_TYPES, json!({ "command": command }), Deliveries::File(file))
            .await
    }

    /// Adds the hook with a URL and starts its server.
    pub(crate) async fn url(instance: &Instance) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port is free");
        let url = format!("http://{}/hook", listener.local_addr().expect("the listener has an address"));
        let received = Arc::<Mutex<Vec<u64>>>::default();
        tokio::spawn(serve(listener, Arc::clone(&received)));
        Self::add(instance, "url", &URL_TYPES, json!({ "url": url }), Deliveries::Url(received)).await
    }

    async fn add(
        instance: &Instance,
        name: &'static str,
        types: &'static [&'static str],
        mut body: Value,
        deliveries: Deliveries,
    ) -> Self {
        body["name"] = name.into();
        body["on"] = json!(types);
        let base = instance.base().await;
        let answer = api::call(&base, Method::POST, "/v1/codexd/hooks", None, &body.to_string()).await;
        let answer = answer.expect("the daemon accepts hooks");
        let cursor = answer.json["data"]["hook"]["cursor"].as_str();
        let cursor = cursor.unwrap_or_else(|| panic!("the daemon rejected the hook: {}", answer.json));
        let added_after = cursor.rsplit_once('-').and_then(|(_, seq)| seq.parse().ok()).unwrap_or_default();
        Self { name, types, added_after, deliveries }
    }

    /// The events that it must have got, of those in the log.
    pub(crate) fn expected(&self, log: &[Notable]) -> Vec<u64> {
        let is_expected = |event: &&Notable| {
            event.seq > self.added_after && self.types.iter().any(|start| event.event_type.starts_with(start))
        };
        log.iter().filter(is_expected).map(|event| event.seq).collect()
    }

    /// The sequence numbers of what it got, in order.
    pub(crate) fn delivered(&self) -> Vec<u64> {
        match &self.deliveries {
            Deliveries::File(path) => {
                let text = std::fs::read_to_string(path).unwrap_or_default();
                text.lines().filter_map(seq).collect()
            }
            Deliveries::Url(received) => received.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

fn seq(delivery: &str) -> Option<u64> {
    serde_json::from_str::<Value>(delivery).ok()?["seq"].as_u64()
}

/// Accepts deliveries; rejects one of [`REJECTS_ONE_OF`].
async fn serve(listener: TcpListener, received: Arc<Mutex<Vec<u64>>>) {
    let mut count = 0;
    while let Ok((stream, _)) = listener.accept().await {
        count += 1;
        let reject = count % REJECTS_ONE_OF == 0;
        // One at a time: codexd makes one delivery at a time.
        let _ = answer(stream, &received, reject).await;
    }
}

async fn answer(mut stream: TcpStream, received: &Mutex<Vec<u64>>, reject: bool) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let body = loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(str::to_owned));
        if length.and_then(|length| length.trim().parse().ok()) == Some(body.len()) {
            break body.to_owned();
        }
    };
    let status = if reject {
        "500 Rejected"
    } else {
        received.lock().unwrap_or_else(PoisonError::into_inner).extend(seq(&body));
        "204 Accepted"
    };
    stream.write_all(format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n").as_bytes()).await
}
