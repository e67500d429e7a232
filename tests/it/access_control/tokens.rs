//! Bearer tokens: every route except health and the page requires the token, in the Authorization header or, for a
//! WebSocket, as a subprotocol.

use std::fs;
#[cfg(target_os = "linux")]
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::raw_http::{
    HANDSHAKE, HttpResponse, NamedRequest, assert_no_failures, first_response, first_responses, request,
};
use super::routes::{PathParameters, Route, routes};
use crate::api::{SESSIONS, STATUS, TURN, wait_for_event_type};
use crate::sessions::RecordingAppServer;
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::http::{Target, get};
use crate::support::scratch;
use crate::support::wait::{wait_until, wait_until_async};
use crate::support::websocket::{EVENTS_PATH, EventStream};

/// A token that differs from its upper case form.
pub(super) const TOKEN: &str = "f00dfacecafe0123456789abcdef0123f00dfacecafe0123456789abcdef0123";
/// Another token of the same length.
pub(super) const OTHER: &str = "0ddba11cafe0123456789abcdef01230ddba11cafe0123456789abcdef01230a";

/// The first characters of a token.
pub(super) fn prefix(token: &str, characters: usize) -> &str {
    token.get(..characters).unwrap()
}

/// A token file in a new directory.
pub(super) struct TokenFile {
    directory: TempDir,
}

impl TokenFile {
    pub(super) fn new() -> Self {
        let file = Self { directory: scratch::directory("token") };
        file.replace(TOKEN);
        file
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("auth-token")
    }

    /// Replaces the file atomically.
    pub(super) fn replace(&self, text: impl AsRef<[u8]>) {
        let new = self.directory.path().join("new");
        write_private(&new, text);
        fs::rename(new, self.path()).unwrap();
    }

    /// Adds the arguments for a daemon that requires this token.
    pub(super) fn of(&self, builder: DaemonBuilder) -> DaemonBuilder {
        builder.arg("--auth-token-file").arg(self.path())
    }
}

/// Writes a file that only its owner can access.
pub(super) fn write_private(path: &Path, text: impl AsRef<[u8]>) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// The Authorization header line with this token.
pub(super) fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

/// Sends a request with these header lines and the Host; returns the response.
pub(super) async fn send(daemon: &Daemon, line: &str, lines: &[impl AsRef<str>], body: &str) -> HttpResponse {
    let bytes = request_bytes(daemon, line, lines, body);
    first_response(daemon.authority(), &bytes).await.unwrap_or_else(|why| panic!("{line}: {why}"))
}

fn request_bytes(daemon: &Daemon, line: &str, lines: &[impl AsRef<str>], body: &str) -> Vec<u8> {
    let host = format!("Host: {}", daemon.authority());
    let lines = std::iter::once(host.as_str()).chain(lines.iter().map(AsRef::as_ref));
    request(line, &lines.collect::<Vec<_>>(), body)
}

/// Whether the daemon accepts this token; asserts that it answers 401 otherwise.
pub(super) async fn is_authorized(daemon: &Daemon, token: &str) -> bool {
    let response = send(daemon, &format!("GET {STATUS}"), &[bearer(token)], "").await;
    match response.status {
        200 => true,
        _ => {
            response.check_error(401, "unauthorized").unwrap();
            false
        }
    }
}

/// Waits until the daemon is ready, which `/healthz` reports without a token.
pub(super) async fn wait_until_ready(daemon: &Daemon) {
    wait_until_async("the app-server to connect", async || {
        let health = get(daemon, "/healthz").await.json;
        (health["service"]["ready"] == true).then_some(())
    })
    .await;
    wait_for_event_type(daemon, "app-server.connected").await;
}

/// Parameters that name nothing that exists.
fn unknown_parameters() -> PathParameters {
    let id = |kind: &str| format!("{kind}-unknown");
    PathParameters { session: id("session"), turn: id("turn"), request: id("request"), queue: id("queued") }
}

