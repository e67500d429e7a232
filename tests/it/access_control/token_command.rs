//! `codexd token`, and what the other commands make of its file.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::tokens::{OTHER, TOKEN, TokenFile, beginning, opens, write_private};
use crate::api::{Ended, run};
use crate::support::daemon::{Daemon, codexd};
use crate::support::http::Target;
use crate::support::scratch;
use crate::support::wait::wait_until_async;

/// How many commands run at once.
const AT_ONCE: usize = 8;

fn home() -> TempDir {
    scratch::directory("token-command")
}

fn command(home: &Path, arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = codexd(home);
    command.arg("token").args(arguments).current_dir(home);
    command
}

/// The command with a state folder of its own, and the file that it makes there.
fn with_state(home: &TempDir, arguments: &[&str]) -> (Command, PathBuf) {
    let state = home.path().join("state");
    let mut command = command(home.path(), arguments);
    command.arg("--state-dir").arg(&state);
    (command, state.join("auth-token"))
}

/// The token in a file that is as it has to be.
fn token_in(path: &Path) -> String {
    let found = fs::symlink_metadata(path).unwrap();
    assert!(found.is_file(), "{}", path.display());
    assert_eq!(found.mode() & 0o7777, 0o600, "{}", path.display());
    let text = fs::read_to_string(path).unwrap();
    let token = text.strip_suffix('\n').unwrap_or_else(|| panic!("no line: {} bytes", text.len())).to_owned();
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    assert!(token.len() == 64 && token.bytes().all(is_digit), "{} characters", token.len());
    token
}

/// Asserts that it worked, and says where the file is and not what is in it; the token.
fn assert_made(ended: &Ended, path: &Path) -> String {
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    assert!(ended.stdout.contains(path.to_str().unwrap()), "{}", ended.stdout);
    let token = token_in(path);
    assert_untold(ended, &token);
    token
}

fn assert_untold(ended: &Ended, token: &str) {
    for text in [&ended.stdout, &ended.stderr] {
        assert!(!text.contains(beginning(token, 16)), "the token is told: {text}");
    }
}

#[tokio::test]
async fn a_new_file_is_ours_alone_whatever_the_umask() {
    let mut tokens = Vec::new();
    for umask in ["000", "022", "027", "077", "777"] {
        let home = home();
        let (plain, path) = with_state(&home, &[]);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("umask {umask}; exec \"$0\" \"$@\"")).arg(plain.get_program());
        shell.args(plain.get_args()).current_dir(home.path()).env_clear();
        shell.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        tokens.push(assert_made(&run(shell).await, &path));
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700, "umask {umask}");
    }
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 5, "no two tokens are the same");
}

#[tokio::test]
async fn a_file_that_is_there_is_kept_unless_it_is_to_be_replaced() {
    let home = home();
    let (command, path) = with_state(&home, &[]);
    let first = assert_made(&run(command).await, &path);
    for arguments in [&[][..], &["--json"]] {
        let ended = run(with_state(&home, arguments).0).await;
        assert_eq!(ended.code, Some(1), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains("--replace") && ended.stderr.trim_end().ends_with('.'), "{ended:?}");
        assert_untold(&ended, &first);
        assert_eq!(token_in(&path), first, "{arguments:?}");
    }
    let second = assert_made(&run(with_state(&home, &["--replace"]).0).await, &path);
    assert_ne!(second, first);
    // Also one that could not be used as it was, and also where there was none.
    for mode in [0o644, 0o000] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_ne!(assert_made(&run(with_state(&home, &["--replace"]).0).await, &path), second);
    }
    fs::write(&path, "").unwrap();
    assert_made(&run(with_state(&home, &["--replace"]).0).await, &path);
    fs::remove_file(&path).unwrap();
    assert_made(&run(with_state(&home, &["--replace"]).0).await, &path);
    let left: Vec<_> =
        fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let strays: Vec<_> =
        left.iter().filter(|left| fs::read_to_string(left).is_ok_and(|text| text.len() > 32)).collect();
    assert_eq!(strays, [&path], "no token is left elsewhere");
}

#[tokio::test]
async fn programs_get_a_document() {
    let home = home();
    let (command, path) = with_state(&home, &["--json"]);
    let ended = run(command).await;
    let first = assert_made(&ended, &path);
    let document: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(ended.stdout, serde_json::to_string_pretty(&document).unwrap() + "\n");
    let told: Vec<_> =
        document.as_object().unwrap().values().filter(|value| **value == *path.to_str().unwrap()).collect();
    assert_eq!(told.len(), 1, "{document}");
    let ended = run(with_state(&home, &["--json", "--replace"]).0).await;
    assert_ne!(assert_made(&ended, &path), first);
}

#[tokio::test]
async fn another_file_may_be_named() {
    let home = home();
    let path = home.path().join("elsewhere");
    let flag = ["--auth-token-file", path.to_str().unwrap()];
    let first = assert_made(&run(command(home.path(), &flag)).await, &path);
    assert_eq!(run(command(home.path(), &flag)).await.code, Some(1));
    assert_eq!(token_in(&path), first);
    let mut by_variable = command(home.path(), &["--replace"]);
    by_variable.env("BAA_CODEXD_AUTH_TOKEN_FILE", &path);
    assert_ne!(assert_made(&run(by_variable).await, &path), first);
}

