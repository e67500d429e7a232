//! Skipped tests: those that need something the machine does not have, and the long ones.

use std::io::Write;
use std::panic::Location;

/// The environment variable that enables the long tests.
const LONG_TESTS: &str = "CODEXD_TEST_LONG";

/// Prints that a test, or a part of one, is skipped and why.
///
/// Panics instead if the environment variable `variable` is `required`.
#[track_caller]
pub(crate) fn skip(variable: &str, what: &str, why: &str) {
    let text = format!("SKIPPED: {what}: {why}");
    assert!(!is_required(variable), "{text}");
    // The test runner captures `print!` and `eprint!` of a passing test, but not this.
    let _ = writeln!(std::io::stderr(), "\n{text}");
}

/// Whether the long tests run; if not, prints that this test is skipped.
#[track_caller]
pub(crate) fn runs_long() -> bool {
    runs_long_part("the whole test")
}

/// Returns how often a test repeats `what`: the value of the environment variable `variable`, `long` in a run with the
/// long tests, and otherwise `short` after printing how many repetitions are skipped.
#[track_caller]
pub(crate) fn repetitions(variable: &str, what: &str, short: u64, long: u64) -> u64 {
    if let Ok(number) = std::env::var(variable) {
        return number.parse().unwrap();
    }
    if runs_long_part(&format!("{} of {long} {what}", long - short)) { long } else { short }
}

/// Whether the long tests run; if not, prints that this part of the test is skipped.
#[track_caller]
pub(crate) fn runs_long_part(part: &str) -> bool {
    let is_long = is_required(LONG_TESTS);
    if !is_long {
        // The test runner names the thread of a test after the test, unless it runs one test at a time.
        let thread = std::thread::current();
        let location = Location::caller().to_string();
        let test = thread.name().filter(|name| *name != "main").unwrap_or(&location);
        skip(LONG_TESTS, &format!("{test}: {part}"), &format!("{LONG_TESTS} is not set; .ci/run sets it"));
    }
    is_long
}

/// Whether an environment variable demands that nothing is skipped for its sake.
pub(crate) fn is_required(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value == "required")
}