/// Every route except the two public ones, an unknown route, and unknown methods.
async fn protected_routes(daemon: &Daemon) -> Vec<Route> {
    let mut all = routes(daemon, &[&bearer(TOKEN)]).await;
    all.retain(|route| !["/", "/healthz"].contains(&route.path.as_str()));
    assert!(all.len() > 10, "{all:?}");
    for (method, path) in [
        ("GET", "/nothing/here"),
        ("OPTIONS", SESSIONS),
        ("HEAD", STATUS),
        ("PUT", TURN),
        ("BREW", "/nothing/here"),
        // Other spellings of the public routes.
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

/// Wrong ways to send the token: a query string and header lines.
fn wrong_credentials() -> Vec<(String, Vec<String>)> {
    let upper = TOKEN.to_uppercase();
    let (shorter, longer) = (prefix(TOKEN, TOKEN.len() - 1), format!("{TOKEN}0"));
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
        // `:TOKEN` and `codexd:TOKEN`, as a browser sends a user name and a password.
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
        // The subprotocol is for WebSocket handshakes only.
        format!("Sec-WebSocket-Protocol: codexd.v1, codexd.bearer.{TOKEN}"),
        format!("Upgrade: websocket\r\nSec-WebSocket-Protocol: codexd.bearer.{OTHER}"),
    ] {
        all.push((String::new(), vec![line]));
    }
    all
}

#[tokio::test]
async fn requests_without_the_token_are_unauthorized_and_have_no_effect() {
    let (file, app_server) = (TokenFile::new(), RecordingAppServer::new());
    let daemon = file.of(app_server.builder().arg("--check-interval").arg("3600")).start().await;
    wait_until_ready(&daemon).await;
    // What comes after the daemon is ready.
    wait_for_event_type(&daemon, "app-server.notification").await;
    wait_until("the account", || (!app_server.calls("account/read").is_empty()).then_some(())).await;
    let protected = protected_routes(&daemon).await;
    let credentials = wrong_credentials();
    let mut sent: Vec<NamedRequest> = Vec::new();
    for Route { method, path } in &protected {
        let path = unknown_parameters().fill(path);
        let body = if method == "POST" { r#"{"input":"hello"}"# } else { "" };
        for (query, lines) in &credentials {
            let line = format!("{method} {path}{query}");
            sent.push((format!("{line} {lines:?}"), request_bytes(&daemon, &line, lines, body)));
        }
    }
    let (log, earlier_messages) = (daemon.events_on_disk(), fs::read(app_server.recording()).unwrap());
    let mut failures = Vec::new();
    let mut bodies = Vec::new();
    for ((name, _), response) in sent.iter().zip(first_responses(&daemon, &sent).await) {
        let is_head = name.starts_with("HEAD ");
        let checked = response.and_then(|response| {
            if is_head {
                response.check(401, None)?
            } else {
                response.check_error(401, "unauthorized")?
            }
            if response.headers("www-authenticate") != ["Bearer"] {
                return Err(format!("www-authenticate is {:?}", response.headers("www-authenticate")));
            }
            Ok(response.body)
        });
        match checked {
            Ok(body) if !is_head => bodies.push(body),
            Ok(_) => {}
            Err(why) => failures.push(format!("{name}: {why}")),
        }
    }
    bodies.sort();
    bodies.dedup();
    assert_no_failures(&failures);
    assert_eq!(bodies.len(), 1, "the responses reveal why a request was refused: {bodies:?}");
    assert_eq!(daemon.events_on_disk(), log);
    assert_eq!(
        fs::read(app_server.recording()).unwrap(),
        earlier_messages,
        "the app-server received a message"
    );

    // With the token, the same checks do see an effect.
    let created = send(&daemon, &format!("POST {SESSIONS}"), &[bearer(TOKEN)], "{}").await;
    created.check(201, None).unwrap();
    assert!(daemon.events_on_disk().len() > log.len());
    assert_eq!(app_server.calls("thread/start").len(), 1);
}

#[tokio::test]
async fn token_authorizes_every_route() {
    let file = TokenFile::new();
    let daemon = file.of(Daemon::builder()).start().await;
    wait_until_ready(&daemon).await;
    let mut failures = Vec::new();
    for Route { method, path } in protected_routes(&daemon).await {
        let line = format!("{method} {}", unknown_parameters().fill(&path));
        let response = send(&daemon, &line, &[bearer(TOKEN)], "").await;
        if !matches!(response.status, 200 | 201 | 202 | 400 | 404) {
            failures.push(format!("{line}: {} {}", response.status, response.body));
        }
        if response.body.contains(TOKEN) {
            failures.push(format!("{line} returns the token"));
        }
    }
    assert_no_failures(&failures);
    for scheme in ["bearer", "BEARER", "bEaReR"] {
        let line = format!("Authorization: {scheme} {TOKEN}");
        send(&daemon, &format!("GET {STATUS}"), &[line], "").await.check(200, None).unwrap();
    }
}

#[tokio::test]
async fn health_and_page_need_no_token() {
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
            let response = send(&daemon, line, &lines, "").await;
            response.check(200, None).unwrap_or_else(|why| panic!("{line} {lines:?}: {why}"));
        }
    }
    // A foreign origin is still forbidden.
    let evil = ["Origin: http://evil.example".to_owned()];
    send(&daemon, "GET /healthz", &evil, "").await.check_error(403, "forbidden").unwrap();
}

