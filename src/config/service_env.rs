//! The current settings as environment variables, for the service file.

use std::path::PathBuf;

use super::environment::{Environment, path_in, process_environment};
use super::error::ConfigError;
use super::report::{DEFAULT, ReportRow};
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
    pub fn of(environment: &Environment) -> Result<Self, ConfigError> {
        let home = path_in(environment, "HOME").filter(|home| home.is_absolute());
        Ok(Self {
            home: home.ok_or(ConfigError::HomeNotSet)?,
            config_home: path_in(environment, "XDG_CONFIG_HOME"),
            codex_home: path_in(environment, CODEX_HOME),
        })
    }

    /// Reads them from the environment of this process.
    pub fn from_process() -> Result<Self, ConfigError> {
        Self::of(&process_environment())
    }
}

impl Config {
    /// The environment variables of all settings that are not defaults, and of both directories, in the order of the
    /// help.
    ///
    /// Read back in an environment of these alone they give the same settings, except those that depend on HOME. An
    /// endpoint with a secret is rejected; the arguments of the server are included unchanged.
    pub fn service_variables(&self) -> Result<Vec<(String, String)>, ConfigError> {
        let mut variables = Vec::new();
        for ReportRow { name, variable, value, source } in &self.report.settings {
            if source.starts_with(DEFAULT) && !["state-dir", "logs-dir"].contains(&name.as_str()) {
                continue;
            }
            if name == "server-endpoint" && self.server.endpoint.has_secrets() {
                let (name, variable) = (name.clone(), variable.clone());
                return Err(ConfigError::SecretInSetting { name, variable });
            }
            // A number, or a JSON array, which the environment variable of a setting with several values accepts.
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            // The report shows what is not UTF-8 in a path as this character.
            if text.contains(char::REPLACEMENT_CHARACTER) {
                return Err(ConfigError::PathNotUnicode { name: name.clone(), path: text });
            }
            variables.push((variable.clone(), text));
        }
        Ok(variables)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;

    fn config(flags: &[&str], home: &str) -> Config {
        let environment = Environment::from([("HOME".into(), home.into())]);
        Config::resolve(Settings::from_flags(flags).unwrap(), &environment).unwrap()
    }

    #[test]
    fn service_variables_reject_secrets_and_non_utf8_paths() {
        let endpoint = config(&["--server-endpoint", "wss://user:secret@host/"], "/");
        let refusal = endpoint.service_variables().unwrap_err().to_string();
        assert!(refusal.contains("--server-endpoint") && !refusal.contains("secret@"), "{refusal}");

        // So the report shows a path in a current directory that is not UTF-8.
        let broken = config(&["--state-dir", "/\u{fffd}/state"], "/");
        let refusal = broken.service_variables().unwrap_err();
        assert!(
            matches!(&refusal, ConfigError::PathNotUnicode { name, .. } if name == "state-dir"),
            "{refusal}"
        );
    }

    #[test]
    fn user_env_requires_absolute_home() {
        let user = |pairs: &[(&str, &str)]| {
            UserEnv::of(&pairs.iter().map(|(name, value)| (name.into(), value.into())).collect())
        };
        let found = user(&[("HOME", "/home/me"), ("XDG_CONFIG_HOME", ""), ("CODEX_HOME", "/codex")]).unwrap();
        assert_eq!((found.config_home, found.codex_home), (None, Some("/codex".into())));
        for pairs in [[].as_slice(), &[("HOME", "")], &[("HOME", "relative")]] {
            assert!(user(pairs).unwrap_err().to_string().contains("set HOME"));
        }
    }
}
