//! `codexd service`: installs codexd as a service of the user, removes it, prints its file, and reports its state.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::failure::Failure;
use super::output;
use super::runtime::runtime;
use crate::cli::ServiceAction;
use crate::config::Config;
use crate::service::{
    self, FileChange, ManagerError, ServiceError, ServiceFile, ServiceManager, ServiceState,
};
use crate::storage::Disk;

/// Exit code: the service is not running.
const EXIT_NOT_RUNNING: u8 = 3;

/// A note for Linux users, because this is often unexpected.
const LINGER: &str = "It runs while you are logged in; \"loginctl enable-linger\" makes it run from boot.";

pub(crate) fn run(config: &Config, action: ServiceAction, json: bool) -> Result<ExitCode, Failure> {
    match action {
        ServiceAction::Install => install(config, json),
        ServiceAction::Uninstall => uninstall(json),
        ServiceAction::Status => status(config, json),
        ServiceAction::Print => print(config, json),
    }
}

fn install(config: &Config, json: bool) -> Result<ExitCode, Failure> {
    let (service, manager) = (service_file(config)?, ServiceManager::for_this_system());
    let change = service.write(&Disk::default()).map_err(|error| failed("written", &service.path, &error))?;
    let reason = absent_reason(runtime()?.block_on(manager.load(&service.path, change)))?;
    let next = if reason.is_some() { manager.load_commands(&service.path) } else { Vec::new() };
    let mut notes = service.notes;
    if manager.name() == "systemd" {
        notes.push(LINGER.to_owned());
    }
    if json {
        output::print_json(&json!({
            "ok": true,
            "change": change,
            "path": service.path,
            "manager": manager.name(),
            "loaded": reason.is_none(),
            "reason": reason,
            "next": next,
            "notes": notes,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let path = service.path.display();
    output::print(&match change {
        FileChange::Installed => format!("Installed {path}."),
        FileChange::Updated => format!("Updated {path}."),
        FileChange::Unchanged => format!("Unchanged: {path}."),
    })?;
    match reason {
        None => output::print(&format!("{} runs codexd and starts it at each login.", manager.name())),
        Some(reason) => print_next(&format!("codexd was not started: {reason}."), &next),
    }?;
    notes.iter().try_for_each(|note| output::print(note))?;
    Ok(ExitCode::SUCCESS)
}

fn uninstall(json: bool) -> Result<ExitCode, Failure> {
    let (path, manager) = (service::file().map_err(refused)?, ServiceManager::for_this_system());
    let runtime = runtime()?;
    let reason = absent_reason(runtime.block_on(manager.unload()))?;
    let removed =
        service::remove(&Disk::default(), &path).map_err(|error| failed("removed", &path, &error))?;
    if reason.is_none() {
        absent_reason(runtime.block_on(manager.reload()))?;
    }
    let next = if reason.is_some() { manager.unload_commands() } else { Vec::new() };
    if json {
        output::print_json(&json!({
            "ok": true,
            "removed": removed,
            "path": path,
            "manager": manager.name(),
            "unloaded": reason.is_none(),
            "reason": reason,
            "next": next,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    output::print(&match removed {
        true => format!("Removed {}; state and logs are kept.", path.display()),
        false => format!("{} does not exist; nothing was removed.", path.display()),
    })?;
    if let Some(reason) = reason {
        print_next(&format!("The state of codexd is unknown: {reason}."), &next)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn status(config: &Config, json: bool) -> Result<ExitCode, Failure> {
    let (service, manager) = (service_file(config)?, ServiceManager::for_this_system());
    let file = service.change().map_err(|error| failed("read", &service.path, &error))?;
    let state = runtime()?.block_on(manager.state());
    let running = state.as_ref().is_ok_and(|state| state.running);
    if json {
        output::print_json(&json!({
            "running": running,
            "path": service.path,
            "file": file_state(file),
            "manager": manager.name(),
            "reason": state.as_ref().err().map(ToString::to_string),
            "state": state.ok(),
        }))?;
    } else {
        let about_file = match file {
            FileChange::Installed => "not installed; \"codexd service install\" installs it".to_owned(),
            FileChange::Unchanged => format!("{}, matches these settings", service.path.display()),
            FileChange::Updated => format!(
                "{}, does not match these settings; \"codexd service install\" updates it",
                service.path.display()
            ),
        };
        let about_state = match &state {
            Ok(state) => state_text(state),
            Err(error) => error.to_string(),
        };
        output::print(&output::table(&[("file", about_file), (manager.name(), about_state)]))?;
    }
    Ok(if running { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NOT_RUNNING) })
}

fn print(config: &Config, json: bool) -> Result<ExitCode, Failure> {
    let service = service_file(config)?;
    if json {
        output::print_json(&json!({ "path": service.path, "text": service.text, "notes": service.notes }))?;
    } else {
        output::print(service.text.trim_end())?;
        service.notes.iter().for_each(|note| output::print_error(&format!("codexd: {note}")));
    }
    Ok(ExitCode::SUCCESS)
}

/// The service file for these settings.
pub(super) fn service_file(config: &Config) -> Result<ServiceFile, Failure> {
    ServiceFile::for_this_program(config).map_err(refused)
}

/// The state of the installed file, as in the JSON output.
fn file_state(file: FileChange) -> &'static str {
    match file {
        FileChange::Installed => "absent",
        FileChange::Updated => "different",
        FileChange::Unchanged => "current",
    }
}

/// Describes the state of the service, as half a sentence.
pub(super) fn state_text(state: &ServiceState) -> String {
    if !state.loaded {
        return "not loaded".to_owned();
    }
    let mut parts = vec![state.description.clone()];
    parts.extend(state.pid.map(|pid| format!("pid {pid}")));
    parts.extend(state.last_exit.as_ref().map(|exit| format!("last ended with {exit}")));
    parts.extend(state.enabled.and_then(|enabled| (!enabled).then(|| "does not start at login".to_owned())));
    parts.join(", ")
}

/// A missing service manager is no failure; returns the reason.
fn absent_reason(outcome: Result<(), ManagerError>) -> Result<Option<String>, Failure> {
    match outcome {
        Ok(()) => Ok(None),
        Err(error @ ManagerError::Absent(_)) => Ok(Some(error.to_string())),
        Err(error @ ManagerError::Failed { .. }) => Err(Failure::new(format!(
            "The service manager reported an error: {error}. \"codexd service status\" shows its state."
        ))),
    }
}

fn print_next(sentence: &str, next: &[String]) -> Result<(), Failure> {
    output::print(&format!("{sentence} Where it is available, type:\n    {}", next.join("\n    ")))
}

fn refused(error: ServiceError) -> Failure {
    Failure::usage(error.to_string())
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{} could not be {what}: {error}.", path.display()))
}
