//! The samples of a run, and the statistics on them.

use serde::Serialize;

/// What one daemon used at one moment, and its latencies since the sample before.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sample {
    /// The time since the start of the run.
    pub(crate) seconds: f64,
    /// The name of the daemon, as in the legend of the plot.
    pub(crate) daemon: &'static str,
    /// The PID, which changes with each restart.
    pub(crate) pid: u32,
    /// All resident memory (`VmRSS`).
    pub(crate) rss_kib: u64,
    /// The part of it that no file backs (`RssAnon`).
    pub(crate) anonymous_kib: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
    /// The processes whose parent it is; `zombies` are those of them that have ended.
    pub(crate) children: u64,
    pub(crate) zombies: u64,
    /// The size of all files in the state directory and in the logs directory.
    pub(crate) state_bytes: u64,
    pub(crate) logs_bytes: u64,
    /// The CPU time of the process since its start.
    pub(crate) cpu_seconds: f64,
    /// The CPU time since the sample before, in percent of one core; `None` for the first sample of a process.
    pub(crate) cpu_percent: Option<f64>,
    /// From `POST /v1/codexd/turn` to its response.
    pub(crate) accept: Option<Percentiles>,
    /// From `POST /v1/codexd/turn` to the first delta of the turn on a WebSocket.
    pub(crate) first_delta: Option<Percentiles>,
    /// `GET /healthz` on a new connection.
    pub(crate) healthz: Option<Percentiles>,
}

/// The distribution of some times, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) count: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Something that was done to a daemon.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Mark {
    pub(crate) seconds: f64,
    pub(crate) daemon: &'static str,
    pub(crate) event: Event,
}

/// What a [`Mark`] marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Event {
    AppServerKilled,
    DaemonKilled,
    DaemonRestarted,
}

impl Event {
    /// Whether the daemon is another process afterwards.
    pub(crate) fn restarts_daemon(self) -> bool {
        self != Self::AppServerKilled
    }
}

impl Percentiles {
    /// The distribution of these times; `None` without any.
    pub(crate) fn of(milliseconds: &mut [f64]) -> Option<Self> {
        milliseconds.sort_by(f64::total_cmp);
        let count = milliseconds.len();
        let at = |percent: usize| milliseconds.get((count * percent / 100).min(count.saturating_sub(1)));
        Some(Self { count, p50: *at(50)?, p99: *at(99)? })
    }
}

/// The Theil–Sen estimate of a slope: the median of the slopes between all pairs of points. Up to 29 percent of the
/// points can be outliers without an effect. `None` without two points of different `x`.
pub(crate) fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let mut slopes = Vec::new();
    for (index, (x, y)) in points.iter().enumerate() {
        let later = points.iter().skip(index + 1).filter(|(other, _)| other != x);
        slopes.extend(later.map(|(other_x, other_y)| (other_y - y) / (other_x - x)));
    }
    median(&mut slopes)
}

/// The median; `None` without values.
pub(crate) fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
