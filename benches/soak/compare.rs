//! What is decided about a daemon after the load: what its clients were promised against its log, the streams, the hooks, and
//! what it uses when it is idle again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::api::{Method, call};
use crate::followers::{Followed, Notable, digest};
use crate::hooks::Hook;
use crate::instance::{EVENT_LOG_BYTES, Instance, OUTPUT_LOG_BYTES, SEGMENT_BYTES};
use crate::record::Entries;
use crate::run::{REST_TIMEOUT, Series, Stage, when_idle};
use crate::series::{Percentiles, Sample, median};
use crate::verdict::{self, Verdict};

/// The files beside the event log: `codexd.log` and `app-server.log` with one older file each, and `stdout.log` and
/// `stderr.log`, which [`OUTPUT_LOG_BYTES`] limits.
const OTHER_LOGS_BYTES: u64 = 4 * (8 << 20) + 4 * OUTPUT_LOG_BYTES;
/// More than the records of all sessions, turns and keys of a run need.
const STATE_BYTES: u64 = 16 << 20;

impl Stage {
    /// Everything that is decided about one daemon after the load has ended; stops it.
    pub(crate) async fn compare(self, series: &Series) -> Vec<Verdict> {
        let Self { instance, base, hooks, end, followers, daemon } = self;
        let name = instance.plan.name;
        let mut samples = series.samples.lock().unwrap_or_else(PoisonError::into_inner).clone();
        samples.retain(|sample| sample.daemon == name);
        let mut verdicts = vec![verdict::memory(name, &samples)];

        // The followers end with the newest event after all turns have ended.
        let page = call(&instance.base().await, Method::GET, "/v1/codexd/events?limit=1", None, "").await;
        let latest = page.ok().and_then(|answer| answer.json["data"]["latest"].as_u64()).unwrap_or_default();
        end.store(latest, Ordering::Relaxed);
        let mut followed = Vec::new();
        for follower in followers {
            let waited = tokio::time::timeout(REST_TIMEOUT, follower).await;
            followed.push(waited.ok().and_then(Result::ok).unwrap_or_default());
        }
        let pages = followed.remove(0);
        verdicts.extend(streams(name, &pages, &followed));
        let mut daemon = daemon.lock().await;
        verdicts.push(files(name, &pages, &daemon.events_on_disk()));
        verdicts.extend(turns(&instance, &pages.notable));
        for hook in &hooks {
            verdicts.push(delivered(name, hook, &pages.notable).await);
        }

        let idle = when_idle(&instance, Some(&base)).await;
        verdicts.extend([
            verdict::back_at_base(name, "descriptors", base.descriptors, idle.descriptors),
            verdict::back_at_base(name, "threads", base.threads, idle.threads),
            verdict::back_at_base(name, "child processes", base.children, idle.children),
        ]);
        let zombies: Vec<_> = (0..idle.zombies).map(|_| "one that was not waited for".to_owned()).collect();
        let children = (idle.children as usize).max(1);
        verdicts.push(verdict::none(name, "zombies", "none when idle", children, &zombies));
        let largest = |bytes: fn(&Sample) -> u64| samples.iter().map(bytes).max().unwrap_or_default();
        let logs_bound = EVENT_LOG_BYTES + SEGMENT_BYTES + OTHER_LOGS_BYTES;
        verdicts.push(verdict::disk(name, "logs directory", largest(|sample| sample.logs_bytes), logs_bound));
        verdicts.push(verdict::disk(
            name,
            "state directory",
            largest(|sample| sample.state_bytes),
            STATE_BYTES,
        ));

        let stopped = daemon.stop().await;
        if !stopped.status.success() {
            instance.record.fault(format!("the daemon ended with {} after SIGTERM", stopped.status));
        }
        let entries = instance.record.entries();
        let operations = entries.operations.values().sum::<u64>() as usize;
        let rule = "no response or exit that a kill does not explain";
        verdicts.push(verdict::none(name, "operations", rule, operations, &entries.faults));
        verdicts.extend(operations_done(name, &entries, &pages.notable));
        verdicts.push(latencies(name, &samples));
        verdicts
    }
}

/// The clients of the streams against the pages of the log.
fn streams(name: &'static str, pages: &Followed, streams: &[Followed]) -> Vec<Verdict> {
    let rule = "every event once, in order, over reconnects and restarts";
    let log_faults = [&pages.faults[..], &verdict::differences(&pages.events, &pages.events)].concat();
    let mut verdicts = vec![verdict::none(name, "events: pages", rule, pages.events.len(), &log_faults)];
    for stream in streams {
        let latest = pages.events.last().map_or(0, |(seq, _)| *seq);
        let until = stream.events.partition_point(|(seq, _)| *seq <= latest);
        let found =
            [&stream.faults[..], &verdict::differences(&pages.events, &stream.events[..until])].concat();
        let quantity = if stream.transport == "SSE" { "events: SSE" } else { "events: WebSocket" };
        let mut verdict = verdict::none(name, quantity, rule, pages.events.len(), &found);
        verdict.measured.push_str(&format!(", {} connections", stream.connections));
        verdicts.push(verdict);
    }
    verdicts
}

