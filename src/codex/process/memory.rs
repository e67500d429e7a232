//! How much memory processes have in use.

use std::collections::HashSet;

use super::info::pid_of;
use super::platform;

/// How much memory a process has in use, in bytes; `None` where the system does not say so at little cost.
pub fn memory(pid: u32) -> Option<u64> {
    platform::memory(pid_of(pid)?)
}

/// The same for a process and all that descend from it; what they share counts for each of them.
pub fn family_memory(pid: u32) -> Option<u64> {
    let leader = pid_of(pid)?;
    let mut bytes = platform::memory(leader)?;
    let (mut seen, mut waiting) = (HashSet::from([leader]), vec![leader]);
    while let Some(parent) = waiting.pop() {
        for child in platform::children(parent) {
            // Processes come and go meanwhile, and their numbers with them.
            if seen.insert(child) {
                bytes += platform::memory(child).unwrap_or(0);
                waiting.push(child);
            }
        }
    }
    Some(bytes)
}
