//! Clients that create sessions and turns and record the acknowledgements they receive.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::random::SeededRandom;
use super::readers::DaemonState;
use super::record::Acknowledgement;
use crate::api::{SESSIONS, TURN, try_post};

/// The acknowledgements that all workers have received.
#[derive(Debug, Clone, Default)]
pub(super) struct Acknowledgements(Arc<Mutex<Vec<Acknowledgement>>>);

impl Acknowledgements {
    pub(super) fn all(&self) -> Vec<Acknowledgement> {
        self.0.lock().unwrap().clone()
    }

    /// Returns the number of acknowledged turns.
    pub(super) fn turns(&self) -> u64 {
        let acknowledgements = self.0.lock().unwrap();
        acknowledgements
            .iter()
            .filter(|acknowledgement| matches!(acknowledgement, Acknowledgement::Turn { .. }))
            .count() as u64
    }

    /// Removes and returns the acknowledgements since the last call.
    pub(super) fn take(&self) -> Vec<Acknowledgement> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn record(&self, acknowledgement: Acknowledgement) {
        self.0.lock().unwrap().push(acknowledgement);
    }
}

/// One client that sends requests.
pub(super) struct Worker {
    pub(super) random: SeededRandom,
    pub(super) acknowledgements: Acknowledgements,
    pub(super) daemon_state: watch::Receiver<DaemonState>,
}

impl Worker {
    /// Sends requests until the daemon state is `Final`.
    pub(super) fn start(self) -> JoinHandle<()> {
        tokio::spawn(self.work())
    }

    async fn work(mut self) {
        let mut threads: Vec<String> = Vec::new();
        loop {
            let daemon_state = self
                .daemon_state
                .wait_for(|daemon_state| *daemon_state != DaemonState::Down)
                .await
                .unwrap()
                .clone();
            let DaemonState::Running(base) = daemon_state else { return };
            // Resume a thread from an earlier run of the daemon, as a reconnecting client does.
            let resumed = threads.last().filter(|_| self.random.chance(30));
            let options = resumed.map_or_else(|| json!({}), |thread_id| json!({ "threadId": thread_id }));
            let Some(session) = response(try_post(&base, SESSIONS, &options).await, 201) else {
                threads.pop();
                tokio::time::sleep(self.random.milliseconds(2, 20)).await;
                continue;
            };
            let id = |name: &str| session["session"][name].as_str().unwrap().to_owned();
            let (session_id, thread_id) = (id("sessionId"), id("threadId"));
            threads.push(thread_id.clone());
            self.acknowledgements
                .record(Acknowledgement::Session { session_id: session_id.clone(), thread_id });
            self.take_turns(&base, &session_id).await;
        }
    }

    /// Sends turns in one session until a request fails.
    async fn take_turns(&mut self, base: &str, session_id: &str) {
        while *self.daemon_state.borrow() == DaemonState::Running(base.to_owned()) && !self.random.chance(10)
        {
            let (deltas, delay, chars) =
                (self.random.below(12), self.random.below(4), 1 + self.random.below(120));
            let prompt = format!("deltas={deltas} delay={delay} chars={chars}");
            let body = json!({ "sessionId": session_id, "input": prompt });
            match try_post(base, TURN, &body).await {
                // The previous turn still runs.
                Some((409, _)) => tokio::time::sleep(Duration::from_millis(8)).await,
                other => {
                    let Some(turn) = response(other, 202) else { return };
                    let turn_id = turn["turnId"].as_str().unwrap().to_owned();
                    self.acknowledgements
                        .record(Acknowledgement::Turn { session_id: session_id.to_owned(), turn_id });
                }
            }
        }
    }
}

/// Returns the data of a response with the status `expected`, `None` for any other status or a closed connection.
///
/// Panics on status 500.
fn response(response: Option<(u16, Value)>, expected: u16) -> Option<Value> {
    let (status, body) = response?;
    assert_ne!(status, 500, "{body}");
    (status == expected).then(|| body["data"].clone())
}
