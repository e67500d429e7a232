//! An offline model: the part of OpenAI's Responses API that the real app-server uses, on loopback.
//!
//! What it answers is written into the prompt, as markers in the newest user message, so that a test says in one
//! place what it asks and what it will get:
//!
//! | marker | what the model does |
//! | --- | --- |
//! | `mock:deltas=N` `mock:delay=MS` `mock:chars=N` | how many pieces of text (8), the pause after each (0 ms), and the width of each (12) |
//! | `mock:text=[…]` | answers exactly this text, in one piece |
//! | `mock:shell=[CMD]` | first calls the shell tool that the request offers; once it has the output, answers with text |
//! | `mock:escalate=[CMD]` | the same, asking for more rights than the sandbox gives |
//! | `mock:patch=[FILE]` | first calls `apply_patch` to add FILE |
//! | `mock:spawn=[PROMPT]` | first spawns a sub-agent with PROMPT, in which `%` stands for `mock:` and round brackets for square ones |
//! | `mock:plan` | first calls `update_plan` |
//! | `mock:reasoning` | puts a reasoning summary before the text |
//! | `mock:fail[=CODE]` | answers with this HTTP status (500) |
//! | `mock:limit[=SECONDS]` | answers that the usage limit is reached, which ends in that time (3600) |
//! | `mock:failed` | starts a response and reports it as failed |
//! | `mock:hang` | starts a response and falls silent until the client leaves; after `mock:spawn`, if that is there |
//! | `mock:mute` | never answers at all |
//! | `mock:cut` | drops the connection in the middle of the text |

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

/// The one key that is taken; `None` takes all, and none.
type Key = Arc<Mutex<Option<String>>>;

/// The bodies of the requests for a response, in the order of their arrival.
type Requests = Arc<Mutex<Vec<Value>>>;

impl MockModel {
    /// Starts the model on a free port, on a thread and a runtime of its own, so that a test may block its own.
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, key) = (Requests::default(), Key::default());
        let (stop, stopped) = oneshot::channel();
        let (seen, taken) = (Arc::clone(&requests), Arc::clone(&key));
        let thread = std::thread::Builder::new()
            .name("mock-model".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let listener = TcpListener::from_std(listener).unwrap();
                    tokio::select! {
                        _ = stopped => {}
                        () = accept(listener, seen, taken) => {}
                    }
                });
            })
            .unwrap();
        Self { address, requests, key, stop: Some(stop), thread: Some(thread) }
    }

    /// The base URL for a provider's `base_url`.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// From now on a request without this key is refused with 401, as OpenAI does it.
    pub(crate) fn take_key(&self, key: &str) {
        *self.key.lock().unwrap() = Some(key.to_owned());
    }

    /// The bodies of all requests for a response so far: what the model was told.
    pub(crate) fn requests(&self) -> Vec<Value> {
        self.requests.lock().unwrap().clone()
    }
}

/// The text that `mock:deltas=N` makes, put together, with pieces of the usual width.
pub(crate) fn text_of_deltas(count: usize) -> String {
    script::text_of(count, script::PIECE_WIDTH)
}

impl Drop for MockModel {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic of the server has already been printed; a second panic in here would abort the test process.
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
