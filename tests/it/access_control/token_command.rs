//! `codexd token`, and how the daemon and the other commands use its file.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::tokens::{OTHER, TOKEN, TokenFile, is_authorized, prefix, write_private};
use crate::api::{CommandOutput, run_command};
use crate::support::daemon::{Daemon, codexd};
use crate::support::http::Target;
use crate::support::scratch;
use crate::support::wait::wait_until_async;

/// The number of commands that run concurrently.
const CONCURRENT_COMMANDS: usize = 8;

fn home() -> TempDir {
    scratch::directory("token-command")
}

fn command(home: &Path, arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = codexd(home);
    command.arg("token").args(arguments).current_dir(home);
    command
}

/// The command with a new state directory, and the path of the token file in it.
fn command_with_state_dir(home: &TempDir, arguments: &[&str]) -> (Command, PathBuf) {
    let state = home.path().join("state");
    let mut command = command(home.path(), arguments);
    command.arg("--state-dir").arg(&state);
    (command, state.join("auth-token"))
}

/// The token in this file; asserts its type, permissions and format.
fn read_valid_token(path: &Path) -> String {
    let found = fs::symlink_metadata(path).unwrap();
    assert!(found.is_file(), "{}", path.display());
    assert_eq!(found.mode() & 0o7777, 0o600, "{}", path.display());
    let text = fs::read_to_string(path).unwrap();
    let token =
        text.strip_suffix('\n').unwrap_or_else(|| panic!("no line end: {} bytes", text.len())).to_owned();
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    assert!(token.len() == 64 && token.bytes().all(is_digit), "{} characters", token.len());
    token
}

/// Asserts that the command created the file and printed its path without the token; returns the token.
fn assert_created(ended: &CommandOutput, path: &Path) -> String {
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    assert!(ended.stdout.contains(path.to_str().unwrap()), "{}", ended.stdout);
    let token = read_valid_token(path);
    assert_token_not_printed(ended, &token);
    token
}

fn assert_token_not_printed(ended: &CommandOutput, token: &str) {
    for text in [&ended.stdout, &ended.stderr] {
        assert!(!text.contains(prefix(token, 16)), "the token is printed: {text}");
    }
}

#[tokio::test]
async fn token_file_is_private_with_any_umask() {
    let mut tokens = Vec::new();
    for umask in ["000", "022", "027", "077", "777"] {
        let home = home();
        let (plain, path) = command_with_state_dir(&home, &[]);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("umask {umask}; exec \"$0\" \"$@\"")).arg(plain.get_program());
        shell.args(plain.get_args()).current_dir(home.path()).env_clear();
        shell.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        tokens.push(assert_created(&run_command(shell).await, &path));
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700, "umask {umask}");
    }
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 5, "the tokens are not unique");
}

#[tokio::test]
async fn existing_token_file_is_kept_without_replace() {
    let home = home();
    let (command, path) = command_with_state_dir(&home, &[]);
    let first = assert_created(&run_command(command).await, &path);
    for arguments in [&[][..], &["--json"]] {
        let ended = run_command(command_with_state_dir(&home, arguments).0).await;
        assert_eq!(ended.code, Some(1), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains("--replace") && ended.stderr.trim_end().ends_with('.'), "{ended:?}");
        assert_token_not_printed(&ended, &first);
        assert_eq!(read_valid_token(&path), first, "{arguments:?}");
    }
    let second = assert_created(&run_command(command_with_state_dir(&home, &["--replace"]).0).await, &path);
    assert_ne!(second, first);
    // This also replaces an unusable file, and creates a missing one.
    for mode in [0o644, 0o000] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_ne!(
            assert_created(&run_command(command_with_state_dir(&home, &["--replace"]).0).await, &path),
            second
        );
    }
    fs::write(&path, "").unwrap();
    assert_created(&run_command(command_with_state_dir(&home, &["--replace"]).0).await, &path);
    fs::remove_file(&path).unwrap();
    assert_created(&run_command(command_with_state_dir(&home, &["--replace"]).0).await, &path);
    let paths: Vec<_> =
        fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let token_files: Vec<_> =
        paths.iter().filter(|path| fs::read_to_string(path).is_ok_and(|text| text.len() > 32)).collect();
    assert_eq!(token_files, [&path], "there are other files with a token");
}

#[tokio::test]
async fn json_flag_prints_a_document_with_the_path() {
    let home = home();
    let (command, path) = command_with_state_dir(&home, &["--json"]);
    let ended = run_command(command).await;
    let first = assert_created(&ended, &path);
    let document: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(ended.stdout, serde_json::to_string_pretty(&document).unwrap() + "\n");
    let paths: Vec<_> =
        document.as_object().unwrap().values().filter(|value| **value == *path.to_str().unwrap()).collect();
    assert_eq!(paths.len(), 1, "{document}");
    let ended = run_command(command_with_state_dir(&home, &["--json", "--replace"]).0).await;
    assert_ne!(assert_created(&ended, &path), first);
}

#[tokio::test]
async fn token_file_path_is_read_from_flag_and_environment() {
    let home = home();
    let path = home.path().join("other");
    let flag = ["--auth-token-file", path.to_str().unwrap()];
    let first = assert_created(&run_command(command(home.path(), &flag)).await, &path);
    assert_eq!(run_command(command(home.path(), &flag)).await.code, Some(1));
    assert_eq!(read_valid_token(&path), first);
    let mut by_variable = command(home.path(), &["--replace"]);
    by_variable.env("BAA_CODEXD_AUTH_TOKEN_FILE", &path);
    assert_ne!(assert_created(&run_command(by_variable).await, &path), first);
}

