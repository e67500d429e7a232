//! The per-user directories and service files of each platform.

use std::path::{Path, PathBuf};

/// A platform, as far as its directories are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// macOS: everything below `~/Library`, except `~/.config/codexd`.
    MacOs,
    /// Linux and the other systems that follow the XDG base directories.
    Xdg,
}

impl Platform {
    /// The platform this program was built for.
    pub fn current() -> Self {
        if cfg!(target_os = "macos") { Self::MacOs } else { Self::Xdg }
    }

    /// The per-user state directory of codexd; `None` without a home directory.
    ///
    /// `xdg_state_home` is `XDG_STATE_HOME`; a relative path is ignored, as the XDG specification requires.
    pub fn state_dir(self, home: Option<&Path>, xdg_state_home: Option<&Path>) -> Option<PathBuf> {
        match self {
            Self::MacOs => home.map(|home| home.join("Library/Application Support/codexd")),
            Self::Xdg => xdg_state_home
                .filter(|path| path.is_absolute())
                .map(Path::to_path_buf)
                .or_else(|| home.map(|home| home.join(".local/state")))
                .map(|directory| directory.join("codexd")),
        }
    }

    /// The per-user log directory of codexd; `None` without a home directory.
    pub fn logs_dir(self, home: Option<&Path>, xdg_state_home: Option<&Path>) -> Option<PathBuf> {
        match self {
            Self::MacOs => home.map(|home| home.join("Library/Logs/codexd")),
            Self::Xdg => self.state_dir(home, xdg_state_home).map(|directory| directory.join("logs")),
        }
    }

    /// Whether the event log of a daemon with these logs is in its state directory.
    ///
    /// On macOS, backups leave out `~/Library/Logs`, and programs that free space on the disk empty it. The path
    /// decides and not its origin, because a service file names every directory.
    pub fn has_events_in_state(self, home: Option<&Path>, logs_dir: &Path) -> bool {
        self == Self::MacOs && self.logs_dir(home, None).is_some_and(|usual| usual == logs_dir)
    }

    /// The file with the environment variables that the user passes to the service.
    ///
    /// It is in no directory of the state, because `codexd restore` replaces those. `xdg_config_home` is
    /// `XDG_CONFIG_HOME`; a relative path is ignored, as the XDG specification requires.
    pub fn service_env_file(self, home: &Path, xdg_config_home: Option<&Path>) -> PathBuf {
        self.config_home(home, xdg_config_home).join("codexd/service.env")
    }

    fn config_home(self, home: &Path, xdg_config_home: Option<&Path>) -> PathBuf {
        xdg_config_home
            .filter(|path| self == Self::Xdg && path.is_absolute())
            .map_or_else(|| home.join(".config"), Path::to_path_buf)
    }

    /// The service file of the user: the agent of launchd, or the user unit of systemd.
    ///
    /// `xdg_config_home` is `XDG_CONFIG_HOME`; a relative path is ignored, as the XDG specification requires.
    pub fn service_file(self, home: &Path, xdg_config_home: Option<&Path>) -> PathBuf {
        match self {
            Self::MacOs => home.join("Library/LaunchAgents/codexd.plist"),
            Self::Xdg => self.config_home(home, xdg_config_home).join("systemd/user/codexd.service"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platform_service_file_follows_conventions() {
        let home = Path::new("/home/me");
        let unit = "/home/me/.config/systemd/user/codexd.service";
        for (platform, config_home, file) in [
            (Platform::MacOs, Some("/xdg"), "/home/me/Library/LaunchAgents/codexd.plist"),
            (Platform::Xdg, None, unit),
            (Platform::Xdg, Some("relative"), unit),
            (Platform::Xdg, Some("/xdg"), "/xdg/systemd/user/codexd.service"),
        ] {
            assert_eq!(platform.service_file(home, config_home.map(Path::new)), Path::new(file));
            let directory = if file.starts_with("/xdg") { "/xdg" } else { "/home/me/.config" };
            let variables = platform.service_env_file(home, config_home.map(Path::new));
            assert_eq!(variables, Path::new(directory).join("codexd/service.env"));
        }
    }

    #[test]
    fn platform_directories_follow_conventions() {
        let home = Some(Path::new("/home/me"));
        let xdg = Some(Path::new("/xdg"));
        for (platform, home, xdg, state, logs) in [
            (
                Platform::MacOs,
                home,
                xdg,
                Some("/home/me/Library/Application Support/codexd"),
                Some("/home/me/Library/Logs/codexd"),
            ),
            (Platform::MacOs, None, xdg, None, None),
            (
                Platform::Xdg,
                home,
                None,
                Some("/home/me/.local/state/codexd"),
                Some("/home/me/.local/state/codexd/logs"),
            ),
            (Platform::Xdg, home, xdg, Some("/xdg/codexd"), Some("/xdg/codexd/logs")),
            (Platform::Xdg, None, xdg, Some("/xdg/codexd"), Some("/xdg/codexd/logs")),
            (
                Platform::Xdg,
                home,
                Some(Path::new("relative")),
                Some("/home/me/.local/state/codexd"),
                Some("/home/me/.local/state/codexd/logs"),
            ),
            (Platform::Xdg, None, None, None, None),
        ] {
            assert_eq!(platform.state_dir(home, xdg).as_deref(), state.map(Path::new));
            assert_eq!(platform.logs_dir(home, xdg).as_deref(), logs.map(Path::new));
        }
    }
}
