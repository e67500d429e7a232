//! Resident memory of processes, for the metrics.

use std::collections::HashSet;

use super::info::pid_of;
use super::platform;

/// The resident memory of a process in bytes; `None` where the system does not report it cheaply.
pub fn memory(pid: u32) -> Option<u64> {
    platform::memory(pid_of(pid)?)
}

/// The same for a process and its descendants; shared pages count once for each of them.
pub fn tree_memory(pid: u32) -> Option<u64> {
    let leader = pid_of(pid)?;
    let mut bytes = platform::memory(leader)?;
    let (mut seen, mut waiting) = (HashSet::from([leader]), vec![leader]);
    while let Some(parent) = waiting.pop() {
        for child in platform::children(parent) {
            // Processes start and end meanwhile, and PIDs may be reused.
            if seen.insert(child) {
                bytes += platform::memory(child).unwrap_or(0);
                waiting.push(child);
            }
        }
    }
    Some(bytes)
}
