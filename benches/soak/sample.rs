//! Measures a daemon from outside: `/proc`, its directories, and what its clients measured.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use crate::instance::Instance;
use crate::record::Latency;
use crate::series::Sample;

/// `USER_HZ`, which is 100 on every Linux that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// Takes samples of the daemons of a run.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    /// PID, time and CPU time of the sample before, by daemon.
    before: HashMap<&'static str, (u32, f64, f64)>,
}

impl Sampler {
    /// Measures a daemon; `None` while it does not run.
    pub(crate) fn sample(&mut self, instance: &Instance) -> Option<Sample> {
        let pid = instance.running.borrow().as_ref()?.pid;
        let record = &instance.record;
        let mut sample = counts(pid)?;
        sample.seconds = record.seconds();
        sample.daemon = instance.plan.name;
        sample.state_bytes = bytes_below(&instance.state_directory);
        sample.logs_bytes = bytes_below(&instance.logs_directory);
        sample.accept = record.take(Latency::Accept);
        sample.first_delta = record.take(Latency::FirstDelta);
        sample.healthz = record.take(Latency::Healthz);
        let now = (pid, sample.seconds, sample.cpu_seconds);
        let before = self.before.insert(sample.daemon, now).filter(|(before, ..)| *before == pid);
        sample.cpu_percent =
            before.map(|(_, seconds, cpu)| (sample.cpu_seconds - cpu) / (sample.seconds - seconds) * 100.0);
        Some(sample)
    }
}

/// Memory, descriptors, threads, children and CPU time of a process; `None` if it has ended.
pub(crate) fn counts(pid: u32) -> Option<Sample> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
    };
    let children = children(pid);
    Some(Sample {
        pid,
        rss_kib: field("VmRSS:"),
        anonymous_kib: field("RssAnon:"),
        threads: field("Threads:"),
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64,
        children: children.len() as u64,
        zombies: children.iter().filter(|state| **state == 'Z').count() as u64,
        cpu_seconds: stat(&pid.to_string())?.cpu_seconds,
        ..Sample::default()
    })
}

/// The CPU time of this process and of all its descendants that were waited for.
pub(crate) fn cpu_seconds_of_run() -> f64 {
    stat("self").map_or(0.0, |stat| stat.cpu_seconds + stat.cpu_seconds_of_children)
}

struct Stat {
    state: char,
    parent: u32,
    cpu_seconds: f64,
    cpu_seconds_of_children: f64,
}

fn stat(pid: &str) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program, in parentheses, may contain anything.
    let fields: Vec<_> = text.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
        cpu_seconds_of_children: (ticks(13)? + ticks(14)?) / TICKS_PER_SECOND,
    })
}

/// The states of the processes whose parent is `pid`.
fn children(pid: u32) -> Vec<char> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = processes.filter_map(|entry| entry.file_name().into_string().ok());
    let pids = names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    pids.filter_map(|name| stat(&name)).filter(|stat| stat.parent == pid).map(|stat| stat.state).collect()
}

/// The size of all files below a directory.
fn bytes_below(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        // It was removed meanwhile.
        Err(_) => 0,
    };
    entries.map(size).sum()
}
