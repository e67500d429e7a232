//! `GET /metrics`: the Prometheus text format and the values of the metrics.

mod counts;
mod format;
mod rules;

use std::collections::BTreeMap;

use crate::support::daemon::Daemon;
use crate::support::http::get_text;
use crate::support::wait::wait_until_async;

const METRICS: &str = "/metrics";
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The values by name and labels, such as `codexd_child_state{state="running"}`.
type Samples = BTreeMap<String, f64>;

/// Returns the text of the page.
pub(crate) async fn page(daemon: &Daemon) -> String {
    get_text(daemon, METRICS, &[], CONTENT_TYPE).await
}

/// Returns the current values.
async fn samples(daemon: &Daemon) -> Samples {
    parse(&page(daemon).await)
}

/// Parses the values of a page; panics on a line that does not match the format.
fn parse(page: &str) -> Samples {
    let mut samples = Samples::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?} has no value"));
        let value = value.parse().unwrap_or_else(|error| panic!("{line:?}: {error}"));
        assert_eq!(samples.insert(name.to_owned(), value), None, "{name} is listed twice");
    }
    samples
}

/// Returns one value; panics if it is missing.
fn value(samples: &Samples, name: &str) -> f64 {
    *samples.get(name).unwrap_or_else(|| panic!("no {name} in {samples:#?}"))
}

/// Waits until the values satisfy `condition`.
async fn wait_for(daemon: &Daemon, what: &str, condition: impl Fn(&Samples) -> bool) -> Samples {
    wait_until_async(what, async || Some(samples(daemon).await).filter(|samples| condition(samples))).await
}
