//! The report of `codexd config`: every setting with its value and source.

use std::fmt;

use clap::parser::ValueSource;
use serde::Serialize;
use serde_json::Value;

use super::error::ConfigError;
use super::settings::{LOG_FILTER, Settings, Sources};

/// The source of a setting that was not given.
pub(super) const DEFAULT: &str = "default";

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReportRow {
    /// The name of the setting: its flag without dashes, or `log-filter`.
    pub name: String,
    /// Its environment variable.
    #[serde(skip)]
    pub variable: String,
    /// The value in use, without secrets: a string, a number, an array of strings, or null.
    pub value: Value,
    /// The source: a flag, an environment variable, `default`, or `default from NAME`.
    pub source: String,
}

/// Every setting with its value and source.
///
/// `Display` formats aligned lines without a final line break; as JSON it is `{"settings": [{"name", "value",
/// "source"}]}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The rows, in the order of the help.
    pub settings: Vec<ReportRow>,
}

impl Report {
    /// The sources of all settings; the values are not known yet.
    pub(super) fn new(sources: &Sources) -> Self {
        let row = |argument: &clap::Arg| {
            let (name, variable) =
                (argument.get_long()?.to_owned(), argument.get_env()?.to_str()?.to_owned());
            let source = match sources.of(&name) {
                Some(ValueSource::CommandLine) => format!("--{name}"),
                Some(ValueSource::EnvVariable) => variable.clone(),
                _ => DEFAULT.to_owned(),
            };
            Some(ReportRow { name, variable, value: Value::Null, source })
        };
        let mut settings: Vec<_> = Settings::declared().get_arguments().filter_map(row).collect();
        let (name, variable) = ("log-filter".to_owned(), LOG_FILTER.to_owned());
        settings.push(ReportRow { name, variable, value: Value::Null, source: DEFAULT.to_owned() });
        Self { settings }
    }

    /// Adds the values.
    pub(super) fn fill(&mut self, settings: &Settings, log_filter: &str) {
        let values = serde_json::to_value(settings).unwrap_or_default();
        for row in &mut self.settings {
            let value = values.get(&row.name).cloned().unwrap_or_else(|| log_filter.into());
            // A duration is whole seconds.
            row.value = value.get("secs").cloned().unwrap_or(value);
        }
    }

    /// The source of a setting.
    pub(super) fn source(&self, name: &str) -> &str {
        self.settings.iter().find(|row| row.name == name).map_or(DEFAULT, |row| &row.source)
    }

    pub(super) fn set_source(&mut self, name: &str, source: &str) {
        let rows = self.settings.iter_mut().filter(|row| row.name == name);
        rows.for_each(|row| source.clone_into(&mut row.source));
    }

    pub(super) fn is_from_variable(&self, name: &str) -> bool {
        self.settings.iter().any(|row| row.name == name && row.source == row.variable)
    }

    /// The error for a value, which names its source.
    pub(super) fn invalid(&self, name: &str, problem: String) -> ConfigError {
        ConfigError::Invalid { origin: self.source(name).to_owned(), problem }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value_of = |row: &ReportRow| match &row.value {
            Value::String(text) => text.clone(),
            Value::Null => "-".to_owned(),
            other => other.to_string(),
        };
        let rows: Vec<_> = self.settings.iter().map(|row| (&row.name, value_of(row), &row.source)).collect();
        let name_width = rows.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or_default();
        let value_width = rows.iter().map(|(_, value, _)| value.chars().count()).max().unwrap_or_default();
        let line = |(name, value, source)| format!("{name:name_width$}  {value:value_width$}  ({source})");
        formatter.write_str(&rows.into_iter().map(line).collect::<Vec<_>>().join("\n"))
    }
}
