//! The token file: which files the daemon accepts at start, and what it does when the file changes.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use super::raw_http::{assert_no_failures, request};
use super::tokens::{
    OTHER, TOKEN, TokenFile, bearer, is_authorized, prefix, send, wait_until_ready, write_private,
};
use crate::api::{SESSIONS, STATUS};
use crate::support::daemon::Daemon;
use crate::support::http::{Target, get};
use crate::support::skip::skip;
use crate::support::wait::{DEADLINE, wait_until_async};
use crate::support::websocket::{EVENTS_PATH, EventStream};

const CLOSE_POLICY_VIOLATION: u16 = 1008;

/// Creates something at this path that is not a private file with one token.
type MakeUnusable = fn(&Path);

/// The unusable files with their names.
const UNUSABLE_FILES: [(&str, MakeUnusable); 27] = [
    ("readable by its group", |path| write_with_mode(path, 0o640)),
    ("readable by all", |path| write_with_mode(path, 0o644)),
    ("readable by others", |path| write_with_mode(path, 0o604)),
    ("writable by its group", |path| write_with_mode(path, 0o620)),
    ("writable by others", |path| write_with_mode(path, 0o602)),
    ("executable by others", |path| write_with_mode(path, 0o601)),
    ("missing", |_| {}),
    ("a symlink to a good file", |path| {
        let good = path.with_extension("good");
        write_private(&good, TOKEN);
        symlink(good, path).unwrap();
    }),
    ("a symlink to nowhere", |path| symlink("/nowhere/at/all", path).unwrap()),
    ("a symlink to itself", |path| symlink(path, path).unwrap()),
    ("a directory", |path| fs::create_dir(path).unwrap()),
    ("a pipe", create_fifo),
    ("a device", |path| symlink("/dev/zero", path).unwrap()),
    ("empty", |path| write_private(path, "")),
    ("white space", |path| write_private(path, " \n\t\r\n".repeat(20))),
    ("too short", |path| write_private(path, prefix(TOKEN, 31))),
    ("too short with white space", |path| write_private(path, format!("   {}   \n", prefix(TOKEN, 31)))),
    ("too long", |path| write_private(path, "a".repeat(513))),
    ("much too long", |path| {
        write_private(path, "");
        File::options().write(true).open(path).unwrap().set_len(1 << 40).unwrap();
    }),
    ("two tokens", |path| write_private(path, format!("{TOKEN}\n{OTHER}\n"))),
    ("two tokens in one line", |path| write_private(path, format!("{TOKEN} {OTHER}"))),
    ("an invalid character", |path| write_private(path, format!("{TOKEN}/"))),
    ("quotes", |path| write_private(path, format!("\"{TOKEN}\""))),
    ("a comma", |path| write_private(path, format!("{TOKEN},{OTHER}"))),
    ("a NUL", |path| write_private(path, format!("{TOKEN}\0"))),
    ("not ASCII", |path| write_private(path, format!("{TOKEN}é"))),
    ("not text", |path| write_private(path, [TOKEN.as_bytes(), b"\xff\xfe"].concat())),
];

fn write_with_mode(path: &Path, mode: u32) {
    fs::write(path, TOKEN).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn create_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg("-m").arg("600").arg(path).status().unwrap().success());
}

/// Removes the file, directory or symlink at this path.
fn remove(path: &Path) {
    if path.is_dir() && !path.is_symlink() {
        fs::remove_dir(path).unwrap();
    } else if path.is_symlink() || path.exists() {
        fs::remove_file(path).unwrap();
    }
}

/// Checks that stderr of a refused start is one sentence with the path and without the token.
fn check_refusal_message(stderr: &str, path: &Path) -> Result<(), String> {
    let lines: Vec<&str> = stderr.lines().collect();
    let [sentence] = lines.as_slice() else { return Err(format!("not one line: {stderr:?}")) };
    let is_sentence = sentence.starts_with("codexd: ") && sentence.ends_with('.');
    if !is_sentence || !sentence.contains(path.to_str().unwrap()) {
        return Err(format!("not a sentence with the path: {sentence:?}"));
    }
    match [TOKEN, OTHER].iter().find(|token| sentence.contains(prefix(token, 31))) {
        Some(_) => Err(format!("the token is printed: {sentence:?}")),
        None => Ok(()),
    }
}