#[tokio::test]
async fn foreign_origin_is_forbidden_before_the_token_is_checked() {
    let file = TokenFile::new();
    let daemon = file.of(Daemon::builder()).start().await;
    for line in ["Origin: http://evil.example", "Sec-Fetch-Site: cross-site"] {
        for lines in [vec![line.to_owned()], vec![line.to_owned(), bearer(TOKEN)]] {
            let response = send(&daemon, &format!("POST {SESSIONS}"), &lines, "{}").await;
            response.check_error(403, "forbidden").unwrap_or_else(|why| panic!("{lines:?}: {why}"));
        }
    }
}

#[tokio::test]
async fn token_over_the_head_limit_is_refused_with_431() {
    let file = TokenFile::new();
    let daemon = file.of(Daemon::builder()).start().await;
    let long = TOKEN.repeat(1024);
    assert_eq!(long.len(), 64 * 1024);
    let response = send(&daemon, &format!("GET {STATUS}"), &[bearer(&long)], "").await;
    response.check_unparsed(431).unwrap();
    let shorter = TOKEN.repeat(64);
    assert!(!is_authorized(&daemon, &shorter).await);
    assert!(is_authorized(&daemon, TOKEN).await);
}

/// A WebSocket handshake with these lines; returns the status and the selected subprotocol.
async fn handshake(daemon: &Daemon, lines: &[String]) -> (u16, Option<String>) {
    let whole = HANDSHAKE.map(str::to_owned);
    let response = send(daemon, &format!("GET {EVENTS_PATH}"), &[&whole, lines].concat(), "").await;
    if response.status != 101 {
        response
            .check_error(response.status, "unauthorized")
            .unwrap_or_else(|why| panic!("{lines:?}: {why}"));
    }
    let selected = response.headers("sec-websocket-protocol").join("; ");
    assert!(!selected.contains("bearer"), "{lines:?}: {selected}");
    (response.status, Some(selected).filter(|selected| !selected.is_empty()))
}

fn protocols(offered: &str) -> String {
    format!("Sec-WebSocket-Protocol: {offered}")
}

