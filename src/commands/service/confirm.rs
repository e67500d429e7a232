//! Waits until the daemon of a service that was just started answers.
//!
//! That a service manager has started a program says little: it may exit at once because of a setting, or be killed
//! because of its signature.

use std::path::Path;
use std::time::{Duration, Instant};

use super::super::output;
use crate::client::{ClientError, DaemonClient};
use crate::commands::failure::Failure;
use crate::config::{Config, LocalApiBase, settings};
use crate::http::read_token;
use crate::service::{ManagerError, ServiceManager, ServiceState, installed_variable};

/// How long the daemon may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// How long a process must run that cannot be asked for its PID: without its token, or at a port that is not known.
const STABLE_PERIOD: Duration = Duration::from_secs(3);

/// Waits until the process of the service answers; returns its PID.
pub(super) async fn until_answering(
    manager: &ServiceManager,
    config: &Config,
    file: &Path,
) -> Result<u32, Failure> {
    // The settings of the service, not those of this command.
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let installed = installed_variable(&text, settings::LOCAL_API_BASE);
    let base = LocalApiBase::parse(installed.unwrap_or(settings::DEFAULT_LOCAL_API_BASE));
    let base = base.unwrap_or_else(|_| config.service.local_api_base.clone());
    let mut service = config.service.clone();
    service.auth.auth_token_file.take_if(|path| read_token(path).is_err());
    let client = DaemonClient::new(&service, output::print_warning)
        .with_state_dir(&config.paths.state_dir)
        .at(base.clone());
    let start = Instant::now();
    let mut newest = None;
    loop {
        let state = manager.state().await.map_err(manager_failure)?;
        if state.failed || state.restarting {
            return Err(ended(&state));
        }
        if let Some(pid) = state.pid.filter(|_| state.running) {
            let since = match newest {
                Some((same, since)) if same == pid => since,
                _ => Instant::now(),
            };
            newest = Some((pid, since));
            let is_stable = since.elapsed() >= STABLE_PERIOD;
            let answer = match base.socket_address().port() {
                0 => None,
                _ => Some(client.status().await),
            };
            match answer {
                Some(Ok(status)) if status["snapshot"]["daemon"]["pid"] == pid => return Ok(pid),
                None | Some(Err(ClientError::Refused { .. })) if is_stable => return Ok(pid),
                _ => {}
            }
        }
        if start.elapsed() >= START_TIMEOUT {
            return Err(silent(&state, &base));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn ended(state: &ServiceState) -> Failure {
    let exit = state.last_exit.as_deref().unwrap_or(&state.description);
    let again = if state.restarting { ", and is started again after a pause" } else { "" };
    Failure::new(format!("codexd ended after its start ({exit}){again}. \"codexd service logs\" shows why."))
}

fn silent(state: &ServiceState, base: &LocalApiBase) -> Failure {
    let what = match state.pid.filter(|_| state.running) {
        Some(pid) => format!("The service runs with PID {pid}, but does not answer at {base}"),
        None => {
            format!("codexd was not started within {} s ({})", START_TIMEOUT.as_secs(), state.description)
        }
    };
    Failure::new(format!("{what}. \"codexd service logs\" may show why."))
}

/// The failure of a command because of its service manager.
pub(super) fn manager_failure(error: ManagerError) -> Failure {
    Failure::new(match error {
        _ if error.is_absent() => format!("The service cannot be reached: {error}."),
        _ => format!(
            "The service manager reported an error: {error}. \"codexd service status\" shows its state."
        ),
    })
}