#[tokio::test]
async fn unusable_token_file_is_refused_at_start_with_a_message() {
    let mut failures = Vec::new();
    for (name, make_unusable) in UNUSABLE_FILES {
        let file = TokenFile::new();
        remove(&file.path());
        make_unusable(&file.path());
        let refusal = file.of(Daemon::builder()).start_refused().await;
        let code = refusal.status.code();
        let checked = check_refusal_message(&refusal.stderr, &file.path());
        let checked = if code == Some(2) { checked } else { Err(format!("exit code {code:?}")) };
        failures.extend(checked.err().map(|why| format!("{name}: {why}")));
        if !refusal.stdout.is_empty() {
            failures.push(format!("{name}: {:?} on stdout", refusal.stdout));
        }
    }
    assert_no_failures(&failures);
}

#[tokio::test]
async fn token_file_of_another_user_is_refused_at_start() {
    if !rustix::process::geteuid().is_root() {
        skip(
            "CODEXD_TEST_MOUNTS",
            "a token file of another user",
            "only root can change the owner of a file",
        );
        return;
    }
    let file = TokenFile::new();
    let other_user = Some(65_534);
    chown(file.path(), other_user, other_user).unwrap();
    let refusal = file.of(Daemon::builder()).start_refused().await;
    assert_eq!(refusal.status.code(), Some(2), "{}", refusal.stderr);
    check_refusal_message(&refusal.stderr, &file.path()).unwrap();
}

#[tokio::test]
async fn valid_token_files_are_accepted() {
    let longest = prefix(&"Az09-._~+".repeat(60), 512).to_owned();
    for (name, text, token) in [
        ("32 characters", prefix(TOKEN, 32).to_owned(), prefix(TOKEN, 32)),
        ("512 characters of all kinds", longest.clone(), longest.as_str()),
        ("a line with LF", format!("{TOKEN}\n"), TOKEN),
        ("a line with CRLF", format!("{TOKEN}\r\n"), TOKEN),
        ("white space around it", format!(" \n\t{TOKEN} \n\n"), TOKEN),
    ] {
        for mode in [0o600, 0o400] {
            let file = TokenFile::new();
            file.replace(&text);
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
            let daemon = file.of(Daemon::builder()).start().await;
            assert!(is_authorized(&daemon, token).await, "{name}, {mode:o}");
            assert!(!is_authorized(&daemon, OTHER).await, "{name}, {mode:o}");
        }
    }
}

#[tokio::test]
async fn token_file_is_read_from_the_environment() {
    let file = TokenFile::new();
    let daemon = Daemon::builder().env("BAA_CODEXD_AUTH_TOKEN_FILE", file.path()).start().await;
    assert!(is_authorized(&daemon, TOKEN).await && !is_authorized(&daemon, OTHER).await);
}

/// Waits until the daemon accepts this token.
async fn wait_until_authorized(daemon: &Daemon, token: &str) {
    wait_until_async("the new token to be accepted", async || {
        is_authorized(daemon, token).await.then_some(())
    })
    .await;
}

#[tokio::test]
async fn changed_token_file_replaces_the_token_at_once() {
    let file = TokenFile::new();
    let daemon = file.of(Daemon::builder()).start().await;
    assert!(is_authorized(&daemon, TOKEN).await && !is_authorized(&daemon, OTHER).await);
    file.replace(OTHER);
    wait_until_authorized(&daemon, OTHER).await;
    assert!(!is_authorized(&daemon, TOKEN).await);
    // Tokens of the same length, written in place, faster than the resolution of file timestamps.
    for round in 0..100 {
        let token = format!("{round:064}");
        fs::write(file.path(), &token).unwrap();
        wait_until_authorized(&daemon, &token).await;
        let before = if round == 0 { OTHER.to_owned() } else { format!("{:064}", round - 1) };
        assert!(!is_authorized(&daemon, &before).await, "round {round}");
    }
}

#[tokio::test]
async fn all_requests_are_unauthorized_while_the_token_file_is_unusable() {
    let file = TokenFile::new();
    let daemon = file.of(Daemon::builder()).start().await;
    wait_until_ready(&daemon).await;
    let mut failures = Vec::new();
    for (name, make_unusable) in UNUSABLE_FILES {
        assert!(is_authorized(&daemon, TOKEN).await, "before {name}");
        remove(&file.path());
        make_unusable(&file.path());
        wait_until_async(&format!("the token to be rejected with a file that is {name}"), async || {
            (!is_authorized(&daemon, TOKEN).await).then_some(())
        })
        .await;
        let part = prefix(TOKEN, 31);
        for token in ["", part, TOKEN, OTHER] {
            for line in [format!("GET {STATUS}"), format!("POST {SESSIONS}"), format!("GET {EVENTS_PATH}")] {
                let response = send(&daemon, &line, &[bearer(token)], "").await;
                let checked = response.check_error(401, "unauthorized");
                failures.extend(checked.err().map(|why| format!("{name}, {line} with {token:?}: {why}")));
            }
        }
        assert_eq!(get(&daemon, "/healthz").await.status, 200, "{name}");
        remove(&file.path());
        write_private(&file.path(), TOKEN);
        wait_until_authorized(&daemon, TOKEN).await;
    }
    assert_no_failures(&failures);
    assert!(!daemon.stderr().contains(prefix(TOKEN, 31)), "the log contains the token");
}