#[tokio::test]
async fn token_command_writes_through_no_symlink_and_replaces_no_directory() {
    for replace in [false, true] {
        let home = home();
        let victim = home.path().join("victim");
        let path = home.path().join("auth-token");
        let mut arguments = vec!["--auth-token-file".to_owned(), path.to_str().unwrap().to_owned()];
        arguments.extend(replace.then(|| "--replace".to_owned()));
        write_private(&victim, TOKEN);
        symlink(&victim, &path).unwrap();
        let ended = run_command(command(home.path(), &arguments)).await;
        assert_token_not_printed(&ended, TOKEN);
        assert_eq!(fs::read_to_string(&victim).unwrap(), TOKEN, "replace: {replace}");
        if replace && ended.code == Some(0) {
            read_valid_token(&path);
        } else {
            assert_eq!(ended.code, Some(1), "{ended:?}");
            assert!(path.is_symlink());
        }
        // No file may be created at the target of a dangling symlink.
        let missing = home.path().join("nowhere");
        fs::remove_file(&path).unwrap();
        symlink(&missing, &path).unwrap();
        run_command(command(home.path(), &arguments)).await;
        assert!(!missing.exists(), "replace: {replace}");
        // A directory is not replaced.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let ended = run_command(command(home.path(), &arguments)).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(path.is_dir());
    }
}

#[tokio::test]
async fn one_of_many_concurrent_commands_creates_the_file() {
    let home = home();
    let running: Vec<_> = (0..CONCURRENT_COMMANDS)
        .map(|_| tokio::spawn(run_command(command_with_state_dir(&home, &[]).0)))
        .collect();
    let mut codes = Vec::new();
    for ended in running {
        codes.push(ended.await.unwrap().code);
    }
    codes.sort();
    assert_eq!(codes, [&[Some(0)][..], &[Some(1); CONCURRENT_COMMANDS - 1]].concat());
    read_valid_token(&command_with_state_dir(&home, &[]).1);
}

#[tokio::test]
async fn running_daemon_accepts_a_replaced_token() {
    let file = TokenFile::new();
    let daemon = file.of(Daemon::builder()).start().await;
    assert!(is_authorized(&daemon, TOKEN).await);
    let home = home();
    let arguments = [OsStr::new("--replace"), OsStr::new("--auth-token-file"), file.path().as_os_str()]
        .map(OsStr::to_owned);
    let token = assert_created(&run_command(command(home.path(), &arguments)).await, &file.path());
    wait_until_async("the new token to be accepted", async || {
        is_authorized(&daemon, &token).await.then_some(())
    })
    .await;
    assert!(!is_authorized(&daemon, TOKEN).await);
}

#[tokio::test]
async fn daemon_starts_with_the_token_file_of_the_command() {
    let home = home();
    let (command, path) = command_with_state_dir(&home, &[]);
    let token = assert_created(&run_command(command).await, &path);
    let daemon = Daemon::builder().arg("--auth-token-file").arg(&path).start().await;
    assert!(is_authorized(&daemon, &token).await && !is_authorized(&daemon, OTHER).await);
}

/// Runs `codexd status` for this daemon with these arguments.
async fn run_status(daemon: &Daemon, arguments: &[&OsStr]) -> CommandOutput {
    let home = home();
    let mut command = codexd(home.path());
    command.args(["status", "--json", "--local-api-base", daemon.base_url()]).args(arguments);
    command.current_dir(home.path());
    run_command(command).await
}

#[tokio::test]
async fn status_command_authenticates_with_the_token_file() {
    let file = TokenFile::new();
    let daemon = file.of(Daemon::builder()).start().await;
    let path = file.path();
    let flag = [OsStr::new("--auth-token-file"), path.as_os_str()];
    let ended = run_status(&daemon, &flag).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    let document: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(document["running"], true);
    assert_token_not_printed(&ended, TOKEN);
    // Without the token, and with a wrong one, the command reports that a token is needed and prints no token.
    let wrong = TokenFile::new();
    wrong.replace(OTHER);
    let (wrong_path, missing) = (wrong.path(), wrong.path().with_extension("missing"));
    for arguments in [
        &[][..],
        &[OsStr::new("--auth-token-file"), wrong_path.as_os_str()],
        &[OsStr::new("--auth-token-file"), missing.as_os_str()],
    ] {
        let ended = run_status(&daemon, arguments).await;
        assert!(matches!(ended.code, Some(1..=3)), "{arguments:?}: {ended:?}");
        let output = format!("{}{}", ended.stdout, ended.stderr);
        assert!(output.contains("token"), "{arguments:?}: {output}");
        assert_token_not_printed(&ended, TOKEN);
        assert_token_not_printed(&ended, OTHER);
    }
}

#[tokio::test]
async fn config_command_prints_the_path_and_not_the_token() {
    let file = TokenFile::new();
    let home = home();
    let mut command = codexd(home.path());
    command.args(["config", "--auth-token-file"]).arg(file.path()).current_dir(home.path());
    let ended = run_command(command).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains(file.path().to_str().unwrap()), "{}", ended.stdout);
    assert_token_not_printed(&ended, TOKEN);
}
