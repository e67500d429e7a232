//! The clients of one durability test: readers of events and workers that create turns.
//!
//! Owns the channel through which the clients learn the state of the daemon, and what they record.
//! `soak`, `power` and `operators` create one per run and report each start and end of the daemon to it.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::connection::Transport;
use super::random::SeededRandom;
use super::readers::{DaemonState, Reader};
use super::record::{Filter, Run, Texts};
use super::workers::{Acknowledgements, Worker};
use crate::support::daemon::Daemon;
use crate::support::http::Target;

/// The running clients of one test.
pub(super) struct Clients {
    daemon_states: watch::Sender<DaemonState>,
    pub(super) acknowledgements: Acknowledgements,
    pub(super) texts: Arc<Texts>,
    readers: Vec<JoinHandle<Vec<Run>>>,
    workers: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Starts a reader for each transport and filter, and this number of workers; they wait for the daemon.
    pub(super) fn start(
        random: &SeededRandom,
        readers: impl IntoIterator<Item = (Transport, Filter)>,
        workers: u64,
    ) -> Self {
        let (daemon_states, daemon_state) = watch::channel(DaemonState::Down);
        let (acknowledgements, texts) = (Acknowledgements::default(), Arc::new(Texts::default()));
        let readers = readers
            .into_iter()
            .zip(0..)
            .map(|((transport, filter), number)| {
                let name = format!("{transport:?} {number}");
                let (random, texts) = (random.derive(number), Arc::clone(&texts));
                Reader { name, transport, filter, random, texts, daemon_state: daemon_state.clone() }.start()
            })
            .collect();
        let workers = (0..workers)
            .map(|number| {
                let (random, acknowledgements) = (random.derive(1000 + number), acknowledgements.clone());
                Worker { random, acknowledgements, daemon_state: daemon_state.clone() }.start()
            })
            .collect();
        Self { daemon_states, acknowledgements, texts, readers, workers }
    }

    /// Reports that the daemon runs; clients connect to it.
    pub(super) fn daemon_started(&self, daemon: &Daemon) {
        self.daemon_states.send_replace(DaemonState::Running(daemon.base_url().to_owned()));
    }

    /// Reports that the daemon has ended.
    pub(super) fn daemon_ended(&self) {
        self.daemon_states.send_replace(DaemonState::Down);
    }

    /// Waits until all readers have read through sequence number `latest`; returns their runs.
    pub(super) async fn finish(&mut self, daemon: &Daemon, epoch: &str, latest: u64) -> Vec<Run> {
        let (base, epoch) = (daemon.base_url().to_owned(), epoch.to_owned());
        self.daemon_states.send_replace(DaemonState::Final { base, epoch, latest });
        let mut runs = Vec::new();
        for reader in self.readers.drain(..) {
            runs.extend(reader.await.unwrap());
        }
        for worker in self.workers.drain(..) {
            worker.await.unwrap();
        }
        runs
    }
}
