//! Checks Codex: the program, its app-server, its version and its account.
//!
//! The check starts a short-lived app-server (or connects to the external one) and stops it as the daemon does.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::check::Check;
use crate::codex::protocol::account::{self, RateLimitsRead};
use crate::codex::protocol::environment::CONTROL_SOCKET;
use crate::codex::protocol::versions::{self, LOGIN_COMMAND, UPGRADE_COMMAND};
use crate::codex::protocol::{methods, notifications, responses};
use crate::codex::{
    AppServerEvent, Availability, Backlog, CallError, Client, Listener, StopPace, Supervisor, redact,
};
use crate::config::{ChildStrategy, Config, find_program};
use crate::daemon::{plan_for_inspection, refused_configuration};

/// The package with the program that makes sandboxes on Linux, and the program.
const BUBBLEWRAP: [&str; 2] = ["bubblewrap", "bwrap"];
/// Timeout of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// What the app-server answered.
struct Probe {
    /// Its messages.
    report: ServerReport,
    /// The response to a call that supervision needs.
    threads: Result<(), CallError>,
    /// The response to `account/read`.
    account: Result<Value, CallError>,
    /// The response to `account/rateLimits/read`.
    limits: Result<Value, CallError>,
}

impl Probe {
    /// Whether the account has limits.
    fn has_limits(&self) -> bool {
        self.account.as_ref().map_or(true, |account| account["account"]["type"] == account::CHATGPT)
    }

    /// Why the login is refused, if a call was refused for that reason.
    fn refused_login(&self) -> Option<&str> {
        [&self.account, &self.limits].into_iter().find_map(|call| match call {
            Err(CallError::Refused { error, .. }) if account::is_login_refused(&error.message) => {
                Some(account::without_body(&error.message))
            }
            _ => None,
        })
    }
}

pub(super) async fn check(config: &Arc<Config>) -> Vec<Check> {
    let server = &config.server;
    let mut checks = Vec::new();
    if server.strategy == ChildStrategy::External {
        checks.push(Check::ok("codex", format!("The app-server is external: {}.", server.endpoint)));
    } else {
        checks.extend(terminals(config));
        match server.find_program() {
            Ok(path) => {
                checks.push(Check::ok("codex", format!("{}.", path.display())));
                let bwrap =
                    find_program(BUBBLEWRAP[1], server.child_environment.path.as_deref(), &server.cwd);
                checks.extend(cfg!(target_os = "linux").then(|| bubblewrap(bwrap.ok())));
            }
            Err(error) => {
                let advice = "Without it, the app-server, its version and its account cannot be checked.";
                checks.push(Check::fail("codex", error.to_string(), advice));
                return checks;
            }
        }
    }
    match probe(config).await {
        Ok(probe) => {
            checks.extend([
                app_server(&probe),
                version(&probe.report.info, server.strategy == ChildStrategy::Shared),
                login(&probe),
            ]);
            checks.extend(limits(&probe));
        }
        Err(why) => checks.push(Check::fail("app-server", why, advice(config))),
    }
    checks
}

/// Checks the program with which Codex makes the sandbox of commands on Linux, where it is installed.
///
/// Codex 0.171.0 uses the one in `PATH`, and without one the program in its own package, with a warning on stderr
/// (measured). Distributions that restrict user namespaces may allow them to their own `bwrap` only.
fn bubblewrap(found: Option<PathBuf>) -> Check {
    match found {
        Some(path) => Check::ok(BUBBLEWRAP[0], format!("Codex sandboxes commands with {}.", path.display())),
        None => Check::warn(
            BUBBLEWRAP[0],
            "There is no bwrap in PATH, so Codex sandboxes commands with the one in its package, which this system may \
             not let create user namespaces.",
            "Install the package bubblewrap, for example: sudo apt-get install bubblewrap",
        ),
    }
}

/// What the strategy means for Codex in a terminal, where one has used its control socket or may join it.
fn terminals(config: &Config) -> Option<Check> {
    let server = &config.server;
    let socket = server.child_environment.codex_home.as_ref()?.join(CONTROL_SOCKET);
    match server.strategy {
        ChildStrategy::Shared => Some(Check::ok(
            "terminals",
            "codexd and codex in a terminal share one app-server. Where codexd starts it, it has the environment of codexd, \
             and on a Mac its privacy permissions.",
        )),
        ChildStrategy::Spawn if socket.is_symlink() => Some(Check::ok(
            "terminals",
            format!(
                "Codex in a terminal uses an app-server at {}: its threads are locked for codexd, and those of codexd for \
                 it. To share one, start codexd with --server-strategy shared.",
                socket.display()
            ),
        )),
        ChildStrategy::Spawn | ChildStrategy::External => None,
    }
}