#[tokio::test]
async fn websocket_accepts_the_token_as_a_subprotocol() {
    let file = TokenFile::new();
    let daemon = file.of(Daemon::builder()).start().await;
    let both = protocols(&format!("codexd.v1, codexd.bearer.{TOKEN}"));
    let v1 = || (101, Some("codexd.v1".to_owned()));
    let refused = || (401, None);
    for (lines, expected) in [
        (vec![both.clone()], v1()),
        (vec![protocols(&format!("codexd.v1,codexd.bearer.{TOKEN}"))], v1()),
        (vec![bearer(TOKEN)], (101, None)),
        (vec![bearer(TOKEN), protocols("codexd.v1")], v1()),
        (vec![bearer(TOKEN), protocols("chat, codexd.v1")], v1()),
        (vec![bearer(TOKEN), protocols("chat")], (101, None)),
        (vec![bearer(TOKEN), both.clone()], v1()),
        (vec![], refused()),
        (vec![protocols("codexd.v1")], refused()),
        // A browser closes the connection when the server selects none of its subprotocols.
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
        // A wrong Authorization header is not overridden by the subprotocol.
        (vec![bearer(OTHER), both.clone()], refused()),
        (vec!["Authorization:".to_owned(), both.clone()], refused()),
        (vec!["Authorization: Basic Og==".to_owned(), both.clone()], refused()),
        (vec![bearer(OTHER), bearer(TOKEN)], refused()),
    ] {
        assert_eq!(handshake(&daemon, &lines).await, expected, "{lines:?}");
    }
    let offered = format!("codexd.v1, codexd.bearer.{TOKEN}");
    EventStream::connect_to(&daemon, EVENTS_PATH, &[("sec-websocket-protocol", &offered)])
        .await
        .hello()
        .await;
}

#[tokio::test]
async fn subprotocol_is_selected_without_a_token_file() {
    let daemon = Daemon::builder().start().await;
    for (lines, expected) in [
        (vec![], None),
        (vec![protocols("codexd.v1")], Some("codexd.v1")),
        (vec![protocols(&format!("codexd.v1, codexd.bearer.{TOKEN}"))], Some("codexd.v1")),
        (vec![protocols("chat")], None),
        (vec![bearer(TOKEN)], None),
    ] {
        let (status, selected) = handshake(&daemon, &lines).await;
        assert_eq!((status, selected.as_deref()), (101, expected), "{lines:?}");
    }
}

#[tokio::test]
async fn token_is_not_in_logs_files_environment_or_output() {
    let file = TokenFile::new();
    let builder = Daemon::builder().env("BAA_CODEXD_AUTH_TOKEN_FILE", file.path());
    let mut daemon = builder.env("BAA_CODEXD_LOG", "trace").start().await;
    wait_until_ready(&daemon).await;
    let created = send(&daemon, &format!("POST {SESSIONS}"), &[bearer(TOKEN)], "{}").await;
    let created: Value = serde_json::from_str(&created.body).unwrap();
    let turn =
        serde_json::json!({ "sessionId": created["data"]["session"]["sessionId"], "input": "command" });
    let path = format!("POST {TURN}?wait=30");
    send(&daemon, &path, &[bearer(TOKEN)], &turn.to_string()).await.check(202, None).unwrap();
    send(&daemon, &format!("GET /nothing?token={TOKEN}"), &[bearer(OTHER)], "")
        .await
        .check(401, None)
        .unwrap();
    handshake(&daemon, &[protocols(&format!("codexd.v1, codexd.bearer.{TOKEN}"))]).await;
    #[cfg(target_os = "linux")]
    {
        let processes = daemon.survivors();
        assert!(processes.len() > 1, "the app-server is missing in {processes:?}");
        for (pid, command_line) in processes {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            assert!(!has_token(&environment) && !has_token(command_line.as_bytes()), "{pid}: {command_line}");
            let file = memchr::memmem::find(&environment, file.path().as_os_str().as_bytes());
            let is_codexd = pid == daemon.pid() || command_line.contains("codexd guard ");
            assert!(is_codexd || file.is_none(), "{pid} has the path of the token file: {command_line}");
        }
    }
    assert!(daemon.stop().await.status.success());
    let mut files: Vec<PathBuf> = Vec::new();
    for directory in [daemon.state_dir(), daemon.logs_dir()] {
        files.extend(fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()));
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
