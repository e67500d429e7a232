//! The unit of systemd in which codexd runs: systemd ends what is left in a service when its main process ends.

use std::fs;

/// A manager of systemd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SystemdManager {
    /// The manager of the user.
    User,
    /// The manager of the system.
    System,
}

/// The manager of the service that this process is in; `None` elsewhere, as in a terminal; blocks.
///
/// The control group tells it (cgroups(7)), also where a script of the service started codexd.
#[expect(clippy::disallowed_methods, reason = "its caller runs on a thread for starting processes")]
pub(super) fn manager_of_service() -> Option<SystemdManager> {
    manager_of(&fs::read_to_string("/proc/self/cgroup").ok()?)
}

/// Reads it from the contents of a file `/proc/PID/cgroup`.
fn manager_of(groups: &str) -> Option<SystemdManager> {
    groups.lines().find_map(|line| {
        // The hierarchies of systemd: the only one of version 2, which has no controllers here, and one of version 1.
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        if !matches!(controllers, "" | "name=systemd") {
            return None;
        }
        // A service may have groups of its own below its unit.
        let names: Vec<_> = path.split('/').collect();
        let at = names.iter().rposition(|name| name.ends_with(".service") || name.ends_with(".scope"))?;
        let (unit, above) = (names.get(at)?, names.get(..at)?);
        // The services of a user are below the service of the manager, or, where only these are visible, in its slices.
        let is_of_user =
            |name: &&str| name.starts_with("user@") || ["app.slice", "session.slice"].contains(name);
        unit.ends_with(".service").then(|| match above.iter().any(is_of_user) {
            true => SystemdManager::User,
            false => SystemdManager::System,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manager_is_that_of_the_innermost_unit() {
        let user = "/user.slice/user-1000.slice/user@1000.service";
        for (groups, expected) in [
            (format!("0::{user}/app.slice/codexd.service\n"), Some(SystemdManager::User)),
            (format!("0::{user}/app.slice/codexd.service/part\n"), Some(SystemdManager::User)),
            (format!("0::{user}/app.slice/run-r1.scope\n"), None),
            (format!("0::{user}/init.scope\n"), None),
            ("0::/user.slice/user-1000.slice/session-4.scope\n".to_owned(), None),
            ("0::/system.slice/codexd.service\n".to_owned(), Some(SystemdManager::System)),
            (
                "12:pids:/x.service\n1:name=systemd:/app.slice/a.service\n".to_owned(),
                Some(SystemdManager::User),
            ),
            ("12:pids:/x.service\n1:name=systemd:/\n0::/\n".to_owned(), None),
            ("0::/system.slice/docker-0123.scope\n".to_owned(), None),
            ("\n".to_owned(), None),
        ] {
            assert_eq!(manager_of(&groups), expected, "{groups}");
        }
    }
}
