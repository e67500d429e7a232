//! The tests of the rules and of the plot. A benchmark has no tests of its own.

#![expect(dead_code, reason = "only the run itself uses all of the rules")]

mod plot;
mod series;
mod verdict;

use series::{Event, Mark, Percentiles, Sample, slope};
use verdict::{
    CACHES_KIB, MEMORY_GROWTH_KIB, back_at_base, differences, disk, hook_differences, memory, none,
};

const NAME: &str = "fake";

/// 61 samples over this time, with these KiB of memory at each share of the time.
fn samples(seconds: f64, kib: impl Fn(f64) -> f64) -> Vec<Sample> {
    let sample = |share: f64| Sample {
        seconds: share * seconds,
        daemon: NAME,
        pid: 7,
        anonymous_kib: kib(share) as u64,
        ..Sample::default()
    };
    (0..=60).map(|index| sample(f64::from(index) / 60.0)).collect()
}

fn ten_minutes(kib: impl Fn(f64) -> f64) -> Vec<Sample> {
    samples(600.0, kib)
}

fn two_hours(kib: impl Fn(f64) -> f64) -> Vec<Sample> {
    samples(7200.0, kib)
}

fn passes(samples: &[Sample]) -> bool {
    memory(NAME, samples).passed == Some(true)
}

#[test]
fn slope_ignores_outliers() {
    let points: Vec<_> =
        (0..40).map(|x| (f64::from(x), if x % 5 == 0 { 9999.0 } else { f64::from(3 * x) })).collect();
    assert!((slope(&points).unwrap() - 3.0).abs() < 0.5, "{:?}", slope(&points));
    assert_eq!(slope(&[(1.0, 2.0)]), None);
    assert_eq!(slope(&[(1.0, 2.0), (1.0, 9.0)]), None);
}

#[test]
fn memory_that_grows_in_the_warm_up_only_passes() {
    assert!(passes(&two_hours(|share| 20_000.0 + 90_000.0 * share.min(0.33))));
}

#[test]
fn memory_that_jumps_up_and_down_passes() {
    let jumps =
        |share: f64| if ((share * 60.0).round() as u64).is_multiple_of(3) { 60_000.0 } else { 20_000.0 };
    assert!(passes(&two_hours(jumps)));
}

#[test]
fn memory_that_grows_until_the_end_fails() {
    let grows = |by_kib: f64| two_hours(move |share| 20_000.0 + by_kib / (2.0 / 3.0) * share);
    assert!(passes(&grows(MEMORY_GROWTH_KIB * 0.9)));
    assert!(!passes(&grows(MEMORY_GROWTH_KIB * 1.1)));
}

#[test]
fn caches_may_fill_in_a_short_run_only() {
    let grows = |by_kib: f64| move |share: f64| 20_000.0 + by_kib / (2.0 / 3.0) * share;
    let in_caches = MEMORY_GROWTH_KIB + CACHES_KIB * 0.9;
    assert!(passes(&ten_minutes(grows(in_caches))) && !passes(&two_hours(grows(in_caches))));
    assert!(!passes(&ten_minutes(grows(MEMORY_GROWTH_KIB + CACHES_KIB * 1.1))));
}

#[test]
fn memory_of_a_restarted_daemon_is_only_reported_and_missing_samples_fail() {
    let mut restarted = two_hours(|share| 100_000.0 * share);
    restarted[30].pid = 8;
    assert_eq!(memory(NAME, &restarted).passed, None);
    assert_eq!(memory(NAME, &[]).passed, Some(false));
}

#[test]
fn idle_counts_may_exceed_their_base_by_the_tolerance() {
    assert_eq!(back_at_base(NAME, "descriptors", 20, 22).passed, Some(true));
    assert_eq!(back_at_base(NAME, "descriptors", 20, 3).passed, Some(true));
    assert_eq!(back_at_base(NAME, "descriptors", 20, 23).passed, Some(false));
}

#[test]
fn disk_and_forbidden_things_have_bounds() {
    assert_eq!(disk(NAME, "logs", 100, 100).passed, Some(true));
    assert_eq!(disk(NAME, "logs", 101, 100).passed, Some(false));
    assert_eq!(none(NAME, "turns", "each ends", 9, &[]).passed, Some(true));
    let failed = none(NAME, "turns", "each ends", 9, &["a".to_owned(), "b".to_owned()]);
    assert_eq!(none(NAME, "turns", "each ends", 0, &[]).passed, Some(false), "nothing was checked");
    assert_eq!((failed.passed, failed.measured.as_str()), (Some(false), "2 of 9; a; b"));
}

#[test]
fn client_that_misses_repeats_or_changes_an_event_is_found() {
    let log = [(1, 11), (2, 12), (5, 15)];
    assert!(differences(&log, &log).is_empty());
    for wrong in [
        &[(1, 11), (5, 15)][..],
        &[(1, 11), (2, 12), (2, 12), (5, 15)],
        &[(2, 12), (1, 11), (5, 15)],
        &[(1, 11), (2, 99), (5, 15)],
        &[(1, 11), (2, 12), (3, 13), (5, 15)],
    ] {
        assert!(!differences(&log, wrong).is_empty(), "{wrong:?}");
    }
}

#[test]
fn hook_may_repeat_deliveries_but_neither_miss_nor_reorder_them() {
    assert!(hook_differences(&[1, 3, 4], &[1, 1, 3, 3, 4]).is_empty());
    for wrong in [&[1, 4][..], &[1, 4, 3], &[1, 2, 3, 4]] {
        assert!(!hook_differences(&[1, 3, 4], wrong).is_empty(), "{wrong:?}");
    }
}

#[test]
fn percentiles_are_values_that_occurred() {
    assert_eq!(Percentiles::of(&mut []), None);
    let mut times: Vec<_> = (1..=200).rev().map(f64::from).collect();
    assert_eq!(Percentiles::of(&mut times), Some(Percentiles { count: 200, p50: 101.0, p99: 199.0 }));
}

#[test]
fn plot_has_every_panel_line_mark_and_text() {
    let marks = [Event::DaemonKilled, Event::AppServerKilled].map(|event| Mark {
        seconds: 60.0,
        daemon: NAME,
        event,
    });
    let svg = plot::svg("A <run>", &[NAME, "codex"], &ten_minutes(|share| 60_000.0 * share), &marks);
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.contains("A &lt;run&gt;"), "{svg}");
    let count = |text: &str| svg.matches(text).count();
    assert_eq!(
        (count("class=\"panel\""), count("class=\"mark d0\""), count("mark d0 app-server")),
        (12, 12, 12)
    );
    // The daemon `codex` has no samples; four panels of the other one have none either.
    assert_eq!((count("\"line d0\""), count("\"line d1\"")), (8 + 1, 1));
    for text in ["Anonymous memory, MiB", "prefers-color-scheme: dark", ">10 min<", ">codex<", "POST turn"] {
        assert!(svg.contains(text), "{text}");
    }
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
}

#[test]
fn plot_of_nothing_is_a_document() {
    let svg = plot::svg("Nothing", &[], &[], &[]);
    assert!(!svg.contains("NaN") && !svg.contains("inf") && svg.ends_with("</svg>\n"), "{svg}");
}
