//! `codexd backup`: copies the state and the event log, whether the daemon runs or not; `codexd restore` puts a copy back.

use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::failure::Failure;
use super::output;
use crate::cli::BackupArguments;
use crate::daemon::{self, BackupError};

pub(crate) fn back_up(arguments: &BackupArguments) -> Result<ExitCode, Failure> {
    let (files, directory) = (&arguments.files, &arguments.directory);
    let directory = std::path::absolute(directory)
        .map_err(|error| Failure::usage(format!("{} cannot be used: {error}.", directory.display())))?;
    let paths = files.paths.clone().resolve(&files.sources)?;
    let token_file = files.auth.auth_token_file.as_deref();
    let backup = daemon::back_up(&paths, token_file, &directory).map_err(|error| match error {
        BackupError::Directory { .. } | BackupError::Unfinished { .. } => Failure::usage(error.to_string()),
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
    let mut rows = vec![
        ("backup", backup.directory.display().to_string()),
        ("events", events_text(backup.log.events)),
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

pub(crate) fn restore(arguments: &BackupArguments) -> Result<ExitCode, Failure> {
    let (files, directory) = (&arguments.files, &arguments.directory);
    let paths = files.paths.clone().resolve(&files.sources)?;
    let suffix = format!("replaced-{}", Timestamp::now().strftime("%Y%m%dT%H%M%SZ"));
    let restored = daemon::restore(&paths, directory, &suffix).map_err(|error| match error {
        BackupError::NotABackup { .. } | BackupError::Lock(_) => Failure::usage(error.to_string()),
        _ => Failure::new(format!("The backup was not restored. {error}")),
    })?;
    if files.json {
        output::print_json(&json!({
            "ok": true,
            "state": paths.state_dir,
            "logs": paths.events_dir,
            "events": restored.log.events.map(|(first, last)| json!({ "first": first, "last": last })),
            "bytes": restored.bytes,
            "replaced": restored.replaced,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![
        ("state", paths.state_dir.display().to_string()),
        ("logs", paths.events_dir.display().to_string()),
        ("events", events_text(restored.log.events)),
    ];
    rows.extend(restored.replaced.iter().map(|path| ("kept", path.display().to_string())));
    output::print(&output::table(&rows))?;
    output::print("Restore the directory of Codex (~/.codex, or CODEX_HOME) too, then start codexd.")?;
    Ok(ExitCode::SUCCESS)
}

fn events_text(events: Option<(u64, u64)>) -> String {
    events.map_or_else(|| "none".to_owned(), |(first, last)| format!("{first} to {last}"))
}
