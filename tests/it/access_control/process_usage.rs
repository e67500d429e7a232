//! The resources that a process uses, read from `/proc`.

use std::fs;
use std::time::Duration;

/// The number of open file descriptors of a process.
pub(super) fn open_descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// The resident memory of a process in KiB.
pub(super) fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The CPU time of a process, user and system.
pub(super) fn cpu_time(pid: u32) -> Duration {
    /// The unit of the CPU times in `/proc`, which does not depend on the timer frequency of the kernel.
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The process name, which is in parentheses, may contain any character; after it, fields 12
    // and 13 are user and system time.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u32 = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u32>().unwrap()).sum();
    TICK * ticks
}
