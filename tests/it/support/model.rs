//! An offline model: the part of OpenAI's Responses API that the real app-server uses, on loopback.
//!
//! Markers in the newest user message select its response, so that a test states the prompt and the response in one
//! place:
//!
//! | marker | what the model does |
//! | --- | --- |
//! | `mock:deltas=N` `mock:delay=MS` `mock:chars=N` | the number of text deltas (8), the pause after each (0 ms), and the width of each (12) |
//! | `mock:text=[…]` | answers with exactly this text, in one delta |
//! | `mock:shell=[CMD]` | first calls the shell tool that the request offers; once it has the output, answers with text |
//! | `mock:escalate=[CMD]` | the same, with a request for more permissions than the sandbox gives |
//! | `mock:patch=[FILE]` | first calls `apply_patch` to add FILE |
//! | `mock:spawn=[PROMPT]` | first spawns a sub-agent with PROMPT, with `%` for `mock:` and round brackets for square ones |
//! | `mock:tool=[NAME]` | first calls this tool without arguments |
//! | `mock:plan` | first calls `update_plan` |
//! | `mock:reasoning` | puts a reasoning summary before the text |
//! | `mock:fail[=CODE]` | answers with this HTTP status (500) |
//! | `mock:limit[=SECONDS]` | answers that the usage limit is reached and resets after this time (3600) |
//! | `mock:failed` | starts a response and reports it as failed |
//! | `mock:hang` | starts a response and sends nothing more until the client disconnects; after `mock:spawn`, if that is present |
//! | `mock:mute` | never answers at all |
//! | `mock:cut` | drops the connection in the middle of the text |

pub(crate) mod account;
mod connection;
mod script;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// A running model; it stops when dropped.
pub(crate) struct MockModel {
    address: SocketAddr,
    requests: Requests,
    key: Key,
    /// Dropping the sender ends the server.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The only accepted API key; `None` accepts every request, also without a key.
type Key = Arc<Mutex<Option<String>>>;

/// The bodies of the requests for a response, in the order of their arrival.
type Requests = Arc<Mutex<Vec<Value>>>;

impl MockModel {
    /// Starts the model on a free port, with its own thread and runtime, so that a test may block its runtime.
    pub(crate) fn start() -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// Starts the model at the address of one that has ended.
    pub(crate) fn start_at(address: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, key) = (Requests::default(), Key::default());
        let (stop, stopped) = oneshot::channel();
        let (recorded, accepted) = (Arc::clone(&requests), Arc::clone(&key));
        let thread = std::thread::Builder::new()
            .name("mock-model".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let listener = TcpListener::from_std(listener).unwrap();
                    tokio::select! {
                        _ = stopped => {}
                        () = accept(listener, recorded, accepted) => {}
                    }
                });
            })
            .unwrap();
        Self { address, requests, key, stop: Some(stop), thread: Some(thread) }
    }

    /// Where it listens.
    #[cfg(target_os = "linux")]
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL for a provider's `base_url`.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The value for `chatgpt_base_url`.
    pub(crate) fn chatgpt_base_url(&self) -> String {
        format!("http://{}/backend-api/", self.address)
    }

    /// Rejects every request without this key with 401 from now on, as OpenAI does.
    pub(crate) fn require_key(&self, key: &str) {
        *self.key.lock().unwrap() = Some(key.to_owned());
    }

    /// The bodies of the newest requests for a response, at most 500.
    pub(crate) fn requests(&self) -> Vec<Value> {
        self.requests.lock().unwrap().clone()
    }
}

/// The complete text of `mock:deltas=N` with deltas of the default width.
pub(crate) fn text_of_deltas(count: usize) -> String {
    script::text_of(count, script::DELTA_WIDTH)
}

impl Drop for MockModel {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic of the server has already been printed; a second panic here would abort the test process.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, requests: Requests, key: Key) {
    let ids = script::Ids::default();
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(connection::serve(stream, Arc::clone(&requests), Arc::clone(&key), ids.clone()));
    }
}
