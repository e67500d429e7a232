//! `codexd token`: creates the file with the token that `--auth-token-file` names.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::failure::Failure;
use super::output;
use crate::cli::TokenArguments;
use crate::config::AUTH_TOKEN_NAME;
use crate::http::new_token;
use crate::storage::Disk;

pub(crate) fn run(arguments: &TokenArguments) -> Result<ExitCode, Failure> {
    let (files, replace) = (&arguments.files, arguments.replace);
    let disk = Disk::default();
    let state_dir = files.paths.clone().resolve(&files.sources)?.state_dir;
    let path = files.auth.auth_token_file.clone().unwrap_or_else(|| state_dir.join(AUTH_TOKEN_NAME));
    let made = make(&disk, &state_dir, &path, replace);
    made.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::new(format!(
            "{} exists and was not changed; --replace creates a new token, and the old one is rejected from \
             then on.",
            path.display()
        )),
        _ => Failure::new(format!("Failed to create {}: {error}.", path.display())),
    })?;
    if files.json {
        output::print_json(&json!({ "ok": true, "path": path, "replaced": replace }))?;
    } else {
        output::print(&format!(
            "The token is in {path}, readable for your user only. Start codexd with --auth-token-file {path}, or with \
             BAA_CODEXD_AUTH_TOKEN_FILE={path}.",
            path = path.display()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn make(disk: &Disk, state_dir: &Path, path: &Path, replace: bool) -> io::Result<()> {
    if path.parent() == Some(state_dir) {
        disk.create_directory(state_dir)?;
    }
    let token = format!("{}\n", new_token()?);
    if replace { disk.replace(path, token.as_bytes()) } else { disk.create_secret(path, token.as_bytes()) }
}