async fn connect_events(daemon: &Daemon, headers: &[(&str, &str)]) -> EventStream {
    let mut events = EventStream::connect_to(daemon, EVENTS_PATH, headers).await;
    events.hello().await;
    events
}

#[tokio::test]
async fn websocket_with_replaced_token_is_closed_at_its_next_message() {
    let file = TokenFile::new();
    let builder = Daemon::builder().arg("--ping-interval").arg("3600");
    let daemon = file.of(builder).start().await;
    wait_until_ready(&daemon).await;
    let authorization = format!("Bearer {TOKEN}");
    let protocols = format!("codexd.v1, codexd.bearer.{TOKEN}");
    let as_header = ("authorization", authorization.as_str());
    let as_protocol = ("sec-websocket-protocol", protocols.as_str());
    let replaced: MakeUnusable = |path| write_private(path, OTHER);
    for (name, make_unusable) in [("another token", replaced), ("no file", |path| remove(path))] {
        let mut streams =
            [connect_events(&daemon, &[as_header]).await, connect_events(&daemon, &[as_protocol]).await];
        for events in &mut streams {
            assert_eq!(events.ask(&json!({ "type": "ping" })).await, json!({ "type": "pong" }), "{name}");
        }
        remove(&file.path());
        make_unusable(&file.path());
        wait_until_async("the old token to be rejected", async || {
            (!is_authorized(&daemon, TOKEN).await).then_some(())
        })
        .await;
        let [mut one, mut other] = streams;
        one.send(Message::text(json!({ "type": "status" }).to_string())).await;
        assert_closed(name, one).await;
        let message = json!({ "type": "respond", "requestId": "request-unknown", "decision": "accept" });
        other.send(Message::text(message.to_string())).await;
        assert_closed(name, other).await;
        write_private(&file.path(), TOKEN);
        wait_until_authorized(&daemon, TOKEN).await;
    }
    // A new file with the same token closes no connection.
    let mut events = connect_events(&daemon, &[as_header]).await;
    file.replace(TOKEN);
    assert_eq!(events.ask(&json!({ "type": "ping" })).await, json!({ "type": "pong" }));
}

/// Asserts that the stream is closed because of its token, and that its last message got no reply.
async fn assert_closed(name: &str, mut events: EventStream) {
    let (messages, code) = events.last_messages().await;
    let responses: Vec<_> = messages.iter().filter(|message| message["type"] != "event").collect();
    assert_eq!((code, responses.as_slice()), (CLOSE_POLICY_VIOLATION, &[][..]), "{name}");
}

#[tokio::test]
async fn event_source_with_replaced_token_is_closed() {
    let file = TokenFile::new();
    let daemon = file.of(Daemon::builder().arg("--ping-interval").arg("1")).start().await;
    let own = format!("Host: {}", daemon.authority());
    let lines = [own.as_str(), "Accept: text/event-stream", "Connection: close", &bearer(TOKEN)];
    let mut stream = TcpStream::connect(daemon.authority()).await.unwrap();
    stream.write_all(&request(&format!("GET {EVENTS_PATH}"), &lines, "")).await.unwrap();
    let mut head = [0; 4096];
    let count = stream.read(&mut head).await.unwrap();
    assert!(head[..count].starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head[..count]));
    file.replace(OTHER);
    let mut rest = Vec::new();
    let end = stream.read_to_end(&mut rest);
    tokio::time::timeout(DEADLINE, end).await.expect("the stream is not closed").unwrap();
}

#[tokio::test]
async fn silent_websocket_with_replaced_token_is_closed_at_the_next_ping() {
    let file = TokenFile::new();
    let daemon = file.of(Daemon::builder().arg("--ping-interval").arg("1")).start().await;
    let authorization = format!("Bearer {TOKEN}");
    let mut events = connect_events(&daemon, &[("authorization", &authorization)]).await;
    file.replace(OTHER);
    assert_eq!(events.close_code().await, CLOSE_POLICY_VIOLATION);
    let authorization = format!("Bearer {OTHER}");
    connect_events(&daemon, &[("authorization", &authorization)]).await;
}
