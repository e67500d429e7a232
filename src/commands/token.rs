//! `codexd token`: creates the file with the token that `--auth-token-file` names.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::failure::Failure;
use super::output;
use crate::config::Config;
use crate::http::new_token;
use crate::storage::Disk;

/// The name of the file in the state directory, unless a setting names another path.
const NAME: &str = "auth-token";

pub(crate) fn run(config: &Config, json: bool, replace: bool) -> Result<ExitCode, Failure> {
    let disk = Disk::default();
    let path = match &config.service.auth_token_file {
        Some(path) => path.clone(),
        None => config.paths.state_dir.join(NAME),
    };
    let made = make(&disk, config, &path, replace);
    made.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::new(format!(
            "{} exists and was not changed; --replace creates a new token, and the old one is rejected from \
             then on.",
            path.display()
        )),
        _ => Failure::new(format!("Failed to create {}: {error}.", path.display())),
    })?;
    if json {
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

fn make(disk: &Disk, config: &Config, path: &Path, replace: bool) -> io::Result<()> {
    if path.parent() == Some(config.paths.state_dir.as_path()) {
        disk.create_directory(&config.paths.state_dir)?;
    }
    let token = format!("{}\n", new_token()?);
    if replace { disk.replace(path, token.as_bytes()) } else { disk.create_secret(path, token.as_bytes()) }
}
