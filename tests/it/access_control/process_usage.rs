//! What a process uses, as the kernel tells it.

use std::fs;
use std::time::Duration;

/// How many files, pipes and connections a process has open.
pub(super) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// How much memory a process has, in KiB.
pub(super) fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// How long the processors have worked for a process.
pub(super) fn processor_time(pid: u32) -> Duration {
    /// What the kernel tells times in, whatever its own clock is.
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name, which is in brackets, may have anything in it; after it, user and system time are words 12 and 13.
    let (_, words) = stat.rsplit_once(") ").unwrap();
    let ticks: u32 = words.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u32>().unwrap()).sum();
    TICK * ticks
}
