//! The files that the command line of `ask` names: a profile of Codex, the schema of the answer, and the file for the
//! answer; and the values with which `-c` overrides Codex's configuration.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::commands::failure::Failure;
use crate::config::codex_home;

/// Reads the schema that the answer has to match.
pub(super) fn output_schema(path: &Path) -> Result<Value, Failure> {
    let text = read(path)?;
    let schema: Result<Value, _> = serde_json::from_str(&text);
    match schema {
        Ok(schema @ Value::Object(_)) => Ok(schema),
        Ok(_) => Err(Failure::usage(format!("The schema in {} must be a JSON object.", path.display()))),
        Err(error) => Err(Failure::usage(format!("The schema in {} is not JSON: {error}.", path.display()))),
    }
}

/// The configuration of Codex that the command line changes: the profile, and the values of `-c` on top of it.
pub(super) fn config_overrides(
    profile: Option<&str>,
    overrides: &[String],
) -> Result<Map<String, Value>, Failure> {
    let mut config = match profile {
        Some(name) => read_profile(name)?,
        None => Map::new(),
    };
    for text in overrides {
        let (key, value) = text
            .split_once('=')
            .filter(|(key, _)| !key.trim().is_empty())
            .ok_or_else(|| Failure::usage(format!("-c {text:?} must be KEY=VALUE.")))?;
        set(&mut config, key.trim(), toml_value(value.trim()));
    }
    Ok(config)
}

/// Sets the value of a key whose dots lead into tables.
fn set(table: &mut Map<String, Value>, key: &str, value: Value) {
    let Some((name, rest)) = key.split_once('.') else {
        table.insert(key.to_owned(), value);
        return;
    };
    let nested = table.entry(name).or_insert(Value::Null);
    if !nested.is_object() {
        *nested = Map::new().into();
    }
    if let Value::Object(nested) = nested {
        set(nested, rest, value);
    }
}

/// A value as TOML, or else as a string, as Codex reads it.
fn toml_value(text: &str) -> Value {
    let parsed = toml::from_str::<Map<String, Value>>(&format!("value = {text}"));
    let parsed = parsed.ok().filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
    parsed.unwrap_or_else(|| text.trim_matches(['"', '\'']).into())
}

fn read_profile(name: &str) -> Result<Map<String, Value>, Failure> {
    let home =
        codex_home().ok_or_else(|| Failure::usage("The directory of Codex is unknown; set CODEX_HOME."))?;
    let path = home.join(format!("{name}.config.toml"));
    toml::from_str(&read(&path)?)
        .map_err(|error| Failure::usage(format!("The profile {} is not TOML: {error}", path.display())))
}

fn read(path: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(path);
    text.map_err(|error| Failure::usage(format!("Failed to read {}: {error}.", path.display())))
}

/// The file that gets the answer. It is created before the turn, so that a wrong path costs no turn.
pub(super) struct AnswerFile {
    path: PathBuf,
    file: File,
}

impl AnswerFile {
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        let file = File::create(path)
            .map_err(|error| Failure::usage(format!("Failed to create {}: {error}.", path.display())))?;
        Ok(Self { path: path.to_owned(), file })
    }

    pub(super) fn write(mut self, answer: &str) -> Result<(), Failure> {
        let written = self.file.write_all(answer.as_bytes());
        written.map_err(|error| Failure::new(format!("Failed to write {}: {error}.", self.path.display())))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn config_overrides_are_toml_or_strings_with_dotted_keys() {
        let given = [
            "model_reasoning_effort=high",
            "features.a = true",
            "features.b=[1, \"x\"]",
            "name = \"two words\"",
            "odd=a = b",
        ]
        .map(str::to_owned);
        assert_eq!(
            Value::from(config_overrides(None, &given).unwrap()),
            json!({ "model_reasoning_effort": "high", "features": { "a": true, "b": [1, "x"] }, "name": "two words",
                    "odd": "a = b" })
        );
        for wrong in ["model", "=x"] {
            assert_eq!(config_overrides(None, &[wrong.to_owned()]).unwrap_err().code, 2);
        }
    }
}
