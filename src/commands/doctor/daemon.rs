//! Checks the running daemon, the address, the token and the service.

use std::path::Path;

use serde_json::Value;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::super::demo::DIRECTORY as DEMO_DIRECTORY;
use super::super::output;
use super::super::service::state_text;
use super::super::status::holder;
use super::check::Check;
use crate::client::{ClientError, DaemonClient};
use crate::config::{Config, is_variable_set, variable};
use crate::daemon::PROTECTED_DIRECTORY;
use crate::http::{Peer, peer_of, read_token};
use crate::service::{
    self, FileChange, ManagerError, ServiceEnvironment, ServiceFile, ServiceManager, installed_variable,
};

/// Variables of proxies, certificates and accounts, without which Codex may work in a terminal only.
const SHELL_VARIABLES: [&str; 13] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CODEX_CA_CERTIFICATE",
    "CODEX_API_KEY",
    "OPENAI_API_KEY",
];

pub(super) async fn check(config: &Config) -> Vec<Check> {
    let mut service_config = config.service.clone();
    // A token file that cannot be used has its own check.
    service_config.auth.auth_token_file.take_if(|path| read_token(path).is_err());
    let client =
        DaemonClient::new(&service_config, output::print_warning).with_state_dir(&config.paths.state_dir);
    let answer = match config.service.local_api_base.socket_address().port() {
        0 => None,
        _ => Some(client.status().await),
    };
    let [daemon, address] = daemon_and_address(config, answer.as_ref());
    let is_rejected =
        matches!(&answer, Some(Err(ClientError::Refused { code, .. })) if code == "unauthorized");
    let token = token(config, is_rejected, client.token_file());
    let status = answer.as_ref().and_then(|answer| answer.as_ref().ok());
    let mut checks = vec![daemon, address, token, service(config).await, keep_awake(status)];
    checks.extend(protected_directories(status));
    checks.extend(other_users(config).await);
    let installed = service::file().ok().and_then(|file| std::fs::read_to_string(file).ok());
    let variables = ServiceEnvironment::of_this_user().ok();
    if let Some((file, variables)) = installed.zip(variables) {
        checks.extend(missing_variables(|name| {
            is_variable_set(name) && installed_variable(&file, name).is_none() && !variables.has(name)
        }));
        checks.extend(different_variables(|name| {
            variable(name).is_some_and(|value| variables.differs(name, &value))
        }));
    }
    checks
}

/// The directories that the daemon cannot read; this process may have other permissions.
fn protected_directories(status: Option<&Value>) -> Vec<Check> {
    let notes = status.and_then(|status| status["service"]["codex"]["notes"].as_array());
    let notes = notes.into_iter().flatten().filter_map(Value::as_str);
    let protected = notes.filter(|note| note.starts_with(PROTECTED_DIRECTORY));
    let advice = "docs/operations.md explains the directories that macOS protects.";
    protected.map(|note| Check::warn("directories", format!("{note}."), advice)).collect()
}

/// Names the environment variables that a command of Codex may need, that this shell has, and that were not passed to the
/// service; the manager may have them.
fn missing_variables(is_missing: impl Fn(&str) -> bool) -> Option<Check> {
    let (names, flags) = shell_variables(is_missing)?;
    let detail = format!("This shell has {names}, and the service does not.");
    let advice =
        format!("If Codex needs that, type, with the settings of the service: codexd service install{flags}");
    Some(Check::warn("variables", detail, advice))
}

/// Names those that were passed to the service with another value than this shell has.
fn different_variables(is_different: impl Fn(&str) -> bool) -> Option<Check> {
    let (names, flags) = shell_variables(is_different)?;
    let detail = format!("The service has other values of {names} than this shell.");
    let advice = format!(
        "If those of this shell are right, type, with the settings of the service: codexd service install{flags}"
    );
    Some(Check::warn("variables", detail, advice))
}

/// The names among [`SHELL_VARIABLES`] that `is_selected`, for a sentence and as flags of `service install`.
fn shell_variables(is_selected: impl Fn(&str) -> bool) -> Option<(String, String)> {
    let names: Vec<_> = SHELL_VARIABLES.into_iter().filter(|name| is_selected(name)).collect();
    let flags = names.iter().map(|name| format!(" --service-env {name}")).collect();
    (!names.is_empty()).then(|| (names.join(", "), flags))
}

/// Checks whether other users can be rejected; nothing is shown where that is so.
async fn other_users(config: &Config) -> Option<Check> {
    let peer = async {
        let listener = TcpListener::bind("127.0.0.1:0").await.ok()?;
        let client = TcpStream::connect(listener.local_addr().ok()?).await.ok()?;
        let (server, remote) = listener.accept().await.ok()?;
        let peer = peer_of(remote, server.local_addr().ok()?).await;
        drop(client);
        Some(peer)
    };
    let Some(Peer::Unknown(reason)) = peer.await else { return None };
    let detail = format!("The user of a connection cannot be determined: {reason}.");
    let has_token = config.service.auth.auth_token_file.is_some();
    let advice = "Other users of this machine may connect; set --auth-token-file to keep them out.";
    (!has_token).then(|| Check::warn("users", detail, advice))
}

