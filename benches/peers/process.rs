//! CPU time and memory of processes and their descendants, and of the machine, from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::ops::{Add, Sub};
use std::time::Duration;

/// The unit of the CPU times in `/proc`.
const TICK: Duration = Duration::from_millis(10);

/// CPU time.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cpu {
    pub(crate) total: Duration,
    /// The part in the kernel.
    pub(crate) kernel: Duration,
}

impl Add for Cpu {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { total: self.total + other.total, kernel: self.kernel + other.kernel }
    }
}

impl Sub for Cpu {
    type Output = Self;
    fn sub(self, earlier: Self) -> Self {
        Self {
            total: self.total.saturating_sub(earlier.total),
            kernel: self.kernel.saturating_sub(earlier.kernel),
        }
    }
}

/// Memory in KiB.
#[derive(Clone, Copy, Default)]
pub(crate) struct Memory {
    pub(crate) rss: u64,
    pub(crate) pss: u64,
}

/// A process and its descendants.
#[derive(Clone, Copy)]
pub(crate) struct Tree {
    pub(crate) root: u32,
    /// A descendant that is counted elsewhere, with its own.
    pub(crate) without: Option<u32>,
}

impl Tree {
    /// The CPU time so far, with that of the descendants that have ended.
    pub(crate) fn cpu(self) -> Cpu {
        let cpu = self.pids().into_iter().filter_map(|pid| Some(cpu_of(&stat(pid)?)));
        cpu.fold(Cpu::default(), Add::add)
    }

    pub(crate) fn memory(self) -> Memory {
        let mut sum = Memory::default();
        for pid in self.pids() {
            // A process may end meanwhile.
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            sum.rss += kib(&text, "Rss:");
            sum.pss += kib(&text, "Pss:");
        }
        sum
    }

    fn pids(self) -> Vec<u32> {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        let all = fs::read_dir("/proc").unwrap().flatten();
        for pid in all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
            if let Some(parent) = stat(pid).map(|fields| fields[PARENT] as u32) {
                children.entry(parent).or_default().push(pid);
            }
        }
        let mut pids = vec![self.root];
        let mut next = 0;
        while let Some(pid) = pids.get(next) {
            let of = children.get(pid).into_iter().flatten().copied();
            pids.extend(of.filter(|child| Some(*child) != self.without).collect::<Vec<_>>());
            next += 1;
        }
        pids
    }
}

/// The CPU time of this process so far: the clients and the model.
pub(crate) fn own_cpu() -> Cpu {
    cpu_of(&stat(std::process::id()).unwrap())
}

/// The time that all processors have worked so far, and the number of processors.
pub(crate) fn machine() -> (Duration, u32) {
    let text = fs::read_to_string("/proc/stat").unwrap();
    let processors = text.lines().filter(|line| line.starts_with("cpu")).count() as u32 - 1;
    let first = text.lines().next().unwrap();
    let ticks: Vec<u32> = first.split_whitespace().skip(1).map(|field| field.parse().unwrap()).collect();
    // user, nice and system; irq and softirq after idle and iowait.
    let busy = ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6];
    (TICK * busy, processors)
}

const PARENT: usize = 0;

/// The fields of `/proc/PID/stat` from the parent PID on; `None` if the process has ended.
fn stat(pid: u32) -> Option<Vec<i64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain anything; the state after it is a letter.
    let fields = text.rsplit(") ").next()?.split_whitespace().skip(1);
    Some(fields.map(|field| field.parse().unwrap_or_default()).collect())
}

fn cpu_of(stat: &[i64]) -> Cpu {
    let ticks = |index: usize| TICK * stat[index] as u32;
    let (user, kernel) = (ticks(10) + ticks(12), ticks(11) + ticks(13));
    Cpu { total: user + kernel, kernel }
}

fn kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_whitespace().nth(1)).map_or(0, |number| number.parse().unwrap())
}
