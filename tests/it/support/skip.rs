//! Tests that are skipped: those that need something the machine does not have, and the long ones.

use std::io::Write;
use std::panic::Location;

/// The variable that makes the long tests run.
const LONG: &str = "CODEXD_TEST_LONG";

/// Prints that a test, or a part of one, is skipped and why.
///
/// Panics instead where the environment variable `variable` is `required`.
#[track_caller]
pub(crate) fn skip(variable: &str, what: &str, why: &str) {
    let text = format!("SKIPPED: {what}: {why}");
    assert!(!is_required(variable), "{text}");
    // The test runner captures what a passing test prints with `print!` and `eprint!`, but not this.
    let _ = writeln!(std::io::stderr(), "\n{text}");
}

/// Whether the long tests run; where they do not, prints that this test is skipped.
#[track_caller]
pub(crate) fn runs_long() -> bool {
    runs_long_part("the whole test")
}

/// How often a test repeats `what`: as often as the environment variable `variable` says, `long` in a run with the long
/// tests, and otherwise `short`, after printing how many are skipped.
#[track_caller]
pub(crate) fn repetitions(variable: &str, what: &str, short: u64, long: u64) -> u64 {
    if let Ok(number) = std::env::var(variable) {
        return number.parse().unwrap();
    }
    if runs_long_part(&format!("{} of {long} {what}", long - short)) { long } else { short }
}

/// Whether the long tests run; where they do not, prints that this part of the test is skipped.
#[track_caller]
pub(crate) fn runs_long_part(part: &str) -> bool {
    let is_long = is_required(LONG);
    if !is_long {
        // The test runner names the thread of a test after the test, unless it runs one test at a time.
        let thread = std::thread::current();
        let place = Location::caller().to_string();
        let test = thread.name().filter(|name| *name != "main").unwrap_or(&place);
        skip(LONG, &format!("{test}: {part}"), &format!("{LONG} is not set; .ci/run sets it"));
    }
    is_long
}

fn is_required(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value == "required")
}
