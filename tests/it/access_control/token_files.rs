//! The file with the token: which ones are taken, and what becomes of one that changes.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use super::raw_http::{assert_all_good, request};
use super::tokens::{OTHER, TOKEN, TokenFile, ask, bearer, beginning, opens, ready, write_private};
use crate::api::{SESSIONS, STATUS};
use crate::support::daemon::Daemon;
use crate::support::http::{Target, get};
use crate::support::skip::skip;
use crate::support::wait::{DEADLINE, wait_until_async};
use crate::support::websocket::{EVENTS_PATH, EventStream};

const POLICY: u16 = 1008;

/// Puts something in the place of the file that is no file with a token for us alone.
type Spoil = fn(&Path);

/// What cannot be used, each under its name.
const SPOILT: [(&str, Spoil); 27] = [
    ("readable by its group", |path| mode(path, 0o640)),
    ("readable by everybody", |path| mode(path, 0o644)),
    ("readable by others", |path| mode(path, 0o604)),
    ("writable by its group", |path| mode(path, 0o620)),
    ("writable by others", |path| mode(path, 0o602)),
    ("executable by others", |path| mode(path, 0o601)),
    ("missing", |_| {}),
    ("a symlink to a good file", |path| {
        let good = path.with_extension("good");
        write_private(&good, TOKEN);
        symlink(good, path).unwrap();
    }),
    ("a symlink to nowhere", |path| symlink("/nowhere/at/all", path).unwrap()),
    ("a symlink to itself", |path| symlink(path, path).unwrap()),
    ("a folder", |path| fs::create_dir(path).unwrap()),
    ("a pipe", pipe),
    ("a device", |path| symlink("/dev/zero", path).unwrap()),
    ("empty", |path| write_private(path, "")),
    ("white space", |path| write_private(path, " \n\t\r\n".repeat(20))),
    ("too short", |path| write_private(path, beginning(TOKEN, 31))),
    ("too short with white space", |path| write_private(path, format!("   {}   \n", beginning(TOKEN, 31)))),
    ("too long", |path| write_private(path, "a".repeat(513))),
    ("much too long", |path| {
        write_private(path, "");
        File::options().write(true).open(path).unwrap().set_len(1 << 40).unwrap();
    }),
    ("two tokens", |path| write_private(path, format!("{TOKEN}\n{OTHER}\n"))),
    ("two words", |path| write_private(path, format!("{TOKEN} {OTHER}"))),
    ("a character that none may have", |path| write_private(path, format!("{TOKEN}/"))),
    ("quotes", |path| write_private(path, format!("\"{TOKEN}\""))),
    ("a comma", |path| write_private(path, format!("{TOKEN},{OTHER}"))),
    ("a NUL", |path| write_private(path, format!("{TOKEN}\0"))),
    ("not ASCII", |path| write_private(path, format!("{TOKEN}é"))),
    ("not text", |path| write_private(path, [TOKEN.as_bytes(), b"\xff\xfe"].concat())),
];

fn mode(path: &Path, mode: u32) {
    fs::write(path, TOKEN).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg("-m").arg("600").arg(path).status().unwrap().success());
}

/// Removes whatever is there.
fn clear(path: &Path) {
    if path.is_dir() && !path.is_symlink() {
        fs::remove_dir(path).unwrap();
    } else if path.is_symlink() || path.exists() {
        fs::remove_file(path).unwrap();
    }
}

