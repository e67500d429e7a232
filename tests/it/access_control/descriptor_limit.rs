//! A daemon that may have few files open: what it cannot accept does not drive it mad.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, getrlimit, prlimit};

use super::process_usage::{descriptors, processor_time};
use super::raw_connection::{Wire, head};
use super::slow_clients::{Crowd, Honest, Kind};
use crate::api::{idle, ready, session, turn};
use crate::files::prepared;
use crate::support::daemon::Daemon;
use crate::support::http::get;
use crate::support::wait::wait_until;
use crate::support::websocket::EVENTS_PATH;

/// How many files the daemon may have open.
const FILES: usize = 64;
/// How many peers want in, more than there can be.
const PEERS: usize = 200;
/// How long one that says nothing may stay where there is room.
const HEAD: Duration = Duration::from_millis(4900);

/// A daemon under a low limit of open files.
async fn short_of_files() -> Daemon {
    let daemon = prepared(&format!("ulimit -n {FILES}")).start().await;
    ready(&daemon).await;
    daemon
}

/// Lets a daemon that runs have so many files open from now on.
fn allow_files(daemon: &Daemon, count: usize) {
    let pid = i32::try_from(daemon.pid()).ok().and_then(Pid::from_raw);
    let limit = rustix::process::Rlimit { current: Some(count as u64), ..getrlimit(Resource::Nofile) };
    prlimit(pid, Resource::Nofile, limit).unwrap();
}

/// Asserts that all is as it was: what needs files of the daemon's own works too.
async fn assert_recovered(daemon: &Daemon) {
    assert_eq!(get(daemon, "/healthz").await.status, 200);
    let session_id = session(daemon).await;
    turn(daemon, &session_id, "hello").await;
    idle(daemon, &session_id).await;
    assert_eq!(get(daemon, "/healthz").await.json["service"]["ready"], true);
}

#[tokio::test]
async fn more_peers_than_descriptors_are_no_reason_to_hang_or_to_spin() {
    let daemon = short_of_files().await;
    let before = descriptors(daemon.pid());
    let (began, worked) = (Instant::now(), processor_time(daemon.pid()));
    let honest = Honest::start(&daemon, Duration::from_millis(50));
    let mut crowd = Crowd::gather(&daemon, &[Kind::Silent], PEERS).await;
    let ends = crowd.closed().await;
    let (elapsed, worked) = (began.elapsed(), processor_time(daemon.pid()) - worked);
    let answers = honest.finish().await;
    let statuses: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    let answered = statuses.iter().filter(|status| **status == 200).count();
    assert!(answered > statuses.len() / 2, "a peer that only waits has to make room: {statuses:?}");
    let evicted = ends.iter().filter(|end| end.after < HEAD).count();
    assert!(evicted > PEERS / 2, "only {evicted} peers left before their time was over");
    assert!(worked < elapsed / 2, "{worked:?} of work in {elapsed:?}");
    wait_until("the descriptors of the crowd to be given back", || {
        (descriptors(daemon.pid()) <= before).then_some(())
    })
    .await;
    assert_recovered(&daemon).await;
}

#[tokio::test]
async fn without_a_descriptor_one_that_waits_makes_room() {
    const LEFT: usize = 8;
    let daemon = Daemon::builder().start().await;
    ready(&daemon).await;
    allow_files(&daemon, descriptors(daemon.pid()) + LEFT);
    let honest = Honest::start(&daemon, Duration::from_millis(50));
    let mut crowd = Crowd::gather(&daemon, &[Kind::Silent], 3 * LEFT).await;
    let ends = crowd.closed().await;
    let answers = honest.finish().await;
    assert!(answers.iter().all(|(status, _)| [200, 503].contains(status)), "{answers:?}");
    assert!(answers.iter().any(|(status, _)| *status == 200), "{answers:?}");
    assert!(ends.iter().any(|end| end.after < HEAD), "nobody made room");
    allow_files(&daemon, 1024);
    assert_recovered(&daemon).await;
}

#[tokio::test]
async fn without_a_descriptor_and_without_one_that_can_leave_it_rests() {
    /// How long the daemon is watched.
    const WINDOW: Duration = Duration::from_secs(3);
    /// How many descriptors are left when the crowd comes, fewer than the daemon believes it may use for connections.
    const LEFT: usize = 8;
    let daemon = Daemon::builder().start().await;
    ready(&daemon).await;
    let before = descriptors(daemon.pid());
    allow_files(&daemon, before + LEFT);
    let mut readers = Vec::new();
    for _ in 0..2 * LEFT {
        let mut reader = Wire::connect(&daemon).await;
        reader.send(head(&daemon, &format!("GET {EVENTS_PATH}"), "Accept: text/event-stream\r\n")).await;
        readers.push(reader);
    }
    // Each is inside, refused, or has to wait because no descriptor is left.
    wait_until("the daemon to be full", || {
        let mut byte = [0];
        let heard = |reader: &Wire| {
            let peek = std::pin::pin!(reader.stream.peek(&mut byte));
            futures_util::FutureExt::now_or_never(peek).is_some()
        };
        (descriptors(daemon.pid()) >= before + LEFT || readers.iter().all(heard)).then_some(())
    })
    .await;
    let worked = processor_time(daemon.pid());
    let began = Instant::now();
    // Nothing is waited for: this is the time in which it would spin.
    tokio::time::sleep(WINDOW).await;
    let (worked, elapsed) = (processor_time(daemon.pid()) - worked, began.elapsed());
    assert!(worked < elapsed / 5, "{worked:?} of work in {elapsed:?}");

    let base = crate::support::http::Target::base_url(&daemon).to_owned();
    let late = tokio::spawn(async move { get(base.as_str(), "/healthz").await.status });
    drop(readers);
    let status = late.await.unwrap();
    assert!([200, 503].contains(&status), "{status}");
    wait_until("the descriptors to be given back", || (descriptors(daemon.pid()) <= before).then_some(()))
        .await;
    assert_recovered(&daemon).await;
}