/// Starts an app-server, or connects to the external or shared one, queries it, and stops it as the daemon does.
async fn probe(config: &Arc<Config>) -> Result<Probe, String> {
    let report = Arc::new(Mutex::new(ServerReport::default()));
    let (pace, stop) = watch::channel(StopPace::Run);
    let supervisor = {
        let report = Arc::clone(&report);
        Supervisor::start(plan_for_inspection(config), stop, Backlog::new(), move |_| {
            ProbeListener(Arc::clone(&report))
        })
    };
    let mut availability = supervisor.availability();
    // Once a restart is scheduled, the failure is fully known; before that the old process is still being stopped.
    let is_settled = |now: &Availability| match now {
        Availability::Starting { .. } => false,
        Availability::Waiting(waiting) => waiting.until.is_some(),
        Availability::Ready(_) | Availability::Stopped { .. } => true,
    };
    let settled = availability.wait_for(is_settled).await.map(|now| now.clone());
    let probe = match settled {
        Ok(Availability::Ready(client)) => Ok(ask(&client).await),
        Ok(Availability::Waiting(waiting)) => Err(waiting.reason),
        _ => Err("The app-server was not started.".to_owned()),
    };
    pace.send_replace(StopPace::Stop);
    supervisor.ended().await;
    let probe = probe?;
    let report = report.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(Probe { report, ..probe })
}

async fn ask(client: &Client) -> Probe {
    let threads = client.call(methods::THREAD_LOADED_LIST, &json!({}), CALL_TIMEOUT).await.map(drop);
    let read = async |method: &'static str, params: Value| {
        let answer = client.call(method, &params, CALL_TIMEOUT).await;
        answer.map(|answer| serde_json::from_str(answer.get()).unwrap_or_default())
    };
    let (account, limits) = tokio::join!(
        read(methods::ACCOUNT_READ, json!({ "refreshToken": false })),
        read(methods::ACCOUNT_RATE_LIMITS_READ, Value::Null),
    );
    Probe { report: ServerReport::default(), threads, account, limits }
}

fn advice(config: &Config) -> String {
    let server = &config.server;
    match server.strategy {
        ChildStrategy::External => "Start it, or set another --server-endpoint.".to_owned(),
        ChildStrategy::Shared => {
            "If nothing listens there, codexd starts an app-server when it runs: codexd start.".to_owned()
        }
        ChildStrategy::Spawn => format!(
            "Run it by hand in {} to see its output: {} {}",
            server.cwd.display(),
            server.command,
            server.args.join(" ")
        ),
    }
}

fn app_server(probe: &Probe) -> Check {
    if let Some(reason) = &probe.report.refused_configuration {
        let detail = format!("It starts but rejects its configuration: {reason}.");
        return Check::fail("app-server", detail, "Fix that file.");
    }
    match &probe.threads {
        Ok(()) => Check::ok("app-server", "It starts and supports what codexd needs."),
        Err(error) => Check::fail(
            "app-server",
            format!("It starts but does not support what codexd needs: {error}."),
            format!("Install a newer Codex: {UPGRADE_COMMAND}"),
        ),
    }
}

fn version(info: &Value, is_shared: bool) -> Check {
    let agent = responses::user_agent(info);
    let Some(version) = versions::in_user_agent(agent).filter(|version| versions::numbers(version).is_some())
    else {
        return Check::warn(
            "version",
            format!("It reports no version; its user agent is {agent:?}."),
            "Check that --server-command is the intended Codex.",
        );
    };
    if let Some(why) = versions::why_too_old(version, is_shared) {
        return Check::fail("version", why, format!("Install a newer one: {UPGRADE_COMMAND}"));
    }
    let untested = versions::why_untested(version).unwrap_or_else(|| format!("Codex {version}."));
    Check::ok("version", untested)
}

fn login(probe: &Probe) -> Check {
    // The app-server reports its defaults then, not the model and the login of the file.
    if probe.report.refused_configuration.is_some() {
        let detail = "The account is unknown because Codex rejects its configuration.";
        return Check::warn("login", detail, "Fix that file first.");
    }
    if let Some(reason) = probe.refused_login() {
        let reason = redact(reason.trim_end_matches('.'));
        let detail = format!("The login of Codex is refused: {reason}.");
        return Check::fail("login", detail, format!("Type: {LOGIN_COMMAND}"));
    }
    let account = match &probe.account {
        Ok(account) => account,
        Err(error) => {
            let detail = format!("The account is unknown: {error}.");
            return Check::warn("login", detail, "Type: codex login status");
        }
    };
    let kind = account["account"]["type"].as_str();
    match (kind, account["requiresOpenaiAuth"].as_bool()) {
        (Some(kind), _) => {
            let plan = account["account"]["planType"].as_str();
            let plan = plan.map(|plan| format!(", plan {plan}")).unwrap_or_default();
            Check::ok("login", format!("Codex has an account: {kind}{plan}."))
        }
        (None, Some(false)) => Check::ok("login", "The model configured in Codex needs no OpenAI account."),
        (None, _) => {
            Check::fail("login", "Codex has no account, so turns fail.", format!("Type: {LOGIN_COMMAND}"))
        }
    }
}

