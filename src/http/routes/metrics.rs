//! `GET /metrics`: the daemon in numbers, in the text format of Prometheus.
//!
//! Nothing is kept here: each number is asked of whoever has it when somebody wants to see it.

use std::fmt;

use axum::extract::State;
use axum::response::Response;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::daemon::{CodexState, Metrics};
use crate::http::error::ApiError;
use crate::http::stream::Transport;
use crate::http::{AppState, SharedState, response};
use crate::state::ChildPhase;

/// The classic format, which every version of Prometheus reads
/// (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The words for where the app-server is.
const PHASES: [(&str, ChildPhase); 6] = [
    ("stopped", ChildPhase::Stopped),
    ("starting", ChildPhase::Starting),
    ("running", ChildPhase::Running),
    ("backoff", ChildPhase::Backoff),
    ("crash_loop", ChildPhase::CrashLoop),
    ("external", ChildPhase::External),
];

/// All numbers, as they are now.
pub(in crate::http) async fn metrics(State(state): State<AppState>) -> Result<Response, ApiError> {
    let text = Scrape::of(&state).await.text().map_err(|_| ApiError::internal())?;
    Ok(response::text(CONTENT_TYPE, text))
}

/// What is shown at once.
#[derive(Debug)]
struct Scrape {
    version: &'static str,
    commit: &'static str,
    daemon: Metrics,
    answers: Vec<(&'static str, u64)>,
    connections: u64,
    connection_limit: u64,
    rejected: u64,
    /// By the form of the event stream.
    subscribers: [(&'static str, u64); 2],
    behind: u64,
}

impl Scrape {
    async fn of(state: &SharedState) -> Self {
        let daemon = state.daemon.metrics().await;
        let readers = [("websocket", Transport::WebSocket), ("sse", Transport::ServerSentEvents)];
        Self {
            version: state.daemon.config().version,
            commit: state.daemon.config().commit,
            answers: state.response_counts.by_class(),
            connections: state.limiter.len() as u64,
            connection_limit: state.limiter.limit() as u64,
            rejected: state.limiter.rejected(),
            subscribers: readers.map(|(name, form)| (name, state.subscribers.count(form))),
            behind: state.subscribers.max_lag(daemon.latest_event),
            daemon,
        }
    }

    fn text(self) -> Result<String, fmt::Error> {
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
        let mut page = Page(encoder);
        page.info(
            "codexd_build_info",
            "The program that is running.",
            &[("version", self.version), ("commit", self.commit)],
        )?;
        self.daemon(&mut page)?;
        self.turns(&mut page)?;
        self.events(&mut page)?;
        self.clients(&mut page)
    }
}

impl Scrape {
    fn daemon(&self, page: &mut Page<'_>) -> fmt::Result {
        let daemon = &self.daemon;
        if let Some(at) = daemon.started_at {
            page.real("codexd_start_time_seconds", "When the daemon began to serve, since 1970.", at)?;
        }
        page.gauge("codexd_ready", "1 when turns can be taken.", u64::from(daemon.is_ready))?;
        if let Some(bytes) = daemon.memory {
            page.gauge("process_resident_memory_bytes", "Memory of the daemon.", bytes)?;
        }
        let phases = PHASES.map(|(name, phase)| (name, u64::from(daemon.child_phase == phase)));
        page.gauges("codexd_child_state", "1 at what the app-server does now.", "state", &phases)?;
        let states = CodexState::ALL.map(|(name, state)| (name, u64::from(daemon.codex == state)));
        page.gauges("codexd_codex_state", "1 at how Codex is.", "state", &states)?;
        page.counter(
            "codexd_child_restarts_total",
            "How often the app-server was lost or did not start, and was to be started again.",
            daemon.child_restarts,
        )?;
        if let Some(bytes) = daemon.child_memory {
            page.gauge(
                "codexd_child_resident_memory_bytes",
                "Memory of the app-server and all processes below it.",
                bytes,
            )?;
        }
        Ok(())
    }

    fn turns(&self, page: &mut Page<'_>) -> fmt::Result {
        let daemon = &self.daemon;
        let sessions = [("active", daemon.active_sessions), ("closed", daemon.closed_sessions)];
        page.gauges("codexd_sessions", "Sessions that are remembered.", "status", &sessions)?;
        page.gauge("codexd_turns_running", "Turns under way.", daemon.running_turns)?;
        page.gauge("codexd_turns_queued", "Turns that wait for an earlier one.", daemon.queued_turns)?;
        page.histograms(
            "codexd_turn_duration_seconds",
            "How long turns took that have ended.",
            "outcome",
            &daemon.turns,
        )?;
        page.gauge(
            "codexd_requests_waiting",
            "Requests of the app-server that wait for an answer.",
            daemon.waiting_requests,
        )
    }

    fn events(&self, page: &mut Page<'_>) -> fmt::Result {
        let daemon = &self.daemon;
        page.counter("codexd_events_total", "Events written to the event log.", daemon.events)?;
        page.counter("codexd_event_bytes_total", "Bytes of those events.", daemon.event_bytes)?;
        page.histogram(
            "codexd_event_log_sync_duration_seconds",
            "How long the disk took to sync the event log.",
            &daemon.syncs,
        )?;
        page.gauge(
            "codexd_event_log_failing",
            "1 when the event log cannot be written.",
            u64::from(daemon.is_storage_failing),
        )?;
        page.gauges("codexd_event_stream_clients", "Clients that follow events.", "form", &self.subscribers)?;
        page.gauge(
            "codexd_event_stream_behind_events",
            "How many events the slowest of them has not been sent.",
            self.behind,
        )
    }

    fn clients(&self, page: &mut Page<'_>) -> fmt::Result {
        page.counters("codexd_http_requests_total", "Requests that were answered.", "status", &self.answers)?;
        page.gauge("codexd_connections", "Connections that are open.", self.connections)?;
        page.gauge("codexd_connections_limit", "How many may be open at once.", self.connection_limit)?;
        page.counter(
            "codexd_connections_turned_away_total",
            "Connections for which there was no place.",
            self.rejected,
        )
    }
}

/// What is written so far; one call for each metric, by its whole name.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.begin(name, help, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn real(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.begin(name, help, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn gauges(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) -> fmt::Result {
        by_label(self.begin(name, help, MetricType::Gauge)?, label, values)
    }

    /// A counter, whose name ends in `_total`.
    ///
    /// The encoder would add that ending by itself, but to the samples alone: so OpenMetrics wants it, while in this
    /// format the name in `# TYPE` is that of the samples.
    /// Nothing else tells a counter from a gauge here, so the samples are written as those of a gauge.
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.begin(name, help, MetricType::Counter)?.encode_gauge(&value)
    }

    fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) -> fmt::Result {
        by_label(self.begin(name, help, MetricType::Counter)?, label, values)
    }

    fn histogram(&mut self, name: &str, help: &str, values: &Histogram) -> fmt::Result {
        values.encode(self.begin(name, help, MetricType::Histogram)?)
    }

    fn histograms(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: &[(&str, Histogram)],
    ) -> fmt::Result {
        let mut metric = self.begin(name, help, MetricType::Histogram)?;
        values.iter().try_for_each(|(value, values)| values.encode(metric.encode_family(&[(label, *value)])?))
    }

    /// A gauge that is always 1 and has something to say in its labels.
    fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) -> fmt::Result {
        self.begin(name, help, MetricType::Gauge)?.encode_family(&labels)?.encode_gauge(&1_u64)
    }

    fn begin<'s>(
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
            codex: CodexState::LoginRefused,
            child_restarts: 7,
            active_sessions: 2,
            closed_sessions: 3,
            running_turns: 1,
            queued_turns: 0,
            turns: vec![("completed", histogram(&[0.25, 3.0])), ("failed", histogram(&[]))],
            waiting_requests: 1,
            events: 5_000_000_000,
            event_bytes: 6,
            syncs: histogram(&[60.0]),
            latest_event: 20,
        };
        Scrape {
            version: "1.2.3",
            commit: "abc1234",
            daemon,
            answers: vec![("2xx", 8), ("4xx", 0)],
            connections: 4,
            connection_limit: 256,
            rejected: 0,
            subscribers: [("websocket", 1), ("sse", 0)],
            behind: 9,
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
    fn a_counter_has_one_name_in_all_its_lines() {
        let text = scrape().text().unwrap();
        assert_eq!(
            lines(&text, "codexd_events"),
            "# HELP codexd_events_total Events written to the event log.\n\
             # TYPE codexd_events_total counter\n\
             codexd_events_total 5000000000\n"
        );
        assert_eq!(
            lines(&text, "codexd_http_requests"),
            "# HELP codexd_http_requests_total Requests that were answered.\n\
             # TYPE codexd_http_requests_total counter\n\
             codexd_http_requests_total{status=\"2xx\"} 8\n\
             codexd_http_requests_total{status=\"4xx\"} 0\n"
        );
    }

    #[test]
    fn a_histogram_has_its_buckets_under_each_label() {
        let text = scrape().text().unwrap();
        assert_eq!(
            lines(&text, "codexd_turn_duration_seconds"),
            "# HELP codexd_turn_duration_seconds How long turns took that have ended.\n\
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
    fn one_state_is_so_and_what_is_not_known_is_left_out() {
        let text = scrape().text().unwrap();
        let states = lines(&text, "codexd_child_state{");
        assert_eq!(states.lines().count(), PHASES.len());
        assert_eq!(states.matches("} 1\n").count(), 1);
        assert!(states.contains("codexd_child_state{state=\"crash_loop\"} 1\n"), "{states}");
        assert!(text.contains("codexd_start_time_seconds 1767323045.678\n"), "{text}");
        assert!(text.contains("process_resident_memory_bytes 14000000\n"), "{text}");
        assert!(!text.contains("codexd_child_resident_memory_bytes"), "{text}");
        assert!(text.contains("codexd_build_info{version=\"1.2.3\",commit=\"abc1234\"} 1\n"), "{text}");
    }
}
