//! `codexd upgrade --check`: tells which part is older than another, and what to do; it changes nothing.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Value, json};

use super::failure::Failure;
use super::output::{self, Fact};
use super::runtime::runtime;
use super::terminal::OutputTarget;
use crate::client::DaemonClient;
use crate::codex::protocol::versions;
use crate::config::Config;
use crate::service::{FileChange, ServiceFile};

/// One part of the installation.
#[derive(Debug, Serialize)]
struct Part {
    name: &'static str,
    /// What there is, as a sentence.
    detail: String,
    /// The command that brings it up to date.
    command: Option<&'static str>,
}

pub(crate) fn run(config: &Config, check: bool, json: bool) -> Result<ExitCode, Failure> {
    if !check {
        return Err(Failure::usage(
            "codexd does not replace itself; \"codexd upgrade --check\" tells what is outdated. Build and install the new \
             version, then run \"codexd service restart\".",
        ));
    }
    let client =
        DaemonClient::new(&config.service, output::print_warning).with_state_dir(&config.paths.state_dir);
    let status = runtime()?.block_on(client.status()).ok();
    let mut parts = vec![daemon(config, status.as_ref()), service(config)];
    // The demo reports the version of a Codex, but is none.
    let with_codex = status.filter(|status| status["service"]["codex"]["demo"] != true);
    parts.extend(with_codex.map(|status| codex(&status["snapshot"]["daemon"]["child"])));
    let is_outdated = parts.iter().any(|part| part.command.is_some());
    if json {
        output::print_json(&json!({ "ok": true, "outdated": is_outdated, "parts": parts }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let fact = |part: &Part| {
        let advice = part.command.map(|command| format!(" Type: {command}")).unwrap_or_default();
        Fact::plain(part.name, format!("{}{advice}", part.detail))
    };
    let facts: Vec<_> = parts.iter().map(fact).collect();
    output::print(&output::facts(&OutputTarget::stdout(), &facts))?;
    Ok(ExitCode::SUCCESS)
}

fn daemon(config: &Config, status: Option<&Value>) -> Part {
    let (name, own) = ("codexd", config.version);
    let running = status.and_then(|status| status["snapshot"]["config"]["version"].as_str());
    match running {
        None => Part { name, detail: format!("This program is {own}; no codexd runs."), command: None },
        Some(running) if running == own => {
            Part { name, detail: format!("This program and the daemon are {own}."), command: None }
        }
        Some(running) => {
            let detail = format!("This program is {own}, and the daemon is {running}.");
            Part { name, detail, command: Some("codexd service restart") }
        }
    }
}

fn service(config: &Config) -> Part {
    let name = "service";
    let change = ServiceFile::for_this_program(config).map_err(|error| error.to_string());
    let change =
        change.and_then(|file| file.change().map_err(|error| format!("its file cannot be read: {error}")));
    match change {
        Ok(FileChange::Installed) => Part { name, detail: "Not installed.".to_owned(), command: None },
        Ok(FileChange::Unchanged) => {
            Part { name, detail: "Its file is up to date.".to_owned(), command: None }
        }
        Ok(FileChange::Updated) => {
            let detail = "Its file is of other settings or of another version.".to_owned();
            Part { name, detail, command: Some("codexd service install") }
        }
        Err(error) => Part { name, detail: format!("Not known: {error}."), command: None },
    }
}

fn codex(child: &Value) -> Part {
    let name = "codex";
    let tested = versions::text(versions::NEWEST_TESTED);
    let (running, installed) = (child["version"].as_str(), child["installedVersion"].as_str());
    let is_old =
        |version: &str| versions::numbers(version).is_some_and(|numbers| numbers < versions::NEWEST_TESTED);
    match (running, installed) {
        (Some(running), Some(installed)) if running != installed => {
            let detail = format!("{running} runs, and {installed} is installed.");
            Part { name, detail, command: Some("codexd app-server restart --when-idle") }
        }
        (_, Some(version)) | (Some(version), None) if is_old(version) => {
            let detail = format!("{version}; codexd was tested with versions up to {tested}.");
            Part { name, detail, command: Some(versions::UPGRADE_COMMAND) }
        }
        (_, Some(version)) | (Some(version), None) => {
            let detail = versions::why_untested(version).unwrap_or_else(|| format!("{version} runs."));
            Part { name, detail, command: None }
        }
        (None, None) => Part { name, detail: "Its version is not known.".to_owned(), command: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codex_is_compared_with_the_installed_and_the_tested_version() {
        let judge = |running: Option<&str>, installed: Option<&str>| {
            codex(&json!({ "version": running, "installedVersion": installed })).command
        };
        assert_eq!(judge(Some("0.171.0"), Some("0.171.0")), None);
        assert_eq!(judge(Some("0.171.0"), Some("0.172.0")), Some("codexd app-server restart --when-idle"));
        assert_eq!(judge(Some("0.160.1"), Some("0.160.1")), Some(versions::UPGRADE_COMMAND));
        assert_eq!(judge(Some("0.172.0"), Some("0.172.0")), None);
        assert_eq!(judge(None, None), None);
    }
}
