//! `codexd backup`: copies the state and the event log, whether the daemon runs or not.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::failure::Failure;
use super::output;
use crate::cli::BackupArguments;
use crate::daemon::{BackupError, back_up};

pub(crate) fn run(arguments: &BackupArguments) -> Result<ExitCode, Failure> {
    let (files, directory) = (&arguments.files, &arguments.directory);
    let directory = std::path::absolute(directory)
        .map_err(|error| Failure::usage(format!("{} cannot be used: {error}.", directory.display())))?;
    let paths = files.paths.clone().resolve(&files.sources)?;
    let backup =
        back_up(&paths, files.auth.auth_token_file.as_deref(), &directory).map_err(|error| match error {
            BackupError::Directory { .. } | BackupError::Unfinished { .. } => {
                Failure::usage(error.to_string())
            }
            _ => Failure::new(format!("No backup was created. {error}")),
        })?;
    let missing: Vec<Value> =
        backup.log.holes.iter().map(|hole| json!({ "from": hole.from, "through": hole.through })).collect();
    if files.json {
        output::print_json(&json!({
            "ok": true,
            "directory": backup.directory,
            "events": backup.log.events.map(|(first, last)| json!({ "first": first, "last": last })),
            "bytes": backup.bytes,
            "missing": missing,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let events = match backup.log.events {
        Some((first, last)) => format!("{first} to {last}"),
        None => "none".to_owned(),
    };
    let mut rows = vec![
        ("backup", backup.directory.display().to_string()),
        ("events", events),
        ("bytes", backup.bytes.to_string()),
    ];
    if !backup.log.holes.is_empty() {
        let holes = backup.log.holes.iter().map(|hole| format!("{} to {}", hole.from, hole.through));
        rows.push((
            "missing",
            format!("{} (no longer in the event log)", holes.collect::<Vec<_>>().join(", ")),
        ));
    }
    output::print(&output::table(&rows))?;
    Ok(ExitCode::SUCCESS)
}