/// Checks which process uses the directories, and which one listens at the address.
fn daemon_and_address(config: &Config, answer: Option<&Result<Value, ClientError>>) -> [Check; 2] {
    let base = &config.service.local_api_base;
    let holder = holder(config);
    let held = |why: &str, advice: &str| match &holder {
        Ok(None) => Check::ok("daemon", "No codexd uses these directories."),
        Ok(Some(holder)) => {
            Check::fail("daemon", format!("The directories are in use by {holder}, which {why}."), advice)
        }
        Err(error) => Check::warn(
            "daemon",
            format!("The locks of the directories cannot be read: {error}."),
            "Make the directories readable for your user.",
        ),
    };
    let elsewhere = || {
        let advice = "Check whether it was started with another --local-api-base; stop it if it hangs.";
        held(&format!("does not answer at {base}"), advice)
    };
    match answer {
        None => {
            let daemon = match &holder {
                Ok(Some(holder)) => Check::ok("daemon", format!("The directories are in use by {holder}.")),
                _ => held("", ""),
            };
            [daemon, Check::ok("address", "The system chooses the port, so it cannot be in use.")]
        }
        Some(Ok(status)) => {
            let snapshot = &status["snapshot"];
            let (pid, version) = (&snapshot["daemon"]["pid"], text(&snapshot["config"]["version"]));
            let state_dir = text(&snapshot["config"]["paths"]["stateDir"]);
            let is_demo = status["service"]["codex"]["demo"] == true;
            let demo = if is_demo { "the demo of " } else { "" };
            let named = format!("{demo}codexd {version} with PID {pid}");
            if Path::new(state_dir) == config.paths.state_dir {
                let address = Check::ok("address", format!("The daemon listens at {base}."));
                return [running(config, &named, version, &status["service"]), address];
            }
            let detail = format!("{base} is in use by {named}, whose state is in {state_dir}.");
            let address = if is_demo && Path::new(state_dir) == config.paths.state_dir.join(DEMO_DIRECTORY) {
                Check::warn("address", detail, "Before codexd starts with Codex, type: codexd stop")
            } else {
                let advice = "Stop that one, or choose another address with --local-api-base.";
                Check::fail("address", detail, advice)
            };
            [elsewhere(), address]
        }
        Some(Err(ClientError::Unreachable { .. })) => [elsewhere(), free(config)],
        Some(Err(ClientError::Refused { message, .. })) => {
            let address = Check::warn(
                "address",
                format!("A codexd listens at {base} but did not report its status: {message}"),
                "Set the --auth-token-file that it was started with.",
            );
            let daemon = match &holder {
                Ok(Some(holder)) => Check::ok("daemon", format!("The directories are in use by {holder}.")),
                _ => held("", ""),
            };
            [daemon, address]
        }
        Some(Err(error)) => {
            let advice = "Stop what listens there, or choose another address with --local-api-base.";
            [elsewhere(), Check::fail("address", format!("In use: {error}."), advice)]
        }
    }
}

fn running(config: &Config, named: &str, version: &str, service: &Value) -> Check {
    let codex = &service["codex"];
    let state = codex["state"].as_str().unwrap_or("ready");
    // States that the daemon cannot fix by itself.
    if ["noAccount", "loginRefused", "configBroken", "tooOld"].contains(&state) {
        let advice = match codex["command"].as_str() {
            Some(command) => format!("Type: {command}"),
            None => "codexd continues as soon as that is done.".to_owned(),
        };
        return Check::fail("daemon", format!("{named} is running. {}", text(&codex["message"])), advice);
    }
    if let Some(reason) = service["notReadyReason"].as_str() {
        let detail = format!("{named} is running but does not accept turns: {reason}");
        return Check::warn(
            "daemon",
            detail,
            "codexd retries by itself; the other checks may show the cause.",
        );
    }
    if state == "offline" {
        let detail = format!("{named} is running. {}", text(&codex["message"]));
        return Check::warn("daemon", detail, "Check the network of this machine.");
    }
    if version != config.version {
        let detail = format!("{named} is running, but this program is codexd {}.", config.version);
        return Check::warn("daemon", detail, "Restart the daemon to run the newer version.");
    }
    Check::ok("daemon", format!("{named} is running and accepts turns."))
}

/// Checks whether the daemon could bind the address; nothing listens there.
fn free(config: &Config) -> Check {
    let base = &config.service.local_api_base;
    let address = base.socket_address();
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // As the daemon does, but without listening: a daemon that starts at this moment is not blocked.
        socket.set_reuseaddr(true)?;
        socket.bind(address)
    };
    match bind() {
        Ok(()) => Check::ok("address", format!("{base} is free.")),
        Err(error) => Check::fail(
            "address",
            format!("codexd cannot listen at {base}: {error}."),
            "Choose another address with --local-api-base.",
        ),
    }
}