#[tokio::test]
async fn what_is_no_file_is_not_written_through() {
    for replace in [false, true] {
        let home = home();
        let victim = home.path().join("victim");
        let path = home.path().join("auth-token");
        let mut arguments = vec!["--auth-token-file".to_owned(), path.to_str().unwrap().to_owned()];
        arguments.extend(replace.then(|| "--replace".to_owned()));
        write_private(&victim, TOKEN);
        symlink(&victim, &path).unwrap();
        let ended = run(command(home.path(), &arguments)).await;
        assert_untold(&ended, TOKEN);
        assert_eq!(fs::read_to_string(&victim).unwrap(), TOKEN, "replace: {replace}");
        if replace && ended.code == Some(0) {
            token_in(&path);
        } else {
            assert_eq!(ended.code, Some(1), "{ended:?}");
            assert!(path.is_symlink());
        }
        // A symlink to nowhere must not make a file there.
        let nowhere = home.path().join("nowhere");
        fs::remove_file(&path).unwrap();
        symlink(&nowhere, &path).unwrap();
        run(command(home.path(), &arguments)).await;
        assert!(!nowhere.exists(), "replace: {replace}");
        // Nor is a folder replaced.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let ended = run(command(home.path(), &arguments)).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(path.is_dir());
    }
}

#[tokio::test]
async fn of_many_commands_at_once_one_makes_the_file() {
    let home = home();
    let running: Vec<_> = (0..AT_ONCE).map(|_| tokio::spawn(run(with_state(&home, &[]).0))).collect();
    let mut codes = Vec::new();
    for ended in running {
        codes.push(ended.await.unwrap().code);
    }
    codes.sort();
    assert_eq!(codes, [&[Some(0)][..], &[Some(1); AT_ONCE - 1]].concat());
    token_in(&with_state(&home, &[]).1);
}

#[tokio::test]
async fn a_running_daemon_takes_the_token_that_is_made() {
    let file = TokenFile::new();
    let daemon = file.of(Daemon::builder()).start().await;
    assert!(opens(&daemon, TOKEN).await);
    let home = home();
    let arguments = [OsStr::new("--replace"), OsStr::new("--auth-token-file"), file.path().as_os_str()]
        .map(OsStr::to_owned);
    let token = assert_made(&run(command(home.path(), &arguments)).await, &file.path());
    wait_until_async("the new token to be taken", async || opens(&daemon, &token).await.then_some(())).await;
    assert!(!opens(&daemon, TOKEN).await);
}

#[tokio::test]
async fn a_daemon_begins_with_the_file_of_the_command() {
    let home = home();
    let (command, path) = with_state(&home, &[]);
    let token = assert_made(&run(command).await, &path);
    let daemon = Daemon::builder().arg("--auth-token-file").arg(&path).start().await;
    assert!(opens(&daemon, &token).await && !opens(&daemon, OTHER).await);
}

/// What `codexd status` says of this daemon with these arguments.
async fn status(daemon: &Daemon, arguments: &[&OsStr]) -> Ended {
    let home = home();
    let mut command = codexd(home.path());
    command.args(["status", "--json", "--local-api-base", daemon.base_url()]).args(arguments);
    command.current_dir(home.path());
    run(command).await
}

#[tokio::test]
async fn the_status_is_asked_with_the_token_of_the_file() {
    let file = TokenFile::new();
    let daemon = file.of(Daemon::builder()).start().await;
    let path = file.path();
    let flag = [OsStr::new("--auth-token-file"), path.as_os_str()];
    let told = status(&daemon, &flag).await;
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""), "{}", told.stdout);
    let document: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(document["running"], true);
    assert_untold(&told, TOKEN);
    // Without it, and with another one, it says what is missing and nothing of what is in any file.
    let wrong = TokenFile::new();
    wrong.replace(OTHER);
    let (wrong_path, missing) = (wrong.path(), wrong.path().with_extension("missing"));
    for arguments in [
        &[][..],
        &[OsStr::new("--auth-token-file"), wrong_path.as_os_str()],
        &[OsStr::new("--auth-token-file"), missing.as_os_str()],
    ] {
        let ended = status(&daemon, arguments).await;
        assert!(matches!(ended.code, Some(1..=3)), "{arguments:?}: {ended:?}");
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(said.contains("token"), "{arguments:?}: {said}");
        assert_untold(&ended, TOKEN);
        assert_untold(&ended, OTHER);
    }
}

#[tokio::test]
async fn the_settings_show_the_path_and_not_the_token() {
    let file = TokenFile::new();
    let home = home();
    let mut command = codexd(home.path());
    command.args(["config", "--auth-token-file"]).arg(file.path()).current_dir(home.path());
    let ended = run(command).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains(file.path().to_str().unwrap()), "{}", ended.stdout);
    assert_untold(&ended, TOKEN);
}
