//! Draws the samples of a run as an SVG: one panel per quantity, one line per daemon, a mark per restart.
//!
//! The colours follow the viewer's light or dark mode, and texts are text.

use std::fmt::Write;

use super::series::{Mark, Percentiles, Sample};

const COLUMNS: usize = 2;
const PANEL_WIDTH: f64 = 560.0;
const PANEL_HEIGHT: f64 = 190.0;
/// The space of a panel around its axes, for the title above, the labels below and at the left.
const TOP: f64 = 30.0;
const BOTTOM: f64 = 26.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 14.0;
/// The space above all panels, for the title and the legend.
const HEADER: f64 = 58.0;
/// About how many labels an axis has.
const TICKS: f64 = 5.0;

const STYLE: &str = "
  svg { background: #fff; color: #1b1f24; font: 12px system-ui, sans-serif }
  text { fill: currentColor } .title { font-size: 16px; font-weight: 600 } .panel { font-weight: 600 }
  .grid { stroke: currentColor; stroke-opacity: .14 } .label { fill-opacity: .7; font-size: 11px }
  .line { fill: none; stroke-width: 1.5; stroke-linejoin: round } .p99 { stroke-dasharray: 3 3 }
  .mark { stroke-width: 1; stroke-opacity: .55 } .app-server { stroke-opacity: .25; stroke-dasharray: 1 3 }
  .d0 { stroke: #0969da } .d1 { stroke: #bc4c00 } .d2 { stroke: #1a7f37 } .d3 { stroke: #8250df }
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117; color: #e6edf3 }
    .d0 { stroke: #58a6ff } .d1 { stroke: #f0883e } .d2 { stroke: #3fb950 } .d3 { stroke: #bc8cff }
  }";

/// One panel: its title, its unit, and its value for a sample; the second value is a dashed line.
struct Panel {
    title: &'static str,
    unit: &'static str,
    value: fn(&Sample) -> Option<f64>,
    dashed: Option<fn(&Sample) -> Option<f64>>,
}

const PANELS: [Panel; 12] = [
    Panel::new("Resident memory", "MiB", |s| Some(s.rss_kib as f64 / 1024.0)),
    Panel::new("Anonymous memory", "MiB", |s| Some(s.anonymous_kib as f64 / 1024.0)),
    Panel::new("Open descriptors", "", |s| Some(s.descriptors as f64)),
    Panel::new("Threads", "", |s| Some(s.threads as f64)),
    Panel::new("Child processes (dashed: ended, not waited for)", "", |s| Some(s.children as f64))
        .dashed(|s| Some(s.zombies as f64)),
    Panel::new("CPU time", "% of a core", |s| s.cpu_percent),
    Panel::new("State directory", "MiB", |s| Some(s.state_bytes as f64 / 1_048_576.0)),
    Panel::new("Logs directory", "MiB", |s| Some(s.logs_bytes as f64 / 1_048_576.0)),
    Panel::new("POST turn, p50 (dashed: p99)", "ms", |s| p50(s.accept)).dashed(|s| p99(s.accept)),
    Panel::new("First delta of a turn, p50 (dashed: p99)", "ms", |s| p50(s.first_delta))
        .dashed(|s| p99(s.first_delta)),
    Panel::new("GET /healthz, p50 (dashed: p99)", "ms", |s| p50(s.healthz)).dashed(|s| p99(s.healthz)),
    Panel::new("Turns measured per interval", "", |s| Some(s.accept.map_or(0.0, |times| times.count as f64))),
];

impl Panel {
    const fn new(title: &'static str, unit: &'static str, value: fn(&Sample) -> Option<f64>) -> Self {
        Self { title, unit, value, dashed: None }
    }

    const fn dashed(self, value: fn(&Sample) -> Option<f64>) -> Self {
        Self { dashed: Some(value), ..self }
    }
}

fn p50(times: Option<Percentiles>) -> Option<f64> {
    times.map(|times| times.p50)
}

fn p99(times: Option<Percentiles>) -> Option<f64> {
    times.map(|times| times.p99)
}

/// Where a panel stands, and the ranges of its axes, both from 0.
struct Scale {
    left: f64,
    top: f64,
    end_seconds: f64,
    end_value: f64,
}

impl Scale {
    fn x(&self, seconds: f64) -> f64 {
        self.left + LEFT + seconds / self.end_seconds * (PANEL_WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        self.top + TOP + (1.0 - value / self.end_value) * (PANEL_HEIGHT - TOP - BOTTOM)
    }
}

/// The document. `daemons` are the names in the samples, in the order of the legend.
pub(crate) fn svg(title: &str, daemons: &[&str], samples: &[Sample], marks: &[Mark]) -> String {
    let width = PANEL_WIDTH * COLUMNS as f64;
    let height = HEADER + PANEL_HEIGHT * PANELS.len().div_ceil(COLUMNS) as f64;
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n<title>{0}</title>\n\
         <style>{STYLE}\n</style>\n<text class=\"title\" x=\"16\" y=\"24\">{0}</text>\n",
        escape(title)
    );
    legend(&mut out, daemons);
    let end_seconds = samples.iter().map(|sample| sample.seconds).fold(1.0, f64::max);
    for (index, panel) in PANELS.iter().enumerate() {
        let values = samples.iter().flat_map(|sample| {
            [(panel.value)(sample), panel.dashed.and_then(|value| value(sample))].into_iter().flatten()
        });
        let end_value = values.fold(0.0, f64::max);
        let end_value = if end_value > 0.0 { end_value * 1.08 } else { 1.0 };
        let left = PANEL_WIDTH * (index % COLUMNS) as f64;
        let top = HEADER + PANEL_HEIGHT * (index / COLUMNS) as f64;
        draw(&mut out, panel, &Scale { left, top, end_seconds, end_value }, daemons, samples, marks);
    }
    out.push_str("</svg>\n");
    out
}

fn legend(out: &mut String, daemons: &[&str]) {
    for (index, name) in daemons.iter().enumerate() {
        let x = 16.0 + 150.0 * index as f64;
        let _ = writeln!(
            out,
            "<path class=\"line d{index}\" d=\"M{x} 41h18\"/><text x=\"{}\" y=\"45\">{}</text>",
            x + 24.0,
            escape(name)
        );
    }
    let x = 16.0 + 150.0 * daemons.len() as f64;
    let _ = writeln!(
        out,
        "<text class=\"label\" x=\"{x}\" y=\"45\">vertical: the daemon restarted; dotted: its app-server was killed</text>"
    );
}

fn draw(
    out: &mut String,
    panel: &Panel,
    scale: &Scale,
    daemons: &[&str],
    samples: &[Sample],
    marks: &[Mark],
) {
    let unit = if panel.unit.is_empty() { String::new() } else { format!(", {}", panel.unit) };
    let _ = writeln!(
        out,
        "<text class=\"panel\" x=\"{:.0}\" y=\"{:.0}\">{}{unit}</text>",
        scale.left + LEFT,
        scale.top + TOP - 10.0,
        escape(panel.title)
    );
    for value in ticks(scale.end_value) {
        let (y, from, to) = (scale.y(value), scale.x(0.0), scale.x(scale.end_seconds));
        let _ = writeln!(
            out,
            "<path class=\"grid\" d=\"M{from:.1} {y:.1}H{to:.1}\"/>\
             <text class=\"label\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{value}</text>",
            from - 6.0,
            y + 4.0
        );
    }
    let minutes = ticks(scale.end_seconds / 60.0);
    for (index, minute) in minutes.iter().enumerate() {
        let (x, bottom) = (scale.x(minute * 60.0), scale.y(0.0));
        let unit = if index + 1 == minutes.len() { " min" } else { "" };
        let _ = writeln!(
            out,
            "<path class=\"grid\" d=\"M{x:.1} {bottom:.1}V{:.1}\"/>\
             <text class=\"label\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{minute}{unit}</text>",
            scale.y(scale.end_value),
            bottom + 15.0
        );
    }
    for (index, daemon) in daemons.iter().enumerate() {
        for mark in marks.iter().filter(|mark| mark.daemon == *daemon) {
            let class = if mark.event.restarts_daemon() { "" } else { " app-server" };
            let (x, y) = (scale.x(mark.seconds), scale.y(scale.end_value));
            let _ = writeln!(
                out,
                "<path class=\"mark d{index}{class}\" d=\"M{x:.1} {:.1}V{y:.1}\"/>",
                scale.y(0.0)
            );
        }
        let own: Vec<_> = samples.iter().filter(|sample| sample.daemon == *daemon).collect();
        line(out, &format!("line d{index}"), scale, &own, panel.value);
        if let Some(value) = panel.dashed {
            line(out, &format!("line p99 d{index}"), scale, &own, value);
        }
    }
}

/// One line; it is interrupted where the process changes.
fn line(
    out: &mut String,
    class: &str,
    scale: &Scale,
    samples: &[&Sample],
    value: fn(&Sample) -> Option<f64>,
) {
    let mut path = String::new();
    let mut pid = None;
    for sample in samples {
        let Some(value) = value(sample) else { continue };
        let command = if pid == Some(sample.pid) { 'L' } else { 'M' };
        pid = Some(sample.pid);
        let _ = write!(path, "{command}{:.1} {:.1}", scale.x(sample.seconds), scale.y(value));
    }
    if !path.is_empty() {
        let _ = writeln!(out, "<path class=\"{class}\" d=\"{path}\"/>");
    }
}

/// Round numbers from 0 through `end`, about [`TICKS`] of them.
fn ticks(end: f64) -> Vec<f64> {
    let raw = end / TICKS;
    let magnitude = 10_f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * magnitude >= raw).unwrap_or(10.0);
    let step = factor * magnitude;
    // Rounded to the digits of the step, so that 0.1 + 0.2 is printed as 0.3.
    let round = |value: f64| (value / step).round() * step;
    let count = (end / step).floor() as usize;
    let decimals = (-step.log10().floor()).max(0.0) as i32;
    let power = 10_f64.powi(decimals);
    (0..=count).map(|index| (round(index as f64 * step) * power).round() / power).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
