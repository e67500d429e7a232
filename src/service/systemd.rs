//! Makes the user unit of systemd.
//!
//! The unit does not sandbox the service, because Codex does in it what the user asks for. According to
//! systemd.exec(5), a user manager can apply most sandbox settings only together with `NoNewPrivileges=`, which breaks
//! `sudo` and every other set-user-ID program, or in a user namespace, in which files of other users appear to belong
//! to nobody. `PrivateTmp=` and `ProtectHome=` hide files that the user means, and `MemoryDenyWriteExecute=` breaks
//! node. Codex sandboxes its commands itself.

use std::path::PathBuf;

use super::spec::{ServiceError, ServiceSpec};
use crate::codex::protocol::environment::CODEX_HOME;

/// The unit file.
pub(super) fn unit(spec: &ServiceSpec<'_>) -> Result<String, ServiceError> {
    // systemd rejects such a path, however it is quoted (`string_is_safe`, measured on 252).
    if spec.program.contains(['"', '\'', '\\']) {
        let reason = "contains a quote or a backslash, which systemd rejects in the path of a program";
        return Err(ServiceError::Path { path: PathBuf::from(spec.program), reason });
    }
    // In the path of a program only specifiers are expanded, so a dollar sign is not doubled (measured on 252).
    let program = quote(spec.program);
    let files = spec.open_files();
    let user_variables = [("HOME", spec.home), ("PATH", spec.search_path.as_str())];
    let codex_home = spec.codex_home.map(|directory| (CODEX_HOME, directory));
    let settings = spec.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let variables: String = user_variables
        .into_iter()
        .chain(codex_home)
        .chain(settings)
        .map(|(name, value)| format!("Environment={}\n", quote(&format!("{name}={value}"))))
        .collect();
    Ok(format!(
        "\
# Written by codexd service install, which overwrites it; put additions into a drop-in:
# systemctl --user edit codexd

[Unit]
Description=codexd, local daemon for codex app-server

[Service]
# The start succeeds when the program has been executed, not before.
Type=exec
ExecStart={program} start
{variables}
# After every exit code except 0, a requested stop, and 2, invalid settings that the user has to fix.
Restart=on-failure
RestartPreventExitStatus=2
RestartSec=5

# Only codexd gets SIGTERM; it stops the app-server by closing its stdin, in steps of up to 12 seconds. When
# codexd has exited, remaining processes get SIGKILL.
KillMode=mixed
TimeoutStopSec=30
# A command of Codex that uses too much memory must not end codexd and every other session with it.
OOMPolicy=continue

# Codex inherits the soft limit, and programs that use select(2) cannot handle more than 1024.
LimitNOFILE={files}:524288

# No umask and no sandbox: Codex and the commands it runs would inherit them.

[Install]
WantedBy=default.target
"
    ))
}

/// The text as one argument in double quotes (systemd.syntax(7)), with specifiers escaped (systemd.unit(5)).
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '%' => quoted.push_str("%%"),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
