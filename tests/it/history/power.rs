//! Power cuts: the file system below state and logs stops in the middle of the work, and what was not on disk is gone.
//!
//! A promise counts when its caller had it before the cut began: in a real one nobody would be told anything afterwards,
//! but here the kernel answers a sync that is under way with success although its data is lost (measured with nothing but
//! `fdatasync` in a loop: in 15 of 150 cuts, each time while the cut was being made).
//!
//! The daemon survives the cut of its disk and finds itself with one that fails, so that is looked at too.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;

use super::connection::{Kind, read_after, read_all};
use super::mounts::{Mount, or_skip};
use super::random::{Dice, seed};
use super::readers::{Reader, Scene};
use super::record::{Filter, History, Promise, Texts};
use super::validators::{ordered, promised, unique};
use super::workers::{Promises, Worker};
use crate::api::{SESSIONS, try_post};
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::http::{Target, get};
use crate::support::skip::repetitions;
use crate::support::wait::wait_until_async;

/// The number of power cuts in a run with the long tests; `CODEXD_POWER_CUTS` overrides it.
const CUTS: u64 = 100;
/// The number of power cuts otherwise.
const SHORT_CUTS: u64 = 10;

/// What is done.
pub(super) struct PowerCuts {
    pub(super) cuts: u64,
    pub(super) seed: u64,
    /// Another program than the one that was built with the tests.
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
    /// Cuts the power until something is wrong; how often it was cut, and what is wrong then.
    pub(super) async fn run(&self, mount: &Mount) -> (u64, Vec<String>) {
        let began = Instant::now();
        let mut dice = Dice::new(self.seed);
        let (scenes, scene) = watch::channel(Scene::Away);
        let promises = Promises::default();
        let texts = Arc::new(Texts::default());
        let readers: Vec<_> = [Kind::WebSocket, Kind::ServerSent, Kind::Pages]
            .into_iter()
            .zip(0..)
            .map(|(kind, number)| {
                let (name, filter, dice) = (format!("{kind:?}"), Filter::default(), dice.of(number));
                Reader { name, kind, filter, dice, texts: Arc::clone(&texts), scene: scene.clone() }.start()
            })
            .collect();
        let workers: Vec<_> = (0..3)
            .map(|number| {
                let dice = dice.of(1000 + number);
                Worker { dice, promises: promises.clone(), scene: scene.clone() }.start()
            })
            .collect();

        let mut daemon = self.builder(mount).start().await;
        let (epoch, _) = read_all(daemon.base_url()).await;
        let mut wrong = Vec::new();
        let mut due = Vec::new();
        let mut cuts = 0;
        let mut looked_through = 0;
        while cuts < self.cuts && wrong.is_empty() {
            cuts += 1;
            scenes.send_replace(Scene::Up(daemon.base_url().to_owned()));
            tokio::time::sleep(dice.milliseconds(15, 120)).await;
            let promised_now = promises.take();
            mount.cut_power();
            stands_without_disk(&daemon).await;
            daemon.kill().await;
            scenes.send_replace(Scene::Away);
            mount.restore_power();
            daemon = self.builder(mount).state_from(&daemon).start().await;
            // What was promised while the power went away was heard by nobody.
            promises.take();
            let after = format!("{epoch}-{looked_through}");
            let mut now = look(&daemon, Some(&after), &promised_now, &texts).await;
            looked_through = now.log.last().map_or(looked_through, |seen| seen.seq);
            wrong.extend(unreadable(mount));
            wrong.extend((now.epoch != epoch).then(|| format!("epoch: it was {epoch} and is {}", now.epoch)));
            wrong.extend(promised(&promised_now, &now).err());
            due.append(&mut now.promises);
        }

        let end = look(&daemon, None, &due, &texts).await;
        let latest = end.log.last().unwrap().seq;
        let base = daemon.base_url().to_owned();
        scenes.send_replace(Scene::Last { base, epoch: end.epoch.clone(), latest });
        let mut runs = Vec::new();
        for reader in readers {
            runs.extend(reader.await.unwrap());
        }
        for worker in workers {
            worker.await.unwrap();
        }
        // What was told and not yet on disk may be gone, but its numbers are never used again.
        wrong.extend(unique(&runs, &end.epoch, &end.log).err());
        wrong.extend(runs.iter().filter_map(|run| ordered(run).err()));
        wrong.extend(promised(&due, &end).err());
        say(cuts, began.elapsed(), &end);
        (cuts, wrong)
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

/// What the log has after this cursor, the records, and the promises that all of that has to keep.
async fn look(daemon: &Daemon, after: Option<&str>, promises: &[Promise], texts: &Texts) -> History {
    let after = async { read_after(daemon.base_url(), after?).await.ok() };
    let (epoch, log) = match after.await {
        Some(read) => read,
        None => read_all(daemon.base_url()).await,
    };
    let log = log.iter().map(|text| texts.seen(text)).collect();
    let sessions = get(daemon, SESSIONS).await.data(200)["sessions"].as_array().unwrap().clone();
    History { runs: Vec::new(), promises: promises.to_vec(), epoch, log, sessions }
}

/// State files that a start could not read.
fn unreadable(mount: &Mount) -> Vec<String> {
    let names =
        ["state", "logs"].into_iter().flat_map(|folder| fs::read_dir(mount.path().join(folder)).unwrap());
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains(".bad")).map(|name| format!("unreadable: {name}")).collect()
}

#[expect(clippy::print_stderr, reason = "the test runner shows this with the failure of the test")]
fn say(cuts: u64, took: Duration, end: &History) {
    let (events, promises) = (end.log.len(), end.promises.len());
    eprintln!("{cuts} power cuts in {took:.1?}: {events} events in the log, {promises} promises");
}

/// Asserts that the daemon goes on without a disk, and promises nothing.
async fn stands_without_disk(daemon: &Daemon) {
    assert_eq!(get(daemon, "/healthz").await.status, 200);
    wait_until_async("codexd to see that its disk fails", async || {
        let (status, answer) = try_post(daemon.base_url(), SESSIONS, &json!({})).await.unwrap();
        match (status, answer["error"].as_str()) {
            (503, Some("storage_unavailable")) => Some(()),
            // It is told so only when the app-server is there to be asked.
            (503, Some("app_server_unavailable")) => None,
            _ => panic!("{status}: {answer}"),
        }
    })
    .await;
    get(daemon, SESSIONS).await.data(200);
}
