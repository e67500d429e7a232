//! Who may ask: the token of the file, on every route that there is and however it is written.

use std::fs;
#[cfg(target_os = "linux")]
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::raw_http::{HANDSHAKE, Sent, WireAnswer, assert_all_good, first_answer, first_answers, request};
use super::routes::{Filled, Route, routes};
use crate::api::{SESSIONS, STATUS, TURN, logged_type};
use crate::sessions::RecordingAppServer;
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::http::{Target, get};
use crate::support::scratch;
use crate::support::wait::wait_until_async;
use crate::support::websocket::{EVENTS_PATH, EventStream};

/// A token with letters in both halves, so that it has another case.
pub(super) const TOKEN: &str = "f00dfacecafe0123456789abcdef0123f00dfacecafe0123456789abcdef0123";
/// Another one, of the same length.
pub(super) const OTHER: &str = "0ddba11cafe0123456789abcdef01230ddba11cafe0123456789abcdef01230a";

/// The beginning of a token.
pub(super) fn beginning(token: &str, characters: usize) -> &str {
    token.get(..characters).unwrap()
}

/// A file with a token, in a folder of its own.
pub(super) struct TokenFile {
    folder: TempDir,
}

impl TokenFile {
    pub(super) fn new() -> Self {
        let file = Self { folder: scratch::directory("token") };
        file.replace(TOKEN);
        file
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("auth-token")
    }

    /// Puts another file into the place, all at once.
    pub(super) fn replace(&self, text: impl AsRef<[u8]>) {
        let new = self.folder.path().join("new");
        write_private(&new, text);
        fs::rename(new, self.path()).unwrap();
    }

    /// The arguments of a daemon that asks for it.
    pub(super) fn of(&self, builder: DaemonBuilder) -> DaemonBuilder {
        builder.arg("--auth-token-file").arg(self.path())
    }
}

/// A file that is for its owner alone.
pub(super) fn write_private(path: &Path, text: impl AsRef<[u8]>) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// The header line of this token.
pub(super) fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

/// The answer to this request line with these header lines beside the Host.
pub(super) async fn ask(daemon: &Daemon, line: &str, lines: &[impl AsRef<str>], body: &str) -> WireAnswer {
    let bytes = bytes(daemon, line, lines, body);
    first_answer(daemon.authority(), &bytes).await.unwrap_or_else(|why| panic!("{line}: {why}"))
}

fn bytes(daemon: &Daemon, line: &str, lines: &[impl AsRef<str>], body: &str) -> Vec<u8> {
    let host = format!("Host: {}", daemon.authority());
    let lines = std::iter::once(host.as_str()).chain(lines.iter().map(AsRef::as_ref));
    request(line, &lines.collect::<Vec<_>>(), body)
}

/// Whether the status is told to whoever has this token.
pub(super) async fn opens(daemon: &Daemon, token: &str) -> bool {
    let answer = ask(daemon, &format!("GET {STATUS}"), &[bearer(token)], "").await;
    match answer.status {
        200 => true,
        _ => {
            answer.refuses(401, "unauthorized").unwrap();
            false
        }
    }
}

/// Waits until turns can be taken, which everybody may know.
pub(super) async fn ready(daemon: &Daemon) {
    wait_until_async("the app-server to come", async || {
        let health = get(daemon, "/healthz").await.json;
        (health["service"]["ready"] == true).then_some(())
    })
    .await;
    logged_type(daemon, "app-server.connected").await;
}

/// Names of things that there are not; whoever has the token gets to know that.
fn nobody() -> Filled {
    let name = |kind: &str| format!("{kind}-nobody");
    Filled { session: name("session"), turn: name("turn"), request: name("request"), queue: name("queued") }
}

