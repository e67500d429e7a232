//! The current settings as environment variables, for the service file.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::error::ConfigError;
use super::settings::{self, Environment, ProcessEnvironment, Setting, Source};
use super::values::Config;
use crate::codex::protocol::environment::CODEX_HOME;

/// The environment variables of the user that are no settings of codexd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserEnv {
    /// `HOME`.
    pub home: PathBuf,
    /// `XDG_CONFIG_HOME`, as it is.
    pub config_home: Option<PathBuf>,
    /// `CODEX_HOME`: where Codex keeps its settings and its account, if not in the home directory.
    pub codex_home: Option<PathBuf>,
}

impl UserEnv {
    /// Reads them from `environment`.
    pub fn of(environment: &dyn Environment) -> Result<Self, ConfigError> {
        let path = |name: &str| environment.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = path("HOME").filter(|home| home.is_absolute()).ok_or(ConfigError::HomeNotSet)?;
        Ok(Self { home, config_home: path("XDG_CONFIG_HOME"), codex_home: path(CODEX_HOME) })
    }

    /// Reads them from the environment of this process.
    pub fn from_process() -> Result<Self, ConfigError> {
        Self::of(&ProcessEnvironment)
    }
}

impl Config {
    /// The environment variables of all settings that are not defaults, and of both directories, in the order of the
    /// help.
    ///
    /// Read back in an environment of these alone they give the same settings, except those that depend on HOME. An
    /// endpoint with a secret is rejected; the arguments of the server are included unchanged.
    pub fn service_variables(&self) -> Result<Vec<(&'static str, String)>, ConfigError> {
        let rows = settings::ALL.iter().zip(&self.report);
        rows.filter_map(|(setting, row)| self.variable(setting, row.source, &row.value).transpose()).collect()
    }

    fn variable(
        &self,
        setting: &'static Setting,
        source: Source,
        value: &Value,
    ) -> Result<Option<(&'static str, String)>, ConfigError> {
        let name = setting.name;
        let path = self.path_value(setting);
        let is_directory = [settings::STATE_DIR.name, settings::LOGS_DIR.name].contains(&name);
        if matches!(source, Source::Default | Source::DefaultFrom(_)) && !is_directory {
            return Ok(None);
        }
        if name == settings::SERVER_ENDPOINT.name && self.server.endpoint.has_secrets() {
            return Err(ConfigError::SecretInSetting { name, variable: setting.variable });
        }
        let text = match (path, value) {
            (Some(path), _) => path
                .to_str()
                .ok_or_else(|| ConfigError::PathNotUnicode { name, path: path.to_owned() })?
                .to_owned(),
            (None, Value::Null) => return Ok(None),
            (None, Value::String(text)) => text.clone(),
            // A number, or a JSON array, which the environment variable of a setting with several values accepts.
            (None, other) => other.to_string(),
        };
        Ok(Some((setting.variable, text)))
    }

    /// The path of a setting; the report shows it approximately if it is not UTF-8.
    fn path_value(&self, setting: &Setting) -> Option<&Path> {
        let path = match setting.name {
            name if name == settings::REPO_ROOT.name => self.paths.repo_root.as_deref()?,
            name if name == settings::LOGS_DIR.name => &self.paths.logs_dir,
            name if name == settings::STATE_DIR.name => &self.paths.state_dir,
            name if name == settings::AUTH_TOKEN_FILE.name => self.service.auth_token_file.as_deref()?,
            name if name == settings::SERVER_CWD.name => &self.server.cwd,
            _ => return None,
        };
        Some(path)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use super::super::{Platform, Settings, resolve};
    use super::*;

    type Variables = BTreeMap<String, OsString>;

    fn config(settings: &Settings, variables: &Variables, current_dir: &Path) -> Config {
        resolve::resolve(settings, variables, current_dir, Platform::Xdg).unwrap()
    }

    #[test]
    fn service_variables_restore_settings() {
        let home = tempfile::tempdir().unwrap();
        let home_alone: Variables = [("HOME".to_owned(), home.path().into())].into();
        let mut given = Settings::default();
        for setting in settings::ALL.iter().filter(|setting| setting.has_flag) {
            let value = match setting.name {
                "mode" => "app-server",
                "repo-root" | "logs-dir" | "state-dir" | "auth-token-file" => "a b/\"c\"\\%h$HOME'",
                "server-cwd" => "/usr",
                "local-api-base" => "http://[::1]:5",
                "event-stream-path" => "/v1/events",
                "server-endpoint" => "unix:///run/a b%h.sock",
                "server-strategy" => "external",
                "server-command" => "bin/codex",
                "node-id" => "ein Rechner",
                "allowed-origin" => "http://localhost:5173",
                "server-arg" => " [two words\n",
                "event-segment-bytes" | "event-log-bytes" | "output-log-bytes" | "line-cap" => "65536",
                "body-limit" => "2048",
                _ => "7",
            };
            given.add(setting, value);
        }
        given.add(&settings::SERVER_ARGS, "--more");
        for (settings, count) in [(given, settings::ALL.len() - 1), (Settings::default(), 2)] {
            let before = config(&settings, &home_alone, home.path());
            let variables = before.service_variables().unwrap();
            assert_eq!(variables.len(), count, "{variables:?}");
            let mut environment = home_alone.clone();
            environment.extend(variables.iter().map(|(name, value)| (name.to_string(), value.into())));
            let after = config(&Settings::default(), &environment, Path::new("/elsewhere"));
            let values = |config: &Config| {
                config.report().settings.iter().map(|row| row.value.clone()).collect::<Vec<_>>()
            };
            assert_eq!(values(&after), values(&before));
            assert_eq!(after.service_variables().unwrap(), variables);
        }
    }

    #[test]
    fn service_variables_reject_secrets_and_non_utf8_paths() {
        let home = tempfile::tempdir().unwrap();
        let home_alone: Variables = [("HOME".to_owned(), home.path().into())].into();
        let endpoint = Settings::default().with(&settings::SERVER_ENDPOINT, "wss://user:secret@host/");
        let refusal =
            config(&endpoint, &home_alone, home.path()).service_variables().unwrap_err().to_string();
        assert!(refusal.contains("--server-endpoint") && !refusal.contains("secret@"), "{refusal}");

        let directory = home.path().join(OsString::from_vec(vec![0xff]));
        let relative = Settings::default().with(&settings::STATE_DIR, "state");
        let refusal = config(&relative, &home_alone, &directory).service_variables().unwrap_err();
        assert!(matches!(refusal, ConfigError::PathNotUnicode { name: "state-dir", .. }), "{refusal}");
    }

    #[test]
    fn user_env_requires_absolute_home() {
        let user = |pairs: &[(&str, &str)]| {
            UserEnv::of(
                &pairs.iter().map(|(name, value)| (name.to_string(), value.into())).collect::<Variables>(),
            )
        };
        let found = user(&[("HOME", "/home/me"), ("XDG_CONFIG_HOME", ""), ("CODEX_HOME", "/codex")]).unwrap();
        assert_eq!((found.config_home, found.codex_home), (None, Some("/codex".into())));
        for pairs in [[].as_slice(), &[("HOME", "")], &[("HOME", "relative")]] {
            assert!(user(pairs).unwrap_err().to_string().contains("set HOME"));
        }
    }
}
