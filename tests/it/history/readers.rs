//! Clients that read events, pause, disconnect and reconnect, and record what they receive.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::connection::{Connection, Received, Transport};
use super::random::SeededRandom;
use super::record::{Filter, Run, Step, Texts};
use crate::support::wait::DEADLINE;

/// The state of the daemon that all clients observe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DaemonState {
    /// The daemon is down and will be started again.
    Down,
    /// The daemon runs at this base URL.
    Running(String),
    /// The daemon is not killed any more; clients read through sequence number `latest` and end.
    Final { base: String, epoch: String, latest: u64 },
}

/// One client that reads events.
pub(super) struct Reader {
    pub(super) name: String,
    pub(super) transport: Transport,
    pub(super) filter: Filter,
    pub(super) random: SeededRandom,
    pub(super) texts: Arc<Texts>,
    pub(super) daemon_state: watch::Receiver<DaemonState>,
}

impl Reader {
    /// Reads until the state is `Final` and all events have arrived; returns the recorded runs.
    pub(super) fn start(self) -> JoinHandle<Vec<Run>> {
        tokio::spawn(self.read())
    }

    async fn read(mut self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        loop {
            let daemon_state = self
                .daemon_state
                .wait_for(|daemon_state| *daemon_state != DaemonState::Down)
                .await
                .unwrap()
                .clone();
            match daemon_state {
                DaemonState::Down => {}
                DaemonState::Running(base) => self.read_connection(&base, &mut runs).await,
                DaemonState::Final { base, epoch, latest } => {
                    // Runs of another epoch have received a gap or never resume; they are complete.
                    runs.retain(|run| !run.steps.is_empty());
                    let same = |run: &&Run| run.epoch == epoch || run.epoch.is_empty();
                    let last = runs.last().filter(same).filter(|run| !ended_by_gap(run));
                    if last.is_some_and(|run| run.reached() < latest) {
                        let reading = self.catch_up(&base, latest, &mut runs);
                        let waited = tokio::time::timeout(DEADLINE, reading).await;
                        waited.unwrap_or_else(|_| panic!("the last events do not arrive"));
                    }
                    return runs;
                }
            }
        }
    }

    /// Reads one connection for a random number of messages or until the daemon ends.
    async fn read_connection(&mut self, base: &str, runs: &mut Vec<Run>) {
        let limit = 1 + self.random.below(300);
        // A client without a cursor receives the hello first; all others know where they start.
        let from_now = self.transport == Transport::WebSocket && self.random.chance(50);
        let cursor = match runs.last().filter(|run| !ended_by_gap(run)) {
            Some(run) => Some(run.cursor()),
            None if from_now => None,
            None => Some("0".to_owned()),
        };
        let opened = Connection::open(self.transport, base, cursor.as_deref(), &self.filter, limit).await;
        let Some(mut connection) = opened else {
            self.pause(10, 30).await;
            return;
        };
        let resumes = runs.last().is_some_and(|run| !ended_by_gap(run));
        if !resumes {
            runs.push(self.new_run());
        }
        let run = runs.last_mut().unwrap();
        match (resumes, from_now) {
            (true, _) => run.steps.push(Step::Connected { after: run.reached() }),
            (false, true) => {}
            (false, false) => run.steps.push(Step::Connected { after: 0 }),
        }
        let max_messages = 1 + self.random.below(400);
        for _ in 0..max_messages {
            let waiting = self.random.milliseconds(20, 400);
            match tokio::time::timeout(waiting, connection.next()).await {
                Err(_) => break,
                Ok(None) => {
                    // The daemon ended; this task may know that before the daemon state changes.
                    self.pause(1, 10).await;
                    break;
                }
                Ok(Some(received)) => {
                    self.record(received, run);
                    if ended_by_gap(run) {
                        break;
                    }
                }
            }
            if self.random.chance(2) {
                self.pause(1, 150).await;
            }
        }
        if run.steps.is_empty() {
            runs.pop();
        }
        drop(connection);
        if self.random.chance(30) {
            self.pause(1, 200).await;
        }
    }

    /// Reads through sequence number `latest` with the transport of the client.
    async fn catch_up(&mut self, base: &str, latest: u64, runs: &mut [Run]) {
        let run = runs.last_mut().unwrap();
        while run.reached() < latest && !ended_by_gap(run) {
            let after = run.cursor();
            // Only pages report immediately that no further event matches the filter.
            let filtered = self.filter != Filter::default();
            let transport = if filtered { Transport::Pages } else { self.transport };
            let opened = Connection::open(transport, base, Some(&after), &self.filter, 1000).await;
            let mut connection = opened.expect("the daemon is reachable");
            run.steps.push(Step::Connected { after: run.reached() });
            while run.reached() < latest && !ended_by_gap(run) {
                let Some(received) = connection.next().await else { break };
                self.record(received, run);
            }
        }
    }

    fn record(&self, received: Received, run: &mut Run) {
        match received {
            // A client with a cursor receives a hello with the newest sequence number too, and then the events in between.
            Received::Hello { epoch, seq } => {
                name_epoch(run, epoch);
                if run.steps.is_empty() {
                    run.steps.push(Step::Connected { after: seq });
                }
            }
            Received::Event { epoch, text } => {
                epoch.into_iter().for_each(|epoch| name_epoch(run, epoch));
                run.steps.push(Step::Event(self.texts.intern(&text)));
            }
            Received::Bookmark { epoch, seq } => {
                name_epoch(run, epoch);
                if run.steps.last() != Some(&Step::Bookmark(seq)) {
                    run.steps.push(Step::Bookmark(seq));
                }
            }
            Received::Gap(reason) => run.steps.push(Step::Gap(reason)),
        }
    }

    fn new_run(&self) -> Run {
        Run {
            client: self.name.clone(),
            epoch: String::new(),
            filter: self.filter.clone(),
            steps: Vec::new(),
        }
    }

    async fn pause(&mut self, least: u64, most: u64) {
        let length: Duration = self.random.milliseconds(least, most);
        tokio::time::sleep(length).await;
    }
}

/// Whether a gap has ended the run.
fn ended_by_gap(run: &Run) -> bool {
    matches!(run.steps.last(), Some(Step::Gap(_)))
}

fn name_epoch(run: &mut Run, epoch: String) {
    if run.epoch.is_empty() {
        run.epoch = epoch;
    }
}
