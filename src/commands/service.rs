//! `codexd service`: installs codexd as a service of the user, removes it, starts and stops it, prints its file, and
//! reports its state and its log.

mod confirm;

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use self::confirm::manager_failure;
use super::failure::Failure;
use super::output;
use super::programs::{become_journal, become_program};
use super::runtime::runtime;
use crate::cli::{ServiceAction, ServiceArguments};
use crate::codex::INSTANCE_VARIABLE;
use crate::config::{Config, is_variable_set, variable};
use crate::service::{
    self, FileChange, ManagerError, ServiceEnvironment, ServiceError, ServiceFile, ServiceManager,
    ServiceState,
};
use crate::storage::Disk;

/// Exit code: the service is not running.
const EXIT_NOT_RUNNING: u8 = 3;

/// How many lines of the log are printed.
const LOG_LINES: &str = "200";

/// A note for Linux users, because this is often unexpected.
const LINGER: &str = "It runs while you are logged in; \"loginctl enable-linger\" makes it run from boot.";

/// In a service with variables of its own, executes this program again with them; see [`service::enter_environment`].
pub(super) fn enter_environment() -> Result<(), Failure> {
    service::enter_environment().map_err(refused)
}

pub(crate) fn run(arguments: ServiceArguments) -> Result<ExitCode, Failure> {
    let ServiceArguments { action, service_env: added, no_service_env: removed, daemon } = arguments;
    let (config, json) = (&super::config::resolve(daemon.settings)?, daemon.json);
    if action != ServiceAction::Install && !(added.is_empty() && removed.is_empty()) {
        return Err(Failure::usage(
            "--service-env and --no-service-env are flags of \"codexd service install\" only.",
        ));
    }
    let is_read_only = matches!(action, ServiceAction::Status | ServiceAction::Print | ServiceAction::Logs);
    // The stop would end this command too, before it can start the service again.
    if !is_read_only && is_variable_set(INSTANCE_VARIABLE) {
        return Err(Failure::new(
            "This command was started by Codex in a session of codexd, and would end with the service; type it in a \
             terminal of your own.",
        ));
    }
    match action {
        ServiceAction::Install => install(config, &added, &removed, json),
        ServiceAction::Uninstall => uninstall(json),
        ServiceAction::Start => start(config, json, false),
        ServiceAction::Restart => start(config, json, true),
        ServiceAction::Stop => stop(json),
        ServiceAction::Status => status(config, json),
        ServiceAction::Logs => logs(),
        ServiceAction::Print => print(config, json),
    }
}

