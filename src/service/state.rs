//! The state of the service, from the output of `launchctl print` and `systemctl show`.

use serde::Serialize;

/// The state of the service as its manager reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ServiceState {
    /// Whether the manager has loaded it.
    pub loaded: bool,
    /// Whether it starts at login; `null` if the manager does not report it.
    pub enabled: Option<bool>,
    /// Whether it runs.
    pub running: bool,
    /// Whether it ended with a failure and is not restarted.
    pub failed: bool,
    /// Whether it ended with a failure, and its manager waits before it starts it again.
    pub restarting: bool,
    /// Whether launchd must load it again before it can start, because its program was replaced.
    #[serde(rename = "needsReload")]
    pub needs_reload: bool,
    /// Its PID while it runs.
    pub pid: Option<u32>,
    /// The manager's own text, such as `active (running)`.
    #[serde(rename = "words")]
    pub description: String,
    /// How its last process ended, if one did and the manager reports it.
    #[serde(rename = "lastExit")]
    pub last_exit: Option<String>,
}

/// Parses the output of `launchctl print`, which is meant for humans and may change.
///
/// Only the lines with one tab are about the agent: the blocks in it have a `state` of their own. An exit and a signal
/// have separate lines, of which the newest remains.
pub(super) fn parse_launchctl_print(text: &str) -> ServiceState {
    let value = |name: &str| {
        text.lines()
            .filter_map(|line| line.strip_prefix('\t'))
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(" = ").map(str::trim))
    };
    let description = value("state").unwrap_or("unknown").to_owned();
    let code = value("last exit code").filter(|code| !code.starts_with('('));
    let signal = value("last terminating signal");
    let reason = value("last exit reason").filter(|reason| reason.starts_with("OS_REASON_"));
    let last_exit = signal
        .map(|signal| format!("signal {signal}"))
        .or_else(|| code.map(|code| format!("exit code {code}")))
        .into_iter()
        .chain(reason.map(str::to_owned))
        .reduce(|exit, reason| format!("{exit}, {reason}"));
    let running = description == "running";
    let is_failure = signal.is_some() || reason.is_some() || code.is_some_and(|code| code != "0");
    let restarting = is_failure && description == "spawn scheduled";
    ServiceState {
        loaded: true,
        enabled: None,
        running,
        failed: !running && !restarting && (is_failure || description == "spawn failed"),
        restarting,
        needs_reload: value("properties").is_some_and(|properties| properties.contains("needs LWCR update")),
        pid: value("pid").and_then(|pid| pid.parse().ok()),
        description,
        last_exit,
    }
}

/// Parses the output of `systemctl show`, one `NAME=value` per line.
pub(super) fn parse_systemctl_show(text: &str) -> ServiceState {
    let value = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
    };
    let (active, sub) = (value("ActiveState"), value("SubState"));
    let pid = value("MainPID").parse().ok().filter(|pid| *pid != 0);
    let last_exit = match (value("Result"), value("ExecMainStatus")) {
        ("" | "success", _) => None,
        ("exit-code", code) => Some(format!("exit code {code}")),
        (result, _) => Some(result.to_owned()),
    };
    ServiceState {
        loaded: value("LoadState") == "loaded",
        enabled: Some(value("UnitFileState") == "enabled"),
        running: active == "active",
        failed: active == "failed",
        restarting: active == "activating" && sub == "auto-restart",
        needs_reload: false,
        pid,
        description: format!("{active} ({sub})"),
        last_exit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report of launchd with these lines about the agent.
    fn report(lines: &str) -> ServiceState {
        let lines = lines.lines().map(|line| format!("\t{line}\n")).collect::<String>();
        parse_launchctl_print(&format!(
            "gui/501/codexd = {{\n\tactive count = 1\n\tdefault environment = {{\n\t\tstate = active\n\t}}\n{lines}\
             \tresource coalition = {{\n\t\tID = 1923\n\t\tstate = active\n\t}}\n}}\n"
        ))
    }

    #[test]
    fn launchctl_print_distinguishes_exits_signals_and_waits() {
        for (lines, running, failed, restarting, last_exit) in [
            ("state = running\npid = 81045\nlast exit code = (never exited)", true, false, false, None),
            ("state = not running\nlast exit code = (never exited)", false, false, false, None),
            ("state = not running\nlast exit code = 0", false, false, false, Some("exit code 0")),
            (
                "state = spawn scheduled\nruns = 3\nlast exit code = 78: EX_CONFIG",
                false,
                false,
                true,
                Some("exit code 78: EX_CONFIG"),
            ),
            ("state = not running\nlast exit code = 2", false, true, false, Some("exit code 2")),
            (
                "state = spawn scheduled\nlast terminating signal = Bus error: 10",
                false,
                false,
                true,
                Some("signal Bus error: 10"),
            ),
            (
                "state = not running\nlast terminating signal = Killed: 9\nlast exit reason = OS_REASON_CODESIGNING",
                false,
                true,
                false,
                Some("signal Killed: 9, OS_REASON_CODESIGNING"),
            ),
            ("state = spawn failed", false, true, false, None),
            (
                "state = running\npid = 81045\nlast exit code = 0\nlast terminating signal = Terminated: 15",
                true,
                false,
                false,
                Some("signal Terminated: 15"),
            ),
        ] {
            let state = report(lines);
            assert_eq!(
                (state.running, state.failed, state.restarting, state.last_exit.as_deref()),
                (running, failed, restarting, last_exit),
                "{lines}"
            );
            assert_eq!(state.pid, running.then_some(81045));
        }
        let wedged = "state = not running\nlast exit code = 78: EX_CONFIG\n\
                      properties = keepalive | runatload | needs LWCR update | managed LWCR";
        assert!(report(wedged).needs_reload);
        assert!(!report("state = running\nproperties = keepalive | runatload").needs_reload);
    }

    #[test]
    fn systemctl_show_recognizes_wait_for_restart() {
        let state = parse_systemctl_show(
            "LoadState=loaded\nActiveState=activating\nSubState=auto-restart\nResult=exit-code\nExecMainStatus=1\n",
        );
        assert!(state.restarting && !state.running && !state.failed);
        assert_eq!(state.last_exit.as_deref(), Some("exit code 1"));
    }
}
