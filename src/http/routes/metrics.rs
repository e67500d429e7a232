//! `GET /metrics`: metrics in the Prometheus text format.
//!
//! Stateless: each scrape reads every value from the module that owns it.

use std::fmt;

use axum::extract::State;
use axum::response::Response;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::daemon::{CodexState, HookMetrics, Metrics};
use crate::http::app_state::{AppState, SharedState};
use crate::http::error::ApiError;
use crate::http::response;
use crate::http::stream::Transport;
use crate::state::ChildPhase;

/// The classic format, which every version of Prometheus supports
/// (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The label values for the state of the app-server.
const PHASES: [(&str, ChildPhase); 6] = [
    ("stopped", ChildPhase::Stopped),
    ("starting", ChildPhase::Starting),
    ("running", ChildPhase::Running),
    ("backoff", ChildPhase::Backoff),
    ("crash_loop", ChildPhase::CrashLoop),
    ("external", ChildPhase::External),
];

/// Handles `GET /metrics`.
pub(crate) async fn metrics(State(state): State<AppState>) -> Result<Response, ApiError> {
    let text = Scrape::collect(&state).await.into_text().map_err(|_| ApiError::internal())?;
    Ok(response::text(CONTENT_TYPE, text))
}

/// The values of one scrape.
#[derive(Debug)]
struct Scrape {
    version: &'static str,
    commit: &'static str,
    daemon: Metrics,
    responses: Vec<(&'static str, u64)>,
    connections: u64,
    connection_limit: u64,
    rejected: u64,
    evicted: u64,
    /// By transport of the event stream.
    subscribers: [(&'static str, u64); 2],
    max_lag: u64,
}

impl Scrape {
    async fn collect(state: &SharedState) -> Self {
        let daemon = state.daemon.metrics().await;
        let subscribers = [("websocket", Transport::WebSocket), ("sse", Transport::ServerSentEvents)];
        Self {
            version: state.daemon.config().version,
            commit: state.daemon.config().commit,
            responses: state.response_counts.by_class(),
            connections: state.limiter.len() as u64,
            connection_limit: state.limiter.limit() as u64,
            rejected: state.limiter.rejected(),
            evicted: state.limiter.evicted(),
            subscribers: subscribers.map(|(name, transport)| (name, state.subscribers.count(transport))),
            max_lag: state.subscribers.max_lag(daemon.latest_event),
            daemon,
        }
    }

    fn into_text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        // Without the `# EOF` of OpenMetrics, which this is not.
        encode_registry(&mut text, &registry)?;
        Ok(text)
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut metrics = MetricsEncoder(encoder);
        metrics.info(
            "codexd_build_info",
            "Version and commit of the daemon.",
            &[("version", self.version), ("commit", self.commit)],
        )?;
        self.daemon(&mut metrics)?;
        self.turns(&mut metrics)?;
        self.events(&mut metrics)?;
        self.hooks(&mut metrics)?;
        self.clients(&mut metrics)
    }
}

impl Scrape {
    fn daemon(&self, metrics: &mut MetricsEncoder<'_>) -> fmt::Result {
        let daemon = &self.daemon;
        if let Some(at) = daemon.started_at {
            metrics.float_gauge(
                "codexd_start_time_seconds",
                "Start time of the daemon since the Unix epoch, in seconds.",
                at,
            )?;
        }
        metrics.gauge("codexd_ready", "1 if turns can be accepted.", u64::from(daemon.is_ready))?;
        if let Some(bytes) = daemon.memory {
            metrics.gauge("process_resident_memory_bytes", "Resident memory of the daemon.", bytes)?;
        }
        let phases = PHASES.map(|(name, phase)| (name, u64::from(daemon.child_phase == phase)));
        metrics.gauges(
            "codexd_child_state",
            "1 for the current state of the app-server.",
            "state",
            &phases,
        )?;
        metrics.info(
            "codexd_codex_info",
            "Version of the Codex that runs, and of the installed one.",
            &[("version", &daemon.codex_version), ("installed_version", &daemon.installed_version)],
        )?;
        let states = CodexState::ALL.map(|(name, state)| (name, u64::from(daemon.codex == state)));
        metrics.gauges("codexd_codex_state", "1 for the current health of Codex.", "state", &states)?;
        metrics.counter(
            "codexd_child_restarts_total",
            "Scheduled restarts of the app-server, after it exited or failed to start.",
            daemon.child_restarts,
        )?;
        if let Some(bytes) = daemon.child_memory {
            metrics.gauge(
                "codexd_child_resident_memory_bytes",
                "Resident memory of the app-server and its descendants.",
                bytes,
            )?;
        }
        Ok(())
    }

    fn turns(&self, metrics: &mut MetricsEncoder<'_>) -> fmt::Result {
        let daemon = &self.daemon;
        let sessions = [("active", daemon.active_sessions), ("closed", daemon.closed_sessions)];
        metrics.gauges("codexd_sessions", "Known sessions.", "status", &sessions)?;
        metrics.gauge("codexd_turns_running", "Turns in progress.", daemon.running_turns)?;
        metrics.gauge("codexd_turns_queued", "Queued turns.", daemon.queued_turns)?;
        metrics.gauge(
            "codexd_keep_awake",
            "1 if the machine is kept from going to sleep by itself.",
            u64::from(daemon.is_kept_awake),
        )?;
        metrics.histograms(
            "codexd_turn_duration_seconds",
            "Duration of ended turns.",
            "outcome",
            &daemon.turns,
        )?;
        metrics.gauge("codexd_requests_waiting", "Open requests of the app-server.", daemon.waiting_requests)
    }

    fn events(&self, metrics: &mut MetricsEncoder<'_>) -> fmt::Result {
        let daemon = &self.daemon;
        metrics.counter("codexd_events_total", "Events written to the event log.", daemon.events)?;
        metrics.counter("codexd_event_bytes_total", "Bytes written to the event log.", daemon.event_bytes)?;
        metrics.histogram(
            "codexd_event_log_sync_duration_seconds",
            "Duration of syncs of the event log.",
            &daemon.syncs,
        )?;
        metrics.gauge(
            "codexd_event_log_failing",
            "1 if the event log cannot be written.",
            u64::from(daemon.is_storage_failing),
        )?;
        metrics.gauges(
            "codexd_event_stream_clients",
            "Clients of the event stream.",
            "form",
            &self.subscribers,
        )?;
        metrics.gauge(
            "codexd_event_stream_behind_events",
            "Events that the slowest client of the event stream has not been sent.",
            self.max_lag,
        )
    }

    fn hooks(&self, metrics: &mut MetricsEncoder<'_>) -> fmt::Result {
        let by_name = |value: fn(&HookMetrics) -> u64| {
            let hooks = self.daemon.hooks.iter();
            hooks.map(|hook| (hook.name.as_str(), value(hook))).collect::<Vec<_>>()
        };
        metrics.gauges(
            "codexd_hook_failing",
            "1 if the deliveries of the hook fail repeatedly.",
            "hook",
            &by_name(|hook| u64::from(hook.is_failing)),
        )?;
        metrics.counters(
            "codexd_hook_deliveries_total",
            "Deliveries of the hook that succeeded.",
            "hook",
            &by_name(|hook| hook.delivered),
        )?;
        metrics.counters(
            "codexd_hook_failures_total",
            "Attempts of the hook that failed.",
            "hook",
            &by_name(|hook| hook.failed),
        )?;
        metrics.counters(
            "codexd_hook_skipped_total",
            "Deliveries of the hook that were given up after 24 hours.",
            "hook",
            &by_name(|hook| hook.skipped),
        )
    }

    fn clients(&self, metrics: &mut MetricsEncoder<'_>) -> fmt::Result {
        metrics.counters(
            "codexd_http_requests_total",
            "Completed HTTP requests.",
            "status",
            &self.responses,
        )?;
        metrics.gauge("codexd_connections", "Open connections.", self.connections)?;
        metrics.gauge("codexd_connections_limit", "Limit of open connections.", self.connection_limit)?;
        metrics.counter(
            "codexd_connections_turned_away_total",
            "Connections rejected at the limit.",
            self.rejected,
        )?;
        metrics.counter(
            "codexd_connections_evicted_total",
            "Waiting connections closed for new ones at the limit.",
            self.evicted,
        )
    }
}

/// The output so far; one call per metric, by its full name.
struct MetricsEncoder<'a>(DescriptorEncoder<'a>);

impl MetricsEncoder<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.descriptor(name, help, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn float_gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.descriptor(name, help, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn gauges(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) -> fmt::Result {
        by_label(self.descriptor(name, help, MetricType::Gauge)?, label, values)
    }

    /// A counter, whose name ends in `_total`.
    ///
    /// The encoder would append that suffix itself, but only to the samples: OpenMetrics requires that, while in this
    /// format the name in `# TYPE` is that of the samples. Nothing else distinguishes a counter from a gauge here, so
    /// the samples are encoded as those of a gauge.
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.descriptor(name, help, MetricType::Counter)?.encode_gauge(&value)
    }

    fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) -> fmt::Result {
        by_label(self.descriptor(name, help, MetricType::Counter)?, label, values)
    }

