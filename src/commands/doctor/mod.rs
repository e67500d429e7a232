//! `codexd doctor`: checks everything that codexd needs, whether a daemon runs or not, and changes nothing.
//!
//! Each file checks one area and returns a list of [`Check`]s. A warning leaves the exit code at 0, a failure makes it
//! 1.

mod app_server;
mod check;
mod daemon;
mod machine;

use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;

use super::failure::Failure;
use super::output::{self, Fact};
use super::runtime::runtime;
use super::terminal::{BAD, GOOD, OutputTarget, WAITING};
use crate::config::Config;
use check::{Check, CheckStatus};

pub(crate) fn run(config: Config, json: bool) -> Result<ExitCode, Failure> {
    let config = Arc::new(config);
    let checks = runtime()?.block_on(check(&config));
    let count = |status| checks.iter().filter(|check| check.status == status).count();
    let (failed, warned) = (count(CheckStatus::Fail), count(CheckStatus::Warn));
    if json {
        output::print_json(&json!({ "ok": failed == 0, "checks": checks }))?;
    } else {
        let screen = OutputTarget::stdout();
        let facts: Vec<_> = checks.iter().map(fact).collect();
        output::print(&output::facts(&screen, &facts))?;
        output::print(&match (failed, warned) {
            (0, 0) => "All checks passed.".to_owned(),
            _ => format!("{failed} failed, {warned} {}.", if warned == 1 { "warning" } else { "warnings" }),
        })?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Why turns with Codex would fail, and what to do; `None` when nothing is known that makes them fail.
pub(crate) fn why_unusable(config: &Arc<Config>) -> Result<Option<String>, Failure> {
    let checks = runtime()?.block_on(app_server::check(config));
    let failed = checks.into_iter().find(|check| check.status == CheckStatus::Fail);
    Ok(failed.map(|check| format!("{} {}", check.detail, check.advice.unwrap_or_default())))
}

fn fact(check: &Check) -> Fact<'_> {
    let mark = match check.status {
        CheckStatus::Ok => ("ok  ", GOOD),
        CheckStatus::Warn => ("warn", WAITING),
        CheckStatus::Fail => ("fail", BAD),
    };
    let advice = check.advice.iter().map(|advice| format!(" {advice}")).collect::<String>();
    Fact { mark: Some(mark), ..Fact::plain(check.name, format!("{}{advice}", check.detail)) }
}

async fn check(config: &Arc<Config>) -> Vec<Check> {
    let mut checks = app_server::check(config).await;
    checks.extend(daemon::check(config).await);
    checks.extend(machine::check(config));
    checks
}