/// Every route but the two that are open, an unknown one, and methods that no route has.
async fn closed_routes(daemon: &Daemon) -> Vec<Route> {
    let mut all = routes(daemon, &[&bearer(TOKEN)]).await;
    all.retain(|route| !["/", "/healthz"].contains(&route.path.as_str()));
    assert!(all.len() > 10, "{all:?}");
    for (method, path) in [
        ("GET", "/nothing/here"),
        ("OPTIONS", SESSIONS),
        ("HEAD", STATUS),
        ("PUT", TURN),
        ("BREW", "/nothing/here"),
        // Other spellings of the open ones.
        ("GET", "/."),
        ("GET", "/%2f"),
        ("GET", "/index.html"),
        ("GET", "//healthz"),
        ("GET", "/HEALTHZ"),
        ("GET", "/%68ealthz"),
        ("GET", "/healthz%2f"),
        ("GET", "/healthz/x"),
        ("GET", "/healthz;x"),
        ("GET", "/healthz/../v1/codexd/status"),
        ("GET", "/v1/codexd/status?x=/healthz"),
        ("GET", "/v1/codexd/../../healthz"),
    ] {
        all.push(Route { method: method.to_owned(), path: path.to_owned() });
    }
    all
}

/// Ways to say who asks that are not the right one: what is put behind the path, and header lines.
fn wrong_credentials() -> Vec<(String, Vec<String>)> {
    let upper = TOKEN.to_uppercase();
    let (shorter, longer) = (beginning(TOKEN, TOKEN.len() - 1), format!("{TOKEN}0"));
    let values = [
        String::new(),
        "Bearer".to_owned(),
        format!("Bearer {OTHER}"),
        format!("Bearer {shorter}"),
        format!("Bearer {longer}"),
        format!("Bearer {}", TOKEN.trim_start_matches('f')),
        format!("Bearer {upper}"),
        format!("Bearer {TOKEN}{TOKEN}"),
        format!("Bearer {TOKEN} {TOKEN}"),
        format!("Bearer {TOKEN},"),
        format!("Bearer {TOKEN}, Bearer {TOKEN}"),
        format!("Bearer \"{TOKEN}\""),
        format!("Bearer token={TOKEN}"),
        format!("Bearer={TOKEN}"),
        format!("Bearer:{TOKEN}"),
        format!("Bearer{TOKEN}"),
        format!("Bearer Bearer {TOKEN}"),
        format!("Token {TOKEN}"),
        format!("Digest {TOKEN}"),
        TOKEN.to_owned(),
        // `:TOKEN` and `codexd:TOKEN`, as a browser would send them for a name and a password.
        "Basic OmYwMGRmYWNlY2FmZTAxMjM0NTY3ODlhYmNkZWYwMTIzZjAwZGZhY2VjYWZlMDEyMzQ1Njc4OWFiY2RlZjAxMjM="
            .to_owned(),
        format!("Basic {TOKEN}"),
        "Bearer null".to_owned(),
        "Bearer undefined".to_owned(),
        "Bearer %66%30%30%64".to_owned(),
        format!("Bearer {TOKEN}\u{e9}"),
        format!("Bearer {}", TOKEN.replace('a', "а")),
    ];
    let mut all: Vec<(String, Vec<String>)> =
        values.iter().map(|value| (String::new(), vec![format!("Authorization: {value}")])).collect();
    all.push((String::new(), Vec::new()));
    for [first, second] in [[TOKEN, TOKEN], [TOKEN, OTHER], [OTHER, TOKEN]] {
        all.push((String::new(), vec![bearer(first), bearer(second)]));
    }
    all.push((String::new(), vec![bearer(TOKEN), "Authorization:".to_owned()]));
    for query in ["token", "access_token", "auth", "key", "authorization"] {
        all.push((format!("?{query}={TOKEN}"), Vec::new()));
    }
    all.push((format!("?authorization=Bearer%20{TOKEN}"), Vec::new()));
    for line in [
        format!("Cookie: token={TOKEN}"),
        format!("Cookie: Authorization=Bearer {TOKEN}"),
        format!("Proxy-Authorization: Bearer {TOKEN}"),
        format!("X-Authorization: Bearer {TOKEN}"),
        format!("X-Auth-Token: {TOKEN}"),
        format!("X-Api-Key: {TOKEN}"),
        // It is for handshakes alone.
        format!("Sec-WebSocket-Protocol: codexd.v1, codexd.bearer.{TOKEN}"),
        format!("Upgrade: websocket\r\nSec-WebSocket-Protocol: codexd.bearer.{OTHER}"),
    ] {
        all.push((String::new(), vec![line]));
    }
    all
}