/// What is wrong with this as the refusal of a start, if anything.
fn is_helpful(stderr: &str, path: &Path) -> Result<(), String> {
    let lines: Vec<&str> = stderr.lines().collect();
    let [sentence] = lines.as_slice() else { return Err(format!("not one line: {stderr:?}")) };
    let is_sentence = sentence.starts_with("codexd: ") && sentence.ends_with('.');
    if !is_sentence || !sentence.contains(path.to_str().unwrap()) {
        return Err(format!("no sentence about the file: {sentence:?}"));
    }
    match [TOKEN, OTHER].iter().find(|token| sentence.contains(beginning(token, 31))) {
        Some(_) => Err(format!("it tells the token: {sentence:?}")),
        None => Ok(()),
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_refused_at_the_start_with_a_sentence() {
    let mut failures = Vec::new();
    for (name, spoil) in SPOILT {
        let file = TokenFile::new();
        clear(&file.path());
        spoil(&file.path());
        let refusal = file.of(Daemon::builder()).start_refused().await;
        let code = refusal.status.code();
        let checked = is_helpful(&refusal.stderr, &file.path());
        let checked = if code == Some(2) { checked } else { Err(format!("exit code {code:?}")) };
        failures.extend(checked.err().map(|why| format!("{name}: {why}")));
        if !refusal.stdout.is_empty() {
            failures.push(format!("{name}: {:?} on stdout", refusal.stdout));
        }
    }
    assert_all_good(&failures);
}

#[tokio::test]
async fn a_file_of_somebody_else_is_refused() {
    if !rustix::process::geteuid().is_root() {
        skip(
            "CODEXD_TEST_MOUNTS",
            "a token file of another user",
            "only root can change the owner of a file",
        );
        return;
    }
    let file = TokenFile::new();
    let nobody = Some(65_534);
    chown(file.path(), nobody, nobody).unwrap();
    let refusal = file.of(Daemon::builder()).start_refused().await;
    assert_eq!(refusal.status.code(), Some(2), "{}", refusal.stderr);
    is_helpful(&refusal.stderr, &file.path()).unwrap();
}

#[tokio::test]
async fn what_is_a_token_is_taken() {
    let longest = beginning(&"Az09-._~+".repeat(60), 512).to_owned();
    for (name, text, token) in [
        ("32 characters", beginning(TOKEN, 32).to_owned(), beginning(TOKEN, 32)),
        ("512 characters of all kinds", longest.clone(), longest.as_str()),
        ("a line", format!("{TOKEN}\n"), TOKEN),
        ("a line of another system", format!("{TOKEN}\r\n"), TOKEN),
        ("white space around it", format!(" \n\t{TOKEN} \n\n"), TOKEN),
    ] {
        for mode in [0o600, 0o400] {
            let file = TokenFile::new();
            file.replace(&text);
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
            let daemon = file.of(Daemon::builder()).start().await;
            assert!(opens(&daemon, token).await, "{name}, {mode:o}");
            assert!(!opens(&daemon, OTHER).await, "{name}, {mode:o}");
        }
    }
}

#[tokio::test]
async fn the_file_is_named_in_the_environment_too() {
    let file = TokenFile::new();
    let daemon = Daemon::builder().env("BAA_CODEXD_AUTH_TOKEN_FILE", file.path()).start().await;
    assert!(opens(&daemon, TOKEN).await && !opens(&daemon, OTHER).await);
}

/// Waits until the daemon has noticed that the token is this one.
async fn noticed(daemon: &Daemon, token: &str) {
    wait_until_async("the new token to be taken", async || opens(daemon, token).await.then_some(())).await;
}

#[tokio::test]
async fn a_new_token_holds_from_the_moment_it_is_in_the_file() {
    let file = TokenFile::new();
    let daemon = file.of(Daemon::builder()).start().await;
    assert!(opens(&daemon, TOKEN).await && !opens(&daemon, OTHER).await);
    file.replace(OTHER);
    noticed(&daemon, OTHER).await;
    assert!(!opens(&daemon, TOKEN).await);
    // Of the same length, in the same file, faster than clocks of files tick.
    for round in 0..100 {
        let token = format!("{round:064}");
        fs::write(file.path(), &token).unwrap();
        noticed(&daemon, &token).await;
        let before = if round == 0 { OTHER.to_owned() } else { format!("{:064}", round - 1) };
        assert!(!opens(&daemon, &before).await, "round {round}");
    }
}

#[tokio::test]
async fn nobody_gets_in_while_the_file_cannot_be_used() {
    let file = TokenFile::new();
    let daemon = file.of(Daemon::builder()).start().await;
    ready(&daemon).await;
    let mut failures = Vec::new();
    for (name, spoil) in SPOILT {
        assert!(opens(&daemon, TOKEN).await, "before {name}");
        clear(&file.path());
        spoil(&file.path());
        wait_until_async(&format!("{name} to be noticed"), async || {
            (!opens(&daemon, TOKEN).await).then_some(())
        })
        .await;
        let part = beginning(TOKEN, 31);
        for token in ["", part, TOKEN, OTHER] {
            for line in [format!("GET {STATUS}"), format!("POST {SESSIONS}"), format!("GET {EVENTS_PATH}")] {
                let answer = ask(&daemon, &line, &[bearer(token)], "").await;
                let checked = answer.refuses(401, "unauthorized");
                failures.extend(checked.err().map(|why| format!("{name}, {line} with {token:?}: {why}")));
            }
        }
        assert_eq!(get(&daemon, "/healthz").await.status, 200, "{name}");
        clear(&file.path());
        write_private(&file.path(), TOKEN);
        noticed(&daemon, TOKEN).await;
    }
    assert_all_good(&failures);
    assert!(!daemon.stderr().contains(beginning(TOKEN, 31)), "the log tells the token");
}

async fn follow(daemon: &Daemon, headers: &[(&str, &str)]) -> EventStream {
    let mut events = EventStream::connect_to(daemon, EVENTS_PATH, headers).await;
    events.hello().await;
    events
}

#[tokio::test]
async fn a_websocket_of_an_old_token_ends_at_its_next_word() {
    let file = TokenFile::new();
    let builder = Daemon::builder().arg("--ping-interval").arg("3600");
    let daemon = file.of(builder).start().await;
    ready(&daemon).await;
    let authorization = format!("Bearer {TOKEN}");
    let protocols = format!("codexd.v1, codexd.bearer.{TOKEN}");
    let as_header = ("authorization", authorization.as_str());
    let as_protocol = ("sec-websocket-protocol", protocols.as_str());
    let replaced: Spoil = |path| write_private(path, OTHER);
    for (name, spoil) in [("another token", replaced), ("no file", |path| clear(path))] {
        let mut streams = [follow(&daemon, &[as_header]).await, follow(&daemon, &[as_protocol]).await];
        for events in &mut streams {
            assert_eq!(events.ask(&json!({ "type": "ping" })).await, json!({ "type": "pong" }), "{name}");
        }
        clear(&file.path());
        spoil(&file.path());
        wait_until_async("the change to be noticed", async || (!opens(&daemon, TOKEN).await).then_some(()))
            .await;
        let [mut one, mut other] = streams;
        one.send(Message::text(json!({ "type": "status" }).to_string())).await;
        assert_closed(name, one).await;
        let answer = json!({ "type": "respond", "requestId": "request-nobody", "decision": "accept" });
        other.send(Message::text(answer.to_string())).await;
        assert_closed(name, other).await;
        write_private(&file.path(), TOKEN);
        noticed(&daemon, TOKEN).await;
    }
    // A new one with the same token changes nothing.
    let mut events = follow(&daemon, &[as_header]).await;
    file.replace(TOKEN);
    assert_eq!(events.ask(&json!({ "type": "ping" })).await, json!({ "type": "pong" }));
}

/// Asserts that the stream ends for its token, and that its last word was not answered.
async fn assert_closed(name: &str, mut events: EventStream) {
    let (messages, code) = events.last_messages().await;
    let answers: Vec<_> = messages.iter().filter(|message| message["type"] != "event").collect();
    assert_eq!((code, answers.as_slice()), (POLICY, &[][..]), "{name}");
}

#[tokio::test]
async fn server_sent_events_of_an_old_token_end_too() {
    let file = TokenFile::new();
    let daemon = file.of(Daemon::builder().arg("--ping-interval").arg("1")).start().await;
    let own = format!("Host: {}", daemon.authority());
    let lines = [own.as_str(), "Accept: text/event-stream", "Connection: close", &bearer(TOKEN)];
    let mut stream = TcpStream::connect(daemon.authority()).await.unwrap();
    stream.write_all(&request(&format!("GET {EVENTS_PATH}"), &lines, "")).await.unwrap();
    let mut received = [0; 4096];
    let count = stream.read(&mut received).await.unwrap();
    assert!(
        received[..count].starts_with(b"HTTP/1.1 200 "),
        "{}",
        String::from_utf8_lossy(&received[..count])
    );
    file.replace(OTHER);
    let mut rest = Vec::new();
    let end = stream.read_to_end(&mut rest);
    tokio::time::timeout(DEADLINE, end).await.expect("the stream goes on").unwrap();
}

#[tokio::test]
async fn a_websocket_of_an_old_token_that_says_nothing_ends_at_the_next_ping() {
    let file = TokenFile::new();
    let daemon = file.of(Daemon::builder().arg("--ping-interval").arg("1")).start().await;
    let authorization = format!("Bearer {TOKEN}");
    let mut events = follow(&daemon, &[("authorization", &authorization)]).await;
    file.replace(OTHER);
    assert_eq!(events.close_code().await, POLICY);
    let authorization = format!("Bearer {OTHER}");
    follow(&daemon, &[("authorization", &authorization)]).await;
}