/// The pages of the log against its files, from the oldest event that is still in them.
fn files(name: &'static str, pages: &Followed, events: &[Value]) -> Verdict {
    let in_files: Vec<_> = events.iter().map(digest).collect();
    let oldest = in_files.first().map_or(u64::MAX, |(seq, _)| *seq);
    let latest = pages.events.last().map_or(0, |(seq, _)| *seq);
    let read: Vec<_> = pages.events.iter().copied().filter(|(seq, _)| *seq >= oldest).collect();
    let until = in_files.partition_point(|(seq, _)| *seq <= latest);
    let found = verdict::differences(&in_files[..until], &read);
    verdict::none(name, "events: files", "the pages have what the files have", until, &found)
}

/// What was done, as far as it is not decided about: how often each operation, and how requests were resolved.
fn operations_done(name: &'static str, entries: &Entries, log: &[Notable]) -> Vec<Verdict> {
    let mut resolved = BTreeMap::<_, u64>::new();
    for event in log.iter().filter(|event| event.event_type == "request.resolved") {
        *resolved.entry(event.resolved_by.as_str()).or_default() += 1;
    }
    let list = |counts: &mut dyn Iterator<Item = (&str, u64)>| {
        counts.map(|(what, count)| format!("{count} × {what}")).collect::<Vec<_>>().join(", ")
    };
    let done = list(&mut entries.operations.iter().map(|(what, count)| (*what, *count)));
    let resolved = list(&mut resolved.into_iter());
    vec![
        verdict::reported(name, "operations done", done),
        verdict::reported(name, "approvals resolved by", resolved),
    ]
}

/// The latencies of a run: of all samples, the median of the 50th percentiles and the largest 99th percentile.
fn latencies(name: &'static str, samples: &[Sample]) -> Verdict {
    type Times = fn(&Sample) -> Option<Percentiles>;
    let of: [(&str, Times); 3] = [
        ("POST turn", |sample| sample.accept),
        ("first delta", |sample| sample.first_delta),
        ("GET /healthz", |sample| sample.healthz),
    ];
    let texts = of.map(|(what, times)| {
        let times: Vec<_> = samples.iter().filter_map(times).collect();
        let p50 = median(&mut times.iter().map(|times| times.p50).collect::<Vec<_>>()).unwrap_or_default();
        let p99 = times.iter().map(|times| times.p99).fold(0.0, f64::max);
        format!("{what} p50 {p50:.1} ms, p99 up to {p99:.0} ms")
    });
    verdict::reported(name, "latencies", texts.join("; "))
}

/// Acknowledged turns are in the log, and each turn in the log has an end.
fn turns(instance: &Instance, log: &[Notable]) -> [Verdict; 2] {
    let name = instance.plan.name;
    let ids = |types: &[&str], id: fn(&Notable) -> &String| -> BTreeSet<String> {
        let of_type = log.iter().filter(|event| types.contains(&event.event_type.as_str()));
        of_type.map(|event| id(event).clone()).filter(|id| !id.is_empty()).collect()
    };
    let accepted = ids(&["turn.accepted"], |event| &event.turn_id);
    let of_queue = ids(&["turn.accepted", "turn.rejected"], |event| &event.queue_id);
    let ends = ["app-server.turn.completed", "app-server.turn.completed.missing", "turn.settled"];
    let ended = ids(&ends, |event| &event.turn_id);
    let entries = instance.record.entries();
    let lost = entries.accepted_turns.iter().filter(|id| !accepted.contains(*id));
    let lost_of_queue = entries.accepted_queued_turns.iter().filter(|id| !of_queue.contains(*id));
    let lost: Vec<_> = lost.chain(lost_of_queue).cloned().collect();
    let acknowledged = entries.accepted_turns.len() + entries.accepted_queued_turns.len();
    let endless: Vec<_> = accepted.difference(&ended).cloned().collect();
    [
        verdict::none(name, "accepted turns", "every turn that got 202 is in the log", acknowledged, &lost),
        verdict::none(
            name,
            "turns without an end",
            "every turn in the log has ended",
            accepted.len(),
            &endless,
        ),
    ]
}

/// What a hook got, when it has got everything or does not get more.
async fn delivered(name: &'static str, hook: &Hook, log: &[Notable]) -> Verdict {
    let quantity = if hook.name == "url" { "hook: URL" } else { "hook: program" };
    let expected = hook.expected(log);
    let began = Instant::now();
    let latest = expected.last().copied().unwrap_or_default();
    loop {
        let mut delivered = hook.delivered();
        delivered.retain(|seq| *seq <= latest);
        let found = verdict::hook_differences(&expected, &delivered);
        if found.is_empty() || began.elapsed() > REST_TIMEOUT {
            let rule = "every event at least once, in order";
            let mut verdict = verdict::none(name, quantity, rule, expected.len(), &found);
            verdict.measured.push_str(&format!(", {} deliveries", delivered.len()));
            return verdict;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