fn install(config: &Config, added: &[String], removed: &[String], json: bool) -> Result<ExitCode, Failure> {
    let manager = ServiceManager::for_this_system();
    let stored = ServiceEnvironment::of_this_user().map_err(refused)?;
    let mut environment = stored.clone();
    environment.change(added, removed, variable).map_err(refused)?;
    let service = ServiceFile::with_environment(config, &environment).map_err(refused)?;
    let change = write(&service, &stored, &environment)?;
    let runtime = runtime()?;
    let reason = absent_reason(runtime.block_on(manager.install(&service.path, change)))?;
    if reason.is_none() {
        runtime.block_on(confirm::until_answering(&manager, config, &service.path))?;
    }
    let next = if reason.is_some() { manager.load_commands(&service.path) } else { Vec::new() };
    let mut notes = service.notes;
    notes.extend(variables_note(&environment));
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
            "variables": environment.names().collect::<Vec<_>>(),
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

/// Writes the service file and the file with its variables; what the service was started with is another one if either is.
fn write(
    service: &ServiceFile,
    stored: &ServiceEnvironment,
    environment: &ServiceEnvironment,
) -> Result<FileChange, Failure> {
    let disk = Disk::default();
    let write_variables = || {
        let written = if stored == environment { Ok(()) } else { environment.write(&disk) };
        written.map_err(|error| failed("written", environment.path(), &error))
    };
    let write_service = || service.write(&disk).map_err(|error| failed("written", &service.path, &error));
    // The service file never names a file that does not exist.
    let change = if environment.is_empty() {
        let change = write_service()?;
        write_variables()?;
        change
    } else {
        write_variables()?;
        write_service()?
    };
    Ok(match change {
        FileChange::Unchanged if stored != environment => FileChange::Updated,
        change => change,
    })
}

/// Names the variables that are passed to the service.
fn variables_note(environment: &ServiceEnvironment) -> Option<String> {
    let names: Vec<_> = environment.names().collect();
    let path = environment.path().display();
    (!names.is_empty()).then(|| format!("The service gets {} from {path}.", names.join(", ")))
}

fn uninstall(json: bool) -> Result<ExitCode, Failure> {
    let (path, manager) = (service::file().map_err(refused)?, ServiceManager::for_this_system());
    let runtime = runtime()?;
    let reason = absent_reason(runtime.block_on(manager.uninstall()))?;
    let removed =
        service::remove(&Disk::default(), &path).map_err(|error| failed("removed", &path, &error))?;
    let variables = service::variables_file().map_err(refused)?;
    service::remove(&Disk::default(), &variables).map_err(|error| failed("removed", &variables, &error))?;
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

/// Starts the installed service, or restarts it.
fn start(config: &Config, json: bool, is_restart: bool) -> Result<ExitCode, Failure> {
    let (path, manager) = (service::file().map_err(refused)?, ServiceManager::for_this_system());
    if !path.exists() {
        return Err(Failure::new(format!(
            "codexd is not installed as a service: {} does not exist. \"codexd service install\" installs it.",
            path.display()
        )));
    }
    let pid = runtime()?.block_on(async {
        let outcome = if is_restart { manager.restart(&path).await } else { manager.start(&path).await };
        outcome.map_err(manager_failure)?;
        confirm::until_answering(&manager, config, &path).await
    })?;
    if json {
        output::print_json(&json!({ "ok": true, "manager": manager.name(), "pid": pid }))?;
    } else {
        output::print(&format!("{} runs codexd, PID {pid}.", manager.name()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn stop(json: bool) -> Result<ExitCode, Failure> {
    let manager = ServiceManager::for_this_system();
    runtime()?.block_on(manager.stop()).map_err(manager_failure)?;
    if json {
        output::print_json(&json!({ "ok": true, "manager": manager.name() }))?;
    } else {
        output::print(
            "Stopped codexd; it starts again at the next login, or with \"codexd service start\".",
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn status(config: &Config, json: bool) -> Result<ExitCode, Failure> {
    let manager = ServiceManager::for_this_system();
    let environment = ServiceEnvironment::of_this_user().map_err(refused)?;
    let service = ServiceFile::with_environment(config, &environment).map_err(refused)?;
    let file = service.change().map_err(|error| failed("read", &service.path, &error))?;
    let state = runtime()?.block_on(manager.state());
    let running = state.as_ref().is_ok_and(|state| state.running);
    if json {
        output::print_json(&json!({
            "running": running,
            "path": service.path,
            "file": file_state(file),
            "variables": environment.names().collect::<Vec<_>>(),
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
        let mut rows = vec![("file", about_file), (manager.name(), about_state)];
        if !environment.is_empty() {
            rows.push(("variables", environment.names().collect::<Vec<_>>().join(", ")));
        }
        output::print(&output::table(&rows))?;
    }
    Ok(if running { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NOT_RUNNING) })
}

/// Becomes a program that prints the end of the log, whether the service runs or not.
fn logs() -> Result<ExitCode, Failure> {
    if ServiceManager::for_this_system().name() == "systemd" {
        let failure = become_journal(LOG_LINES, false);
        return Err(Failure::new(format!(
            "{} The log is also in codexd.log, in the logs directory that \"codexd config\" names.",
            failure.message
        )));
    }
    let path = service::launchd_log().map_err(refused)?;
    Err(become_program("tail", &["-n", LOG_LINES, &path.to_string_lossy()]))
}

fn print(config: &Config, json: bool) -> Result<ExitCode, Failure> {
    let environment = ServiceEnvironment::of_this_user().map_err(refused)?;
    let service = ServiceFile::with_environment(config, &environment).map_err(refused)?;
    let notes: Vec<_> = service.notes.into_iter().chain(variables_note(&environment)).collect();
    if json {
        let variables: Vec<_> = environment.names().collect();
        output::print_json(
            &json!({ "path": service.path, "text": service.text, "variables": variables, "notes": notes }),
        )?;
    } else {
        output::print(service.text.trim_end())?;
        notes.iter().for_each(|note| output::print_error(&format!("codexd: {note}")));
    }
    Ok(ExitCode::SUCCESS)
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
        return "not loaded, so it does not run".to_owned();
    }
    let mut parts = vec![state.description.clone()];
    parts.extend(state.pid.map(|pid| format!("pid {pid}")));
    parts.extend(state.last_exit.as_ref().map(|exit| format!("last ended with {exit}")));
    parts.extend(state.restarting.then(|| "is started again after a pause".to_owned()));
    let reload = "the program was replaced, \"codexd service restart\" is needed";
    parts.extend(state.needs_reload.then(|| reload.to_owned()));
    parts.extend(state.enabled.and_then(|enabled| (!enabled).then(|| "does not start at login".to_owned())));
    parts.join(", ")
}

/// A missing service manager is no failure; returns the reason.
fn absent_reason(outcome: Result<(), ManagerError>) -> Result<Option<String>, Failure> {
    match outcome {
        Ok(()) => Ok(None),
        Err(error) if error.is_absent() => Ok(Some(error.to_string())),
        Err(error) => Err(manager_failure(error)),
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