/// The limits of the account; `None` where it has none or Codex does not report them.
fn limits(probe: &Probe) -> Option<Check> {
    let answer = probe.limits.as_ref().ok().filter(|_| probe.has_limits())?;
    let limits = serde_json::from_value::<RateLimitsRead>(answer.clone()).ok()?.limits();
    let windows = limits.iter().flat_map(|limit| {
        let name = limit.limit_id.as_deref().unwrap_or("unnamed");
        [&limit.primary, &limit.secondary].into_iter().flatten().map(move |window| (name, window))
    });
    let all: Vec<_> =
        windows.clone().map(|(name, window)| format!("{name} {} %", window.used_percent)).collect();
    let used_up = windows.filter(|(_, window)| window.used_percent >= 100);
    let used_up = used_up.map(|(name, window)| {
        let reset = window.resets_at.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        let until = reset.map(|at| format!(" until {at}")).unwrap_or_default();
        format!("The limit {name} is used up{until}.")
    });
    match used_up.collect::<Vec<_>>() {
        used_up if !used_up.is_empty() => {
            Some(Check::warn("limits", used_up.join(" "), "Turns fail until then; queued turns wait."))
        }
        _ if all.is_empty() => None,
        _ => Some(Check::ok("limits", format!("Used: {}.", all.join(", ")))),
    }
}

/// The messages of an app-server that matter here.
#[derive(Debug, Clone, Default)]
struct ServerReport {
    /// The response to `initialize`.
    info: Value,
    /// Why the app-server rejected the user's configuration.
    refused_configuration: Option<String>,
}

/// Records these messages.
struct ProbeListener(Arc<Mutex<ServerReport>>);

impl Listener for ProbeListener {
    fn on_event(&mut self, event: AppServerEvent<'_>) {
        let mut report = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            AppServerEvent::Connected { info } => {
                report.info = serde_json::from_str(info.get()).unwrap_or_default()
            }
            AppServerEvent::Notification { method: notifications::CONFIG_WARNING, params } => {
                report.refused_configuration =
                    report.refused_configuration.take().or(refused_configuration(params));
            }
            _ => {}
        }
    }

    fn flush(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckStatus;
    use super::*;

    #[test]
    fn doctor_compares_version_from_user_agent() {
        let judge = |agent: &str| version(&json!({ "userAgent": agent }), false);
        for (agent, status, text) in [
            ("codexd/0.169.0 (Debian 12; x86_64) dumb (codexd; 0.1.0)", CheckStatus::Ok, "Codex 0.169.0."),
            ("codexd/0.1000.0-alpha.3 (x)", CheckStatus::Ok, "0.1000.0-alpha.3 is newer than 0.171.0"),
            ("codexd/1.0.0", CheckStatus::Ok, "Codex 1.0.0 is newer than"),
            ("codexd/0.99.7 (x)", CheckStatus::Fail, "0.99.7 is older than 0.140.0"),
            ("codexd/0.140.0 (x)", CheckStatus::Ok, "Codex 0.140.0."),
            ("codexd", CheckStatus::Warn, "its user agent is \"codexd\""),
            ("codexd/new", CheckStatus::Warn, "user agent is"),
        ] {
            let check = judge(agent);
            assert_eq!(check.status, status, "{agent}");
            assert!(check.detail.contains(text), "{}", check.detail);
        }
        let shared = version(&json!({ "userAgent": "codexd/0.159.0 (x)" }), true);
        assert_eq!(shared.status, CheckStatus::Fail);
        assert!(shared.detail.contains("shared"), "{}", shared.detail);
    }

    #[test]
    fn doctor_requires_account_if_model_needs_one() {
        let probe = |account| Probe {
            report: ServerReport::default(),
            threads: Ok(()),
            account,
            limits: Ok(Value::Null),
        };
        let judge = |account: Value| login(&probe(Ok(account)));
        let chatgpt =
            json!({ "account": { "type": "chatgpt", "email": "me@example.org", "planType": "plus" } });
        let check = judge(chatgpt);
        assert_eq!(
            (check.status, check.detail.as_str()),
            (CheckStatus::Ok, "Codex has an account: chatgpt, plan plus.")
        );
        assert_eq!(judge(json!({ "account": null, "requiresOpenaiAuth": false })).status, CheckStatus::Ok);
        let check = judge(json!({ "account": null, "requiresOpenaiAuth": true }));
        assert_eq!((check.status, check.advice.as_deref()), (CheckStatus::Fail, Some("Type: codex login")));
        assert_eq!(judge(Value::Null).status, CheckStatus::Fail);
        let error = CallError::Closed { cause: "it ended".to_owned() };
        assert_eq!(login(&probe(Err(error))).status, CheckStatus::Warn);
    }

    #[test]
    fn doctor_reports_used_up_limits() {
        let judge = |percent: i64| {
            let window = json!({ "usedPercent": percent, "resetsAt": 1_795_961_167 });
            let probe = Probe {
                report: ServerReport::default(),
                threads: Ok(()),
                account: Ok(json!({ "account": { "type": "chatgpt" } })),
                limits: Ok(json!({ "rateLimits": { "limitId": "codex", "primary": window } })),
            };
            limits(&probe).unwrap()
        };
        assert_eq!(judge(42).detail, "Used: codex 42 %.");
        let used_up = judge(100);
        assert_eq!(
            (used_up.status, used_up.detail.as_str()),
            (CheckStatus::Warn, "The limit codex is used up until 2026-11-29T14:06:07Z.")
        );
    }
}
