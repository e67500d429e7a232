//! The rules that decide whether a run passed. Pure: each takes what was measured and returns a verdict.

use std::collections::BTreeSet;

use super::series::{Sample, median, slope};

/// How much the memory of a daemon may grow over the last two thirds of a run.
pub(crate) const MEMORY_GROWTH_KIB: f64 = 6.0 * 1024.0;
/// What its two caches can take, 4 MiB each: the tail of the log and the turns that were read last.
pub(crate) const CACHES_KIB: f64 = 8.0 * 1024.0;
/// How long it takes until they are full, at the pace of the load and with some reserve. A shorter warm-up ends before.
pub(crate) const CACHES_FILL_SECONDS: f64 = 1800.0;
/// How many descriptors and threads more than at the start a daemon may have when it is idle again.
pub(crate) const IDLE_TOLERANCE: u64 = 2;
/// The share of a run that counts as warm-up.
const WARM_UP: f64 = 1.0 / 3.0;
/// How many differences a verdict names.
const NAMED: usize = 3;

/// The verdict on one quantity of one daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) daemon: &'static str,
    pub(crate) quantity: &'static str,
    pub(crate) rule: String,
    pub(crate) measured: String,
    /// `None` if the quantity is only reported.
    pub(crate) passed: Option<bool>,
}

impl Verdict {
    fn new(
        daemon: &'static str,
        quantity: &'static str,
        rule: String,
        measured: String,
        passed: bool,
    ) -> Self {
        Self { daemon, quantity, rule, measured, passed: Some(passed) }
    }
}

/// Memory does not grow after the warm-up: the Theil–Sen slope over the last two thirds, times their length, stays below
/// [`MEMORY_GROWTH_KIB`], or in a short run below that and [`CACHES_KIB`]. `samples` are those of one daemon. If the daemon
/// was restarted, the growth of no process says anything, so the memory is only reported.
pub(crate) fn memory(daemon: &'static str, samples: &[Sample]) -> Verdict {
    let end = samples.last().map_or(0.0, |sample| sample.seconds);
    let has_full_caches = end * WARM_UP >= CACHES_FILL_SECONDS;
    let bound_kib = MEMORY_GROWTH_KIB + if has_full_caches { 0.0 } else { CACHES_KIB };
    let warm: Vec<_> = samples.iter().filter(|sample| sample.seconds >= end * WARM_UP).collect();
    let points: Vec<_> = warm.iter().map(|sample| (sample.seconds, sample.anonymous_kib as f64)).collect();
    let mut values: Vec<_> = points.iter().map(|(_, kib)| *kib).collect();
    let usual = median(&mut values).unwrap_or(0.0) / 1024.0;
    let is_one_process = samples.windows(2).all(|pair| pair[0].pid == pair[1].pid);
    let rule = format!("anonymous memory grows by less than {:.1} MiB after the warm-up", bound_kib / 1024.0);
    let Some(slope) = slope(&points).filter(|_| is_one_process) else {
        let measured = format!("median {usual:.1} MiB");
        let rule = if is_one_process { rule } else { "reported: the daemon was restarted".to_owned() };
        // Without two samples, nothing is known about a daemon that should have been measured.
        let passed = if is_one_process { Some(false) } else { None };
        return Verdict { daemon, quantity: "memory", rule, measured, passed };
    };
    let growth = slope * (end - end * WARM_UP);
    let measured = format!(
        "median {usual:.1} MiB, {:+.2} MiB in {:.1} min ({:+.2} MiB/h)",
        growth / 1024.0,
        (end - end * WARM_UP) / 60.0,
        slope * 3600.0 / 1024.0
    );
    Verdict::new(daemon, "memory", rule, measured, growth < bound_kib)
}

/// A count of an idle daemon is back at what it was before the load, within [`IDLE_TOLERANCE`].
pub(crate) fn back_at_base(daemon: &'static str, quantity: &'static str, base: u64, now: u64) -> Verdict {
    let rule = format!("idle: at most {IDLE_TOLERANCE} more than before the load");
    Verdict::new(daemon, quantity, rule, format!("{base} before, {now} after"), now <= base + IDLE_TOLERANCE)
}

/// A number of things that must not exist is zero; `examples` are shown if it is not. Nothing was checked if `total`, the
/// number of all things, is zero, and then the rule is broken too.
pub(crate) fn none(
    daemon: &'static str,
    quantity: &'static str,
    rule: &str,
    total: usize,
    examples: &[String],
) -> Verdict {
    let mut measured = format!("{} of {total}", examples.len());
    for example in examples.iter().take(NAMED) {
        measured.push_str("; ");
        measured.push_str(example);
    }
    Verdict::new(daemon, quantity, rule.to_owned(), measured, examples.is_empty() && total > 0)
}

/// A quantity that decides nothing.
pub(crate) fn reported(daemon: &'static str, quantity: &'static str, measured: String) -> Verdict {
    Verdict { daemon, quantity, rule: "reported".to_owned(), measured, passed: None }
}

/// The largest value that was sampled stays below a bound, in bytes.
pub(crate) fn disk(daemon: &'static str, quantity: &'static str, largest: u64, bound: u64) -> Verdict {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let rule = format!("at most {:.1} MiB", mib(bound));
    Verdict::new(daemon, quantity, rule, format!("at most {:.1} MiB", mib(largest)), largest <= bound)
}

/// A client received every event of the log after its start exactly once, in order and with the same text: both are lists
/// of sequence numbers and digests. Returns the differences as sentences.
pub(crate) fn differences(log: &[(u64, u64)], received: &[(u64, u64)]) -> Vec<String> {
    let mut found = Vec::new();
    for pair in received.windows(2).filter(|pair| pair[1].0 <= pair[0].0) {
        found.push(format!("event {} after event {}", pair[1].0, pair[0].0));
    }
    let (log, received): (BTreeSet<_>, BTreeSet<_>) = (log.iter().collect(), received.iter().collect());
    found.extend(
        log.difference(&received).map(|(seq, _)| format!("event {seq} is missing or has another text")),
    );
    found
        .extend(received.difference(&log).map(|(seq, _)| format!("event {seq} is not in the log like that")));
    found
}

/// A hook got each expected event at least once, and in order if repetitions are ignored. Returns the differences as
/// sentences.
pub(crate) fn hook_differences(expected: &[u64], delivered: &[u64]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let first: Vec<u64> = delivered.iter().copied().filter(|seq| seen.insert(*seq)).collect();
    let mut found: Vec<_> = first
        .windows(2)
        .filter(|pair| pair[1] < pair[0])
        .map(|pair| format!("event {} was delivered after event {}", pair[1], pair[0]))
        .collect();
    let expected: BTreeSet<_> = expected.iter().copied().collect();
    found.extend(expected.difference(&seen).map(|seq| format!("event {seq} was not delivered")));
    found.extend(seen.difference(&expected).map(|seq| format!("event {seq} should not have been delivered")));
    found
}

/// The verdicts as a table of text.
pub(crate) fn table(verdicts: &[Verdict]) -> String {
    let mut text = String::new();
    for verdict in verdicts {
        let word = match verdict.passed {
            Some(true) => "passed",
            Some(false) => "FAILED",
            None => "-",
        };
        text.push_str(&format!(
            "{word:6}  {:16}  {:28}  {}  [{}]\n",
            verdict.daemon, verdict.quantity, verdict.measured, verdict.rule
        ));
    }
    text
}
