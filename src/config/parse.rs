//! The value parsers of the settings. An error is a sentence without secrets.
//!
//! Texts are trimmed; paths and commands are taken byte for byte, because a name may start or end with white space.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::address::{LocalApiBase, parse_event_stream_path};
use super::endpoint::{AllowedCalls, ChildStrategy, KeepAwake, ServerEndpoint};

/// The only value of `--mode`: codexd talks to Codex through `codex app-server`. The retired modes of earlier versions
/// are rejected.
pub const MODE: &str = "app-server";

/// A control character, such as a line break, would break output of one line.
pub(super) const CONTROL_CHARACTER: &str = "the value contains a control character; remove it.";

/// A text on one line that is not blank, byte for byte.
fn bytes(value: &str) -> Result<&str, String> {
    match value {
        blank if blank.trim().is_empty() => {
            Err("the value is empty; give a value or omit the flag.".to_owned())
        }
        value if value.contains(char::is_control) => Err(CONTROL_CHARACTER.to_owned()),
        value => Ok(value),
    }
}

pub(super) fn text(value: &str) -> Result<String, String> {
    Ok(bytes(value)?.trim().to_owned())
}

pub(super) fn address(value: &str) -> Result<LocalApiBase, String> {
    LocalApiBase::parse(&text(value)?)
}

pub(super) fn stream_path(value: &str) -> Result<String, String> {
    parse_event_stream_path(&text(value)?)
}

/// The endpoint as a label; its form depends on the strategy, so it is parsed again when both are known.
pub(super) fn endpoint(value: &str) -> Result<ServerEndpoint, String> {
    Ok(ServerEndpoint::spawned(bytes(value)?))
}

pub(super) fn mode(value: &str) -> Result<String, String> {
    let not_supported = |mode| format!("the mode {mode:?} is not supported; {MODE} is the only mode.");
    text(value).and_then(|mode| if mode == MODE { Ok(mode) } else { Err(not_supported(mode)) })
}

pub(super) fn strategy(value: &str) -> Result<ChildStrategy, String> {
    match text(value)?.as_str() {
        "spawn" => Ok(ChildStrategy::Spawn),
        "shared" => Ok(ChildStrategy::Shared),
        "external" => Ok(ChildStrategy::External),
        other => Err(format!("the strategy {other:?} does not exist; use spawn, shared or external.")),
    }
}

pub(super) fn allowed_calls(value: &str) -> Result<AllowedCalls, String> {
    match text(value)?.as_str() {
        "none" => Ok(AllowedCalls::None),
        "safe" => Ok(AllowedCalls::Safe),
        "all" => Ok(AllowedCalls::All),
        other => Err(format!("{other:?} is not one of none, safe and all.")),
    }
}

pub(super) fn keep_awake(value: &str) -> Result<KeepAwake, String> {
    match text(value)?.as_str() {
        "auto" => Ok(KeepAwake::Auto),
        "off" => Ok(KeepAwake::Off),
        other => Err(format!("{other:?} is neither auto nor off.")),
    }
}

/// A parser of a whole number within a range.
pub fn count<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |value| {
        let value = text(value)?;
        let count = value.parse().ok().filter(|count| range.contains(count));
        count.and_then(|count| T::try_from(count).ok()).ok_or_else(|| {
            format!("{value:?} is not a whole number from {} to {}.", range.start(), range.end())
        })
    }
}

/// A parser of whole seconds within a range.
pub(super) fn seconds(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    let count = count(range);
    move |value| count(value).map(Duration::from_secs)
}

/// A path, made absolute with the current directory.
pub(super) fn path(value: &str) -> Result<PathBuf, String> {
    let value = bytes(value)?;
    // launchd, systemd and `--flag=~/x` do not expand the tilde, and a directory called ~ is never meant.
    if value.starts_with('~') {
        return Err(format!(
            "{value:?} starts with a tilde, which only a shell expands; write the full path."
        ));
    }
    let path = std::path::absolute(value).map_err(|error| {
        format!("the current directory cannot be read: {error}; start codexd in another directory.")
    })?;
    // Iterating over components removes single dots, double slashes and trailing slashes.
    Ok(path.components().collect())
}

/// The path of an existing directory.
pub(super) fn directory(value: &str) -> Result<PathBuf, String> {
    let path = path(value)?;
    match directory_problem(&path) {
        None => Ok(path),
        Some(reason) => Err(format!("{} {reason}; choose an existing directory.", path.display())),
    }
}

pub(super) fn directory_problem(path: &Path) -> Option<String> {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => None,
        Ok(_) => Some("is not a directory".to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some("does not exist".to_owned()),
        Err(error) => Some(format!("cannot be read ({error})")),
    }
}

/// A command with a slash names a file, independent of the working directory of the app-server.
pub(super) fn command(value: &str) -> Result<String, String> {
    let value = bytes(value)?;
    if !value.contains('/') {
        return Ok(value.to_owned());
    }
    let invalid =
        |path: OsString| format!("the path {} is not valid UTF-8; use another path.", path.display());
    path(value)?.into_os_string().into_string().map_err(invalid)
}

/// The values in the environment variable of a setting that has several: a JSON array, or words.
pub(super) fn list(text: &str) -> Result<Vec<String>, String> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).map_err(|error| {
            format!("the value starts with [ but is not a JSON array of strings ({error}).")
        });
    }
    Ok(text.split_whitespace().map(str::to_owned).collect())
}