/// Checks the token; `is_rejected` is whether the daemon at the address requires another one, and `used` the file of the
/// one that was sent.
fn token(config: &Config, is_rejected: bool, used: Option<&Path>) -> Check {
    let Some(path) = config.service.auth.auth_token_file.as_deref() else {
        if let Some(path) = used.filter(|_| !is_rejected) {
            let detail = format!("The daemon needs the token in {}, where commands find it.", path.display());
            return Check::ok("token", detail);
        }
        if is_rejected {
            let base = &config.service.local_api_base;
            return Check::warn(
                "token",
                format!("No token is set, but the daemon at {base} requires one."),
                "Set the --auth-token-file that it was started with.",
            );
        }
        return Check::ok("token", "No token is set, so every program of your user can use codexd.");
    };
    match read_token(path) {
        Ok(_) => Check::ok("token", format!("Requests need the token in {}.", path.display())),
        Err(error) => Check::fail(
            "token",
            format!("The token file cannot be used, so codexd does not start: {error}."),
            format!("Create a new one: codexd token --replace --auth-token-file {}", path.display()),
        ),
    }
}

/// Checks what keeps the machine awake while turns run; only the daemon knows.
fn keep_awake(status: Option<&Value>) -> Check {
    const NAME: &str = "awake";
    let Some(view) = status.map(|status| &status["service"]["keepAwake"]).filter(|view| view.is_object())
    else {
        return Check::ok(NAME, "No daemon runs that could keep this machine awake.");
    };
    let programs =
        view["programs"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(" and ");
    match text(&view["state"]) {
        "off" => Check::ok(NAME, "codexd does not keep this machine awake while turns run."),
        "unavailable" => Check::ok(
            NAME,
            "This system has no program that keeps it awake, such as systemd-inhibit, so it may go to sleep while a \
             turn runs.",
        ),
        "active" => Check::ok(NAME, format!("{programs} keeps this machine awake, because a turn runs.")),
        "failed" => Check::warn(
            NAME,
            format!("This machine may go to sleep while a turn runs: {}.", text(&view["error"])),
            "Set --keep-awake off if it never goes to sleep by itself.",
        ),
        _ => Check::ok(NAME, format!("{programs} keeps this machine awake while a turn runs.")),
    }
}

async fn service(config: &Config) -> Check {
    let service = match ServiceFile::for_this_program(config) {
        Ok(service) => service,
        Err(error) => {
            return Check::warn(
                "service",
                error.to_string(),
                "Until this is fixed, \"codexd service install\" fails.",
            );
        }
    };
    let path = service.path.display();
    let change = match service.change() {
        Ok(change) => change,
        Err(error) => {
            return Check::warn(
                "service",
                format!("{path} cannot be read: {error}."),
                "Check its permissions.",
            );
        }
    };
    let manager = ServiceManager::for_this_system();
    let state = match manager.state().await {
        Ok(state) => state,
        Err(error) if error.is_absent() && change == FileChange::Installed => {
            return Check::ok("service", "Not installed, and there is no service manager.");
        }
        Err(error) => {
            let advice = match error {
                ManagerError::NoProgram(_) => {
                    "Where there is no service manager, \"codexd start\" starts codexd."
                }
                _ => "Log in with a full session, not through su or sudo, and try again.",
            };
            return Check::warn("service", format!("{path} exists, but {error}."), advice);
        }
    };
    let report = format!("{}: {}.", manager.name(), state_text(&state));
    match change {
        FileChange::Installed => {
            Check::ok("service", "Not installed; \"codexd service install\" makes codexd start at login.")
        }
        _ if state.needs_reload => Check::fail("service", report, "Type: codexd service restart"),
        _ if state.failed || state.restarting => {
            Check::fail("service", report, "\"codexd service logs\" shows its last messages.")
        }
        FileChange::Updated => Check::warn(
            "service",
            format!("{path} does not match these settings. {report}"),
            "Run \"codexd service install\" with the intended settings to update it.",
        ),
        FileChange::Unchanged if !state.running => {
            Check::warn("service", report, "\"codexd service start\" starts it.")
        }
        FileChange::Unchanged => Check::ok("service", report),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doctor_names_variables_that_only_the_shell_has() {
        let check = missing_variables(|name| ["HTTPS_PROXY", "NO_PROXY"].contains(&name)).unwrap();
        assert_eq!(check.detail, "This shell has HTTPS_PROXY, NO_PROXY, and the service does not.");
        let advice = check.advice.unwrap();
        assert!(advice.ends_with("install --service-env HTTPS_PROXY --service-env NO_PROXY"), "{advice}");
        assert!(missing_variables(|_| false).is_none());
        let check = different_variables(|name| name == "HTTPS_PROXY").unwrap();
        assert_eq!(check.detail, "The service has other values of HTTPS_PROXY than this shell.");
        assert!(different_variables(|_| false).is_none());
    }
}
