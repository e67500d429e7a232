//! Power cuts: the file system of both directories shuts down during the work and loses all unsynced data.
//!
//! An acknowledgement counts when the client received it before the cut began. In a real power cut no response arrives
//! afterwards; here the kernel reports success for a sync in progress although its data is lost (measured with only
//! `fdatasync` in a loop: in 15 of 150 cuts, each time during the cut).
//!
//! The daemon process survives the cut and its disk fails, so the tests check that behavior too.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::clients::Clients;
use super::connection::{Transport, read_after, read_all};
use super::mounts::{Mount, or_skip};
use super::random::{SeededRandom, seed};
use super::record::{Acknowledgement, Filter, History, Texts};
use super::validators::{acknowledged, ordered, unique};
use crate::api::{SESSIONS, try_post};
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::http::{Target, get};
use crate::support::skip::repetitions;
use crate::support::wait::wait_until_async;

/// The number of power cuts in a run with the long tests; `CODEXD_POWER_CUTS` overrides it.
const CUTS: u64 = 100;
/// The number of power cuts otherwise.
const SHORT_CUTS: u64 = 10;
/// The number of clients that create turns.
const WORKERS: u64 = 3;

/// The parameters of a test run.
pub(super) struct PowerCuts {
    pub(super) cuts: u64,
    pub(super) seed: u64,
    /// A binary that replaces the one built with the tests.
    pub(super) program: Option<PathBuf>,
    pub(super) environment: Vec<(String, String)>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_power_cuts() {
    let Some(mount) = or_skip("power cuts", Mount::ext4(64)) else { return };
    let cuts = repetitions("CODEXD_POWER_CUTS", "power cuts", SHORT_CUTS, CUTS);
    let plan = PowerCuts { cuts, seed: seed(), program: None, environment: Vec::new() };
    let (cut, contradictions) = plan.run(&mount).await;
    assert_eq!(contradictions, [""; 0], "after {cut} cuts");
    assert_eq!(cut, cuts);
}

impl PowerCuts {
    /// Cuts the power until a validator reports a contradiction; returns the number of cuts and the contradictions.
    pub(super) async fn run(&self, mount: &Mount) -> (u64, Vec<String>) {
        let began = Instant::now();
        let mut random = SeededRandom::new(self.seed);
        let transports = [Transport::WebSocket, Transport::Sse, Transport::Pages];
        let readers = transports.map(|transport| (transport, Filter::default()));
        let mut clients = Clients::start(&random, readers, WORKERS);
        let (acknowledgements, texts) = (clients.acknowledgements.clone(), Arc::clone(&clients.texts));

        let mut daemon = self.builder(mount).start().await;
        let (epoch, _) = read_all(daemon.base_url()).await;
        let mut violations = Vec::new();
        let mut all_acknowledged = Vec::new();
        let mut cuts = 0;
        let mut checked_through = 0;
        while cuts < self.cuts && violations.is_empty() {
            cuts += 1;
            clients.daemon_started(&daemon);
            tokio::time::sleep(random.milliseconds(15, 120)).await;
            let newly_acknowledged = acknowledgements.take();
            mount.cut_power();
            assert_serves_without_disk(&daemon).await;
            daemon.kill().await;
            clients.daemon_ended();
            mount.restore_power();
            daemon = self.builder(mount).state_from(&daemon).start().await;
            // Acknowledgements from during the cut do not count: in a real power cut no client receives them.
            acknowledgements.take();
            let after = format!("{epoch}-{checked_through}");
            let mut now = inspect(&daemon, Some(&after), &newly_acknowledged, &texts).await;
            checked_through = now.log.last().map_or(checked_through, |event| event.seq);
            violations.extend(unreadable_files(mount));
            violations.extend(
                (now.epoch != epoch).then(|| format!("epoch: changed from {epoch} to {}", now.epoch)),
            );
            violations.extend(acknowledged(&newly_acknowledged, &now).err());
            all_acknowledged.append(&mut now.acknowledgements);
        }

        let end = inspect(&daemon, None, &all_acknowledged, &texts).await;
        let latest = end.log.last().unwrap().seq;
        let runs = clients.finish(&daemon, &end.epoch, latest).await;
        // Published events that were not yet on disk may be lost, but their sequence numbers are never reused.
        violations.extend(unique(&runs, &end.epoch, &end.log).err());
        violations.extend(runs.iter().filter_map(|run| ordered(run).err()));
        violations.extend(acknowledged(&all_acknowledged, &end).err());
        print_summary(cuts, began.elapsed(), &end);
        (cuts, violations)
    }

    fn builder(&self, mount: &Mount) -> DaemonBuilder {
        let mut builder = Daemon::builder()
            .arg("--state-dir")
            .arg(mount.path().join("state"))
            .arg("--logs-dir")
            .arg(mount.path().join("logs"))
            .arg("--event-segment-bytes")
            .arg("100000");
        if let Some(program) = &self.program {
            builder = builder.program(program);
        }
        for (name, value) in &self.environment {
            builder = builder.env(name, value);
        }
        builder
    }
}

/// Reads the log after this cursor and the sessions, and returns them with the acknowledgements to check.
async fn inspect(
    daemon: &Daemon,
    after: Option<&str>,
    acknowledgements: &[Acknowledgement],
    texts: &Texts,
) -> History {
    let after = async { read_after(daemon.base_url(), after?).await.ok() };
    let (epoch, log) = match after.await {
        Some(read) => read,
        None => read_all(daemon.base_url()).await,
    };
    let log = log.iter().map(|text| texts.intern(text)).collect();
    let sessions = get(daemon, SESSIONS).await.data(200)["sessions"].as_array().unwrap().clone();
    History { runs: Vec::new(), acknowledgements: acknowledgements.to_vec(), epoch, log, sessions }
}

/// Reports the files that a start could not read and renamed.
fn unreadable_files(mount: &Mount) -> Vec<String> {
    let names = ["state", "logs"]
        .into_iter()
        .flat_map(|directory| fs::read_dir(mount.path().join(directory)).unwrap());
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains(".bad")).map(|name| format!("unreadable_files: {name}")).collect()
}

#[expect(clippy::print_stderr, reason = "the test runner shows this with the failure of the test")]
fn print_summary(cuts: u64, took: Duration, end: &History) {
    let (events, acknowledgements) = (end.log.len(), end.acknowledgements.len());
    eprintln!(
        "{cuts} power cuts in {took:.1?}: {events} events in the log, {acknowledgements} acknowledgements"
    );
}

/// Asserts that the daemon serves reads without a disk and acknowledges no write.
async fn assert_serves_without_disk(daemon: &Daemon) {
    assert_eq!(get(daemon, "/healthz").await.status, 200);
    wait_until_async("codexd to detect the failing disk", async || {
        let (status, response) = try_post(daemon.base_url(), SESSIONS, &json!({})).await.unwrap();
        match (status, response["error"].as_str()) {
            (503, Some("storage_unavailable")) => Some(()),
            // The storage error is visible only when the app-server is available.
            (503, Some("app_server_unavailable")) => None,
            _ => panic!("{status}: {response}"),
        }
    })
    .await;
    get(daemon, SESSIONS).await.data(200);
}