    fn histogram(&mut self, name: &str, help: &str, values: &Histogram) -> fmt::Result {
        values.encode(self.descriptor(name, help, MetricType::Histogram)?)
    }

    fn histograms(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: &[(&str, Histogram)],
    ) -> fmt::Result {
        let mut metric = self.descriptor(name, help, MetricType::Histogram)?;
        values.iter().try_for_each(|(value, values)| values.encode(metric.encode_family(&[(label, *value)])?))
    }

    /// A gauge that is always 1 and carries its data in labels.
    fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) -> fmt::Result {
        self.descriptor(name, help, MetricType::Gauge)?.encode_family(&labels)?.encode_gauge(&1_u64)
    }

    fn descriptor<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }
}

fn by_label(mut metric: MetricEncoder<'_>, label: &str, values: &[(&str, u64)]) -> fmt::Result {
    values.iter().try_for_each(|(name, value)| metric.encode_family(&[(label, *name)])?.encode_gauge(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: &[f64]) -> Histogram {
        let histogram = Histogram::new([0.5, 10.0]);
        values.iter().for_each(|value| histogram.observe(*value));
        histogram
    }

    fn scrape() -> Scrape {
        let daemon = Metrics {
            is_ready: true,
            is_storage_failing: false,
            started_at: Some(1_767_323_045.678),
            memory: Some(14_000_000),
            child_memory: None,
            child_phase: ChildPhase::CrashLoop,
            codex_version: "0.171.0".to_owned(),
            installed_version: "0.172.0".to_owned(),
            codex: CodexState::LoginRefused,
            child_restarts: 7,
            active_sessions: 2,
            closed_sessions: 3,
            running_turns: 1,
            is_kept_awake: true,
            queued_turns: 0,
            turns: vec![("completed", histogram(&[0.25, 3.0])), ("failed", histogram(&[]))],
            waiting_requests: 1,
            events: 5_000_000_000,
            event_bytes: 6,
            syncs: histogram(&[60.0]),
            latest_event: 20,
            hooks: vec![HookMetrics {
                name: "notify".to_owned(),
                is_failing: true,
                delivered: 4,
                failed: 5,
                skipped: 0,
            }],
        };
        Scrape {
            version: "1.2.3",
            commit: "abc1234",
            daemon,
            responses: vec![("2xx", 8), ("4xx", 0)],
            connections: 4,
            connection_limit: 256,
            rejected: 0,
            evicted: 0,
            subscribers: [("websocket", 1), ("sse", 0)],
            max_lag: 9,
        }
    }

    /// The lines about a metric.
    fn lines(text: &str, metric: &str) -> String {
        let is_about = |line: &&str| {
            line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ").starts_with(metric)
        };
        text.lines().filter(is_about).map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn metrics_counter_has_one_name_in_all_lines() {
        let text = scrape().into_text().unwrap();
        assert_eq!(
            lines(&text, "codexd_events"),
            "# HELP codexd_events_total Events written to the event log.\n\
             # TYPE codexd_events_total counter\n\
             codexd_events_total 5000000000\n"
        );
        assert_eq!(
            lines(&text, "codexd_http_requests"),
            "# HELP codexd_http_requests_total Completed HTTP requests.\n\
             # TYPE codexd_http_requests_total counter\n\
             codexd_http_requests_total{status=\"2xx\"} 8\n\
             codexd_http_requests_total{status=\"4xx\"} 0\n"
        );
    }

    #[test]
    fn metrics_of_hooks_have_their_names() {
        let text = scrape().into_text().unwrap();
        assert!(text.contains("codexd_hook_failing{hook=\"notify\"} 1\n"), "{text}");
        assert_eq!(
            lines(&text, "codexd_hook_failures"),
            "# HELP codexd_hook_failures_total Attempts of the hook that failed.\n\
             # TYPE codexd_hook_failures_total counter\n\
             codexd_hook_failures_total{hook=\"notify\"} 5\n"
        );
    }

    #[test]
    fn metrics_histogram_has_buckets_per_label() {
        let text = scrape().into_text().unwrap();
        assert_eq!(
            lines(&text, "codexd_turn_duration_seconds"),
            "# HELP codexd_turn_duration_seconds Duration of ended turns.\n\
             # TYPE codexd_turn_duration_seconds histogram\n\
             codexd_turn_duration_seconds_sum{outcome=\"completed\"} 3.25\n\
             codexd_turn_duration_seconds_count{outcome=\"completed\"} 2\n\
             codexd_turn_duration_seconds_bucket{le=\"0.5\",outcome=\"completed\"} 1\n\
             codexd_turn_duration_seconds_bucket{le=\"10.0\",outcome=\"completed\"} 2\n\
             codexd_turn_duration_seconds_bucket{le=\"+Inf\",outcome=\"completed\"} 2\n\
             codexd_turn_duration_seconds_sum{outcome=\"failed\"} 0.0\n\
             codexd_turn_duration_seconds_count{outcome=\"failed\"} 0\n\
             codexd_turn_duration_seconds_bucket{le=\"0.5\",outcome=\"failed\"} 0\n\
             codexd_turn_duration_seconds_bucket{le=\"10.0\",outcome=\"failed\"} 0\n\
             codexd_turn_duration_seconds_bucket{le=\"+Inf\",outcome=\"failed\"} 0\n"
        );
        let syncs = lines(&text, "codexd_event_log_sync_duration_seconds_bucket");
        assert!(syncs.ends_with("_bucket{le=\"+Inf\"} 1\n") && syncs.lines().count() == 3, "{syncs}");
    }

    #[test]
    fn metrics_mark_one_state_and_omit_unknown_values() {
        let text = scrape().into_text().unwrap();
        let states = lines(&text, "codexd_child_state{");
        assert_eq!(states.lines().count(), PHASES.len());
        assert_eq!(states.matches("} 1\n").count(), 1);
        assert!(states.contains("codexd_child_state{state=\"crash_loop\"} 1\n"), "{states}");
        assert!(text.contains("codexd_start_time_seconds 1767323045.678\n"), "{text}");
        assert!(text.contains("process_resident_memory_bytes 14000000\n"), "{text}");
        assert!(!text.contains("codexd_child_resident_memory_bytes"), "{text}");
        assert!(text.contains("codexd_build_info{version=\"1.2.3\",commit=\"abc1234\"} 1\n"), "{text}");
        let codex = "codexd_codex_info{version=\"0.171.0\",installed_version=\"0.172.0\"} 1\n";
        assert!(text.contains(codex), "{text}");
    }
}
