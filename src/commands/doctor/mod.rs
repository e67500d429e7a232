//! `codexd doctor`: looks at everything that codexd needs, whether one runs or not, and changes nothing.

mod app_server;
mod daemon;
mod machine;

use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use super::{Failure, output, runtime};
use crate::config::Config;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Health {
    /// As it should be.
    Ok,
    /// Worth a look; codexd works with it.
    Warn,
    /// codexd does not work, or not for long.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    status: Health,
    /// What was found, as a sentence.
    detail: String,
    /// What to do, as a sentence.
    advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, status: Health::Ok, detail: detail.into(), advice: None }
    }

    fn warn(name: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, status: Health::Warn, detail: detail.into(), advice: Some(advice.into()) }
    }

    fn fail(name: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { status: Health::Fail, ..Self::warn(name, detail, advice) }
    }
}

pub(crate) fn run(config: Config, json: bool) -> Result<ExitCode, Failure> {
    let config = Arc::new(config);
    let checks = runtime()?.block_on(look(&config));
    let count = |status| checks.iter().filter(|check| check.status == status).count();
    let (failed, warned) = (count(Health::Fail), count(Health::Warn));
    if json {
        output::say_json(&json!({ "ok": failed == 0, "checks": checks }))?;
    } else {
        let rows: Vec<_> = checks.iter().map(|check| (check.name, words_of(check))).collect();
        output::say(&output::table(&rows))?;
        output::say(&match (failed, warned) {
            (0, 0) => "All is well.".to_owned(),
            _ => format!("{failed} failed, {warned} to look at."),
        })?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn words_of(check: &Check) -> String {
    let status = match check.status {
        Health::Ok => "ok  ",
        Health::Warn => "warn",
        Health::Fail => "fail",
    };
    match &check.advice {
        Some(advice) => format!("{status}  {} {advice}", check.detail),
        None => format!("{status}  {}", check.detail),
    }
}

async fn look(config: &Arc<Config>) -> Vec<Check> {
    let mut checks = app_server::look(config).await;
    checks.extend(daemon::look(config).await);
    checks.extend(machine::look(config));
    checks
}
