//! `GET /metrics`: that it can be read by Prometheus, and that its numbers move with what happens.

mod counts;
mod format;

use std::collections::BTreeMap;

use crate::support::daemon::Daemon;
use crate::support::http::get_text;
use crate::support::wait::wait_until_async;

const METRICS: &str = "/metrics";
const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The values by name and labels, such as `codexd_child_state{state="running"}`.
type Samples = BTreeMap<String, f64>;

/// The page as it is.
async fn page(daemon: &Daemon) -> String {
    get_text(daemon, METRICS, &[], KIND).await
}

/// The values on the page.
async fn samples(daemon: &Daemon) -> Samples {
    read(&page(daemon).await)
}

/// The values on a page; panics where a line is not one of the format.
fn read(page: &str) -> Samples {
    let mut samples = Samples::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?} has no value"));
        let value = value.parse().unwrap_or_else(|error| panic!("{line:?}: {error}"));
        assert_eq!(samples.insert(name.to_owned(), value), None, "{name} is there twice");
    }
    samples
}

/// One value, which has to be there.
fn value(samples: &Samples, name: &str) -> f64 {
    *samples.get(name).unwrap_or_else(|| panic!("no {name} in {samples:#?}"))
}

/// Waits until the values satisfy `wanted`.
async fn wait_for(daemon: &Daemon, what: &str, wanted: impl Fn(&Samples) -> bool) -> Samples {
    wait_until_async(what, async || Some(samples(daemon).await).filter(|samples| wanted(samples))).await
}
