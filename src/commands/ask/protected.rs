//! Tells once that macOS protects the working directory of a session, where a turn or a command fails because of that.

use std::path::PathBuf;

use serde_json::Value;

use super::outcome::TurnOutcome;
use crate::codex::protocol::items;
use crate::config::{Platform, UserEnv};
use crate::daemon::protected_directory_hint;

/// The working directory, and whether the user was told.
#[derive(Debug)]
pub(super) struct ProtectedDirectory {
    platform: Platform,
    home: PathBuf,
    cwd: PathBuf,
    is_told: bool,
}

impl ProtectedDirectory {
    /// For a session that works in `cwd`, of this user on this system.
    pub(super) fn new(cwd: Option<&str>) -> Self {
        let home = UserEnv::from_process().map(|user| user.home).unwrap_or_default();
        Self { platform: Platform::current(), home, cwd: cwd.unwrap_or_default().into(), is_told: false }
    }

    /// A sentence for the user about a command that ended.
    pub(super) fn hint_for_item(&mut self, item: &Value) -> Option<String> {
        let has_failed = item["exitCode"].as_i64().is_some_and(|code| code != 0);
        let is_failed_command = item["type"] == items::COMMAND_EXECUTION && has_failed;
        let output = item["aggregatedOutput"].as_str().filter(|_| is_failed_command)?;
        self.hint(output)
    }

    /// The outcome of the turn, with the sentence in its reason if that is why it failed.
    pub(super) fn explain(&mut self, outcome: TurnOutcome) -> TurnOutcome {
        let TurnOutcome::Failed(Some(reason)) = outcome else { return outcome };
        let reason = match self.hint(&reason) {
            Some(hint) => format!("{}. {hint}", reason.trim_end_matches('.')),
            None => reason,
        };
        TurnOutcome::Failed(Some(reason))
    }

    fn hint(&mut self, text: &str) -> Option<String> {
        let hint = protected_directory_hint(self.platform, &self.home, &self.cwd, text)?;
        (!std::mem::replace(&mut self.is_told, true)).then_some(hint)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn protected_directory_is_told_once_for_commands_and_turns() {
        let session = |platform| {
            let (home, cwd) = ("/Users/me".into(), "/Users/me/Documents/p".into());
            ProtectedDirectory { platform, home, cwd, is_told: false }
        };
        let command = |code: i64| json!({ "type": "commandExecution", "exitCode": code, "aggregatedOutput": "ls: Operation not permitted\n" });
        let failed = |reason: &str| TurnOutcome::Failed(Some(reason.to_owned()));
        let mut mac = session(Platform::MacOs);
        assert_eq!(mac.hint_for_item(&command(0)), None);
        assert!(mac.hint_for_item(&command(1)).unwrap().contains("Full Disk Access"));
        assert_eq!(mac.hint_for_item(&command(1)), None);

        let mut mac = session(Platform::MacOs);
        let TurnOutcome::Failed(Some(reason)) =
            mac.explain(failed("no: Operation not permitted (os error 1)."))
        else {
            panic!()
        };
        assert!(
            reason.starts_with(
                "no: Operation not permitted (os error 1). macOS protects /Users/me/Documents/p: "
            )
        );
        assert_eq!(mac.explain(failed("other")), failed("other"));
        let same = failed("Operation not permitted (os error 1)");
        assert_eq!(session(Platform::Xdg).explain(same.clone()), same);
        assert_eq!(session(Platform::MacOs).explain(TurnOutcome::Completed), TurnOutcome::Completed);
    }
}