#[tokio::test]
async fn nobody_without_the_token_gets_anywhere() {
    let (file, app_server) = (TokenFile::new(), RecordingAppServer::new());
    let daemon = file.of(app_server.builder().arg("--check-interval").arg("3600")).start().await;
    ready(&daemon).await;
    let closed = closed_routes(&daemon).await;
    let credentials = wrong_credentials();
    let mut sent: Vec<Sent> = Vec::new();
    for Route { method, path } in &closed {
        let path = nobody().fill(path);
        let body = if method == "POST" { r#"{"input":"hello"}"# } else { "" };
        for (query, lines) in &credentials {
            let line = format!("{method} {path}{query}");
            sent.push((format!("{line} {lines:?}"), bytes(&daemon, &line, lines, body)));
        }
    }
    let (log, heard) = (daemon.events_on_disk(), fs::read(app_server.recording()).unwrap());
    let mut failures = Vec::new();
    let mut bodies = Vec::new();
    for ((name, _), answer) in sent.iter().zip(first_answers(&daemon, &sent).await) {
        let is_head = name.starts_with("HEAD ");
        let checked = answer.and_then(|answer| {
            if is_head {
                answer.is(401, None)?
            } else {
                answer.refuses(401, "unauthorized")?
            }
            if answer.headers("www-authenticate") != ["Bearer"] {
                return Err(format!("www-authenticate is {:?}", answer.headers("www-authenticate")));
            }
            Ok(answer.body)
        });
        match checked {
            Ok(body) if !is_head => bodies.push(body),
            Ok(_) => {}
            Err(why) => failures.push(format!("{name}: {why}")),
        }
    }
    bodies.sort();
    bodies.dedup();
    assert_all_good(&failures);
    assert_eq!(bodies.len(), 1, "who was refused can tell why: {bodies:?}");
    assert_eq!(daemon.events_on_disk(), log);
    assert_eq!(fs::read(app_server.recording()).unwrap(), heard, "the app-server heard something");

    // All of this would have been noticed.
    let created = ask(&daemon, &format!("POST {SESSIONS}"), &[bearer(TOKEN)], "{}").await;
    created.is(201, None).unwrap();
    assert!(daemon.events_on_disk().len() > log.len());
    assert_eq!(app_server.calls("thread/start").len(), 1);
}

#[tokio::test]
async fn the_token_opens_every_route() {
    let file = TokenFile::new();
    let daemon = file.of(Daemon::builder()).start().await;
    ready(&daemon).await;
    let mut failures = Vec::new();
    for Route { method, path } in closed_routes(&daemon).await {
        let line = format!("{method} {}", nobody().fill(&path));
        let answer = ask(&daemon, &line, &[bearer(TOKEN)], "").await;
        if !matches!(answer.status, 200 | 201 | 400 | 404) {
            failures.push(format!("{line}: {} {}", answer.status, answer.body));
        }
        if answer.body.contains(TOKEN) {
            failures.push(format!("{line} tells the token"));
        }
    }
    assert_all_good(&failures);
    for scheme in ["bearer", "BEARER", "bEaReR"] {
        let line = format!("Authorization: {scheme} {TOKEN}");
        ask(&daemon, &format!("GET {STATUS}"), &[line], "").await.is(200, None).unwrap();
    }
}

#[tokio::test]
async fn health_and_the_page_are_for_everybody() {
    let file = TokenFile::new();
    let daemon = file.of(Daemon::builder()).start().await;
    for lines in [vec![], vec![bearer(OTHER)], vec![bearer(TOKEN)], vec![bearer(OTHER), bearer(TOKEN)]] {
        for line in [
            "GET /healthz",
            "HEAD /healthz",
            "GET /healthz/",
            "GET /healthz?a=b",
            "GET /",
            "HEAD /",
            "GET //",
            "GET /?a=b",
        ] {
            let answer = ask(&daemon, line, &lines, "").await;
            answer.is(200, None).unwrap_or_else(|why| panic!("{line} {lines:?}: {why}"));
        }
    }
    // It is open for those who are let in at all.
    let evil = ["Origin: http://evil.example".to_owned()];
    ask(&daemon, "GET /healthz", &evil, "").await.refuses(403, "forbidden").unwrap();
}

#[tokio::test]
async fn a_page_is_told_that_it_may_not_come_before_it_is_asked_who_it_is() {
    let file = TokenFile::new();
    let daemon = file.of(Daemon::builder()).start().await;
    for line in ["Origin: http://evil.example", "Sec-Fetch-Site: cross-site"] {
        for lines in [vec![line.to_owned()], vec![line.to_owned(), bearer(TOKEN)]] {
            let answer = ask(&daemon, &format!("POST {SESSIONS}"), &lines, "{}").await;
            answer.refuses(403, "forbidden").unwrap_or_else(|why| panic!("{lines:?}: {why}"));
        }
    }
}

#[tokio::test]
async fn a_token_that_is_too_long_for_a_head_is_not_looked_at() {
    let file = TokenFile::new();
    let daemon = file.of(Daemon::builder()).start().await;
    let long = TOKEN.repeat(1024);
    assert_eq!(long.len(), 64 * 1024);
    let answer = ask(&daemon, &format!("GET {STATUS}"), &[bearer(&long)], "").await;
    answer.refuses(431, "headers_too_large").unwrap();
    let shorter = TOKEN.repeat(64);
    assert!(!opens(&daemon, &shorter).await);
    assert!(opens(&daemon, TOKEN).await);
}

/// A handshake with these lines; the status, and the protocol that was agreed on.
async fn handshake(daemon: &Daemon, lines: &[String]) -> (u16, Option<String>) {
    let whole = HANDSHAKE.map(str::to_owned);
    let answer = ask(daemon, &format!("GET {EVENTS_PATH}"), &[&whole, lines].concat(), "").await;
    if answer.status != 101 {
        answer.refuses(answer.status, "unauthorized").unwrap_or_else(|why| panic!("{lines:?}: {why}"));
    }
    let agreed = answer.headers("sec-websocket-protocol").join("; ");
    assert!(!agreed.contains("bearer"), "{lines:?}: {agreed}");
    (answer.status, Some(agreed).filter(|agreed| !agreed.is_empty()))
}

fn protocols(offered: &str) -> String {
    format!("Sec-WebSocket-Protocol: {offered}")
}

#[tokio::test]
async fn a_websocket_may_say_the_token_as_a_protocol() {
    let file = TokenFile::new();
    let daemon = file.of(Daemon::builder()).start().await;
    let both = protocols(&format!("codexd.v1, codexd.bearer.{TOKEN}"));
    let v1 = || (101, Some("codexd.v1".to_owned()));
    let refused = || (401, None);
    for (lines, wanted) in [
        (vec![both.clone()], v1()),
        (vec![protocols(&format!("codexd.v1,codexd.bearer.{TOKEN}"))], v1()),
        (vec![bearer(TOKEN)], (101, None)),
        (vec![bearer(TOKEN), protocols("codexd.v1")], v1()),
        (vec![bearer(TOKEN), protocols("chat, codexd.v1")], v1()),
        (vec![bearer(TOKEN), protocols("chat")], (101, None)),
        (vec![bearer(TOKEN), both.clone()], v1()),
        (vec![], refused()),
        (vec![protocols("codexd.v1")], refused()),
        // A browser gives up when none of its protocols is agreed on.
        (vec![protocols(&format!("codexd.bearer.{TOKEN}"))], refused()),
        (vec![protocols(&format!("chat, codexd.bearer.{TOKEN}"))], refused()),
        (vec![protocols(&format!("codexd.v1, codexd.bearer.{OTHER}"))], refused()),
        (vec![protocols("codexd.v1, codexd.bearer.")], refused()),
        (vec![protocols(&format!("codexd.v1, codexd.bearer.{}", TOKEN.trim_start_matches('f')))], refused()),
        (vec![protocols(&format!("codexd.v1, codexd.bearer.{TOKEN}0"))], refused()),
        (vec![protocols(&format!("codexd.v1, codexd.bearer.{}", TOKEN.to_uppercase()))], refused()),
        (vec![protocols(&format!("codexd.v1, bearer.{TOKEN}"))], refused()),
        (vec![protocols(&format!("codexd.v1, {TOKEN}"))], refused()),
        (vec![protocols(&format!("codexd.v1, codexd.bearer.{OTHER}, codexd.bearer.{TOKEN}"))], refused()),
        (vec![protocols(&format!("codexd.v1, codexd.bearer.{TOKEN}, codexd.bearer.{OTHER}"))], refused()),
        // Who says something else besides has said something else.
        (vec![bearer(OTHER), both.clone()], refused()),
        (vec!["Authorization:".to_owned(), both.clone()], refused()),
        (vec!["Authorization: Basic Og==".to_owned(), both.clone()], refused()),
        (vec![bearer(OTHER), bearer(TOKEN)], refused()),
    ] {
        assert_eq!(handshake(&daemon, &lines).await, wanted, "{lines:?}");
    }
    let words = format!("codexd.v1, codexd.bearer.{TOKEN}");
    EventStream::connect_to(&daemon, EVENTS_PATH, &[("sec-websocket-protocol", &words)]).await.hello().await;
}

#[tokio::test]
async fn without_a_token_file_the_protocol_is_agreed_on_too() {
    let daemon = Daemon::builder().start().await;
    for (lines, wanted) in [
        (vec![], None),
        (vec![protocols("codexd.v1")], Some("codexd.v1")),
        (vec![protocols(&format!("codexd.v1, codexd.bearer.{TOKEN}"))], Some("codexd.v1")),
        (vec![protocols("chat")], None),
        (vec![bearer(TOKEN)], None),
    ] {
        let (status, agreed) = handshake(&daemon, &lines).await;
        assert_eq!((status, agreed.as_deref()), (101, wanted), "{lines:?}");
    }
}

#[tokio::test]
async fn the_token_is_written_nowhere_and_given_to_nobody() {
    let file = TokenFile::new();
    let builder = Daemon::builder().env("BAA_CODEXD_AUTH_TOKEN_FILE", file.path());
    let mut daemon = builder.env("BAA_CODEXD_LOG", "trace").start().await;
    ready(&daemon).await;
    let created = ask(&daemon, &format!("POST {SESSIONS}"), &[bearer(TOKEN)], "{}").await;
    let created: Value = serde_json::from_str(&created.body).unwrap();
    let turn =
        serde_json::json!({ "sessionId": created["data"]["session"]["sessionId"], "input": "command" });
    let path = format!("POST {TURN}?wait=30");
    ask(&daemon, &path, &[bearer(TOKEN)], &turn.to_string()).await.is(202, None).unwrap();
    ask(&daemon, &format!("GET /nothing?token={TOKEN}"), &[bearer(OTHER)], "").await.is(401, None).unwrap();
    handshake(&daemon, &[protocols(&format!("codexd.v1, codexd.bearer.{TOKEN}"))]).await;
    #[cfg(target_os = "linux")]
    {
        let processes = daemon.survivors();
        assert!(processes.len() > 1, "the app-server is not among {processes:?}");
        for (pid, command_line) in processes {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            assert!(!has_token(&environment) && !has_token(command_line.as_bytes()), "{pid}: {command_line}");
            let file = memchr::memmem::find(&environment, file.path().as_os_str().as_bytes());
            let is_codexd = pid == daemon.pid() || command_line.contains("codexd guard ");
            assert!(is_codexd || file.is_none(), "{pid} knows the file: {command_line}");
        }
    }
    assert!(daemon.stop().await.status.success());
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in [daemon.state_dir(), daemon.logs_dir()] {
        files.extend(fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    }
    assert!(files.len() > 8, "{files:?}");
    for path in files {
        assert!(!has_token(&fs::read(&path).unwrap()), "{}", path.display());
    }
    assert!(!has_token(daemon.stdout().as_bytes()), "on stdout");
    assert!(!has_token(daemon.stderr().as_bytes()), "on stderr");
}

fn has_token(bytes: &[u8]) -> bool {
    [TOKEN, OTHER].iter().any(|token| memchr::memmem::find(bytes, token.as_bytes()).is_some())
}
