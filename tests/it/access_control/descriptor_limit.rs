//! A daemon with a low limit of open file descriptors: it closes idle connections, does not spin, and recovers.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, getrlimit, prlimit};

use super::process_usage::{cpu_time, open_descriptors};
use super::raw_connection::{RawConnection, head};
use super::slow_clients::{ClientKind, ProbeClient, SlowClients};
use crate::api::{new_session, start_turn, wait_until_idle, wait_until_ready};
use crate::files::prepared;
use crate::support::daemon::Daemon;
use crate::support::http::get;
use crate::support::wait::wait_until;
use crate::support::websocket::EVENTS_PATH;

/// The limit of open file descriptors of the daemon.
const DESCRIPTOR_LIMIT: usize = 64;
/// The number of clients that connect, more than the limit allows.
const CLIENTS: usize = 200;
/// A silent client that is closed sooner than this was evicted: otherwise it has 10 s for its request head.
const EVICTED_BEFORE: Duration = Duration::from_millis(9900);

/// Starts a daemon with a low limit of open file descriptors.
async fn start_with_descriptor_limit() -> Daemon {
    let daemon = prepared(&format!("ulimit -n {DESCRIPTOR_LIMIT}")).start().await;
    wait_until_ready(&daemon).await;
    daemon
}

/// Changes the limit of open file descriptors of a running daemon.
fn set_descriptor_limit(daemon: &Daemon, count: usize) {
    let pid = i32::try_from(daemon.pid()).ok().and_then(Pid::from_raw);
    let limit = rustix::process::Rlimit { current: Some(count as u64), ..getrlimit(Resource::Nofile) };
    prlimit(pid, Resource::Nofile, limit).unwrap();
}

/// Asserts that the daemon works as before, including what needs descriptors of its own.
async fn assert_recovered(daemon: &Daemon) {
    assert_eq!(get(daemon, "/healthz").await.status, 200);
    let session_id = new_session(daemon).await;
    start_turn(daemon, &session_id, "hello").await;
    wait_until_idle(daemon, &session_id).await;
    assert_eq!(get(daemon, "/healthz").await.json["service"]["ready"], true);
}

#[tokio::test]
async fn daemon_serves_without_spinning_with_more_clients_than_descriptors() {
    let daemon = start_with_descriptor_limit().await;
    let before = open_descriptors(daemon.pid());
    let (started, cpu_used) = (Instant::now(), cpu_time(daemon.pid()));
    let probe = ProbeClient::start(&daemon, Duration::from_millis(50));
    let mut clients = SlowClients::connect(&daemon, &[ClientKind::Silent], CLIENTS).await;
    let closed = clients.wait_until_closed().await;
    let (elapsed, cpu_used) = (started.elapsed(), cpu_time(daemon.pid()) - cpu_used);
    let responses = probe.finish().await;
    let statuses: Vec<u16> = responses.iter().map(|(status, _)| *status).collect();
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    let answered = statuses.iter().filter(|status| **status == 200).count();
    assert!(answered > statuses.len() / 2, "idle connections were not evicted for the probe: {statuses:?}");
    let evicted = closed.iter().filter(|client| client.open_for < EVICTED_BEFORE).count();
    assert!(evicted > CLIENTS / 2, "only {evicted} clients were evicted");
    assert!(cpu_used < elapsed / 2, "{cpu_used:?} of CPU time in {elapsed:?}");
    wait_until("the descriptors of the clients to be closed", || {
        (open_descriptors(daemon.pid()) <= before).then_some(())
    })
    .await;
    assert_recovered(&daemon).await;
}

#[tokio::test]
async fn daemon_evicts_idle_connections_when_no_descriptor_is_free() {
    const FREE_DESCRIPTORS: usize = 8;
    let daemon = Daemon::builder().start().await;
    wait_until_ready(&daemon).await;
    set_descriptor_limit(&daemon, open_descriptors(daemon.pid()) + FREE_DESCRIPTORS);
    let probe = ProbeClient::start(&daemon, Duration::from_millis(50));
    let mut clients = SlowClients::connect(&daemon, &[ClientKind::Silent], 3 * FREE_DESCRIPTORS).await;
    let closed = clients.wait_until_closed().await;
    let responses = probe.finish().await;
    assert!(responses.iter().all(|(status, _)| [200, 503].contains(status)), "{responses:?}");
    assert!(responses.iter().any(|(status, _)| *status == 200), "{responses:?}");
    assert!(closed.iter().any(|client| client.open_for < EVICTED_BEFORE), "no idle connection was evicted");
    set_descriptor_limit(&daemon, 1024);
    assert_recovered(&daemon).await;
}

#[tokio::test]
async fn daemon_does_not_spin_when_no_descriptor_is_free_and_none_can_be_evicted() {
    /// The time over which the CPU time of the daemon is measured.
    const WINDOW: Duration = Duration::from_secs(3);
    /// The descriptors that are free when the clients connect, fewer than the daemon reserves for connections.
    const FREE_DESCRIPTORS: usize = 8;
    let daemon = Daemon::builder().start().await;
    wait_until_ready(&daemon).await;
    let before = open_descriptors(daemon.pid());
    set_descriptor_limit(&daemon, before + FREE_DESCRIPTORS);
    let mut readers = Vec::new();
    for _ in 0..2 * FREE_DESCRIPTORS {
        let mut reader = RawConnection::connect(&daemon).await;
        reader.send(head(&daemon, &format!("GET {EVENTS_PATH}"), "Accept: text/event-stream\r\n")).await;
        readers.push(reader);
    }
    // Each client is accepted, is refused, or waits because no descriptor is free.
    wait_until("the daemon to be full", || {
        let mut byte = [0];
        let has_response = |reader: &RawConnection| {
            let peek = std::pin::pin!(reader.stream.peek(&mut byte));
            futures_util::FutureExt::now_or_never(peek).is_some()
        };
        (open_descriptors(daemon.pid()) >= before + FREE_DESCRIPTORS || readers.iter().all(has_response))
            .then_some(())
    })
    .await;
    let cpu_used = cpu_time(daemon.pid());
    let started = Instant::now();
    // A fixed wait: the daemon would spin during this time.
    tokio::time::sleep(WINDOW).await;
    let (cpu_used, elapsed) = (cpu_time(daemon.pid()) - cpu_used, started.elapsed());
    assert!(cpu_used < elapsed / 5, "{cpu_used:?} of CPU time in {elapsed:?}");

    let base = crate::support::http::Target::base_url(&daemon).to_owned();
    let late_status = tokio::spawn(async move { get(base.as_str(), "/healthz").await.status });
    drop(readers);
    let status = late_status.await.unwrap();
    assert!([200, 503].contains(&status), "{status}");
    wait_until("the descriptors to be closed", || (open_descriptors(daemon.pid()) <= before).then_some(()))
        .await;
    assert_recovered(&daemon).await;
}
