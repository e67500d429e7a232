//! Secrets that a client sends: tokens, prompts and passwords must not appear in outputs, logs, files and processes
//! where they do not belong.

mod search;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

use self::search::{SearchedTexts, base64, unique_secret};
use super::raw_connection::{HANDSHAKE, RawConnection, head};
use crate::api::{SESSIONS, STATUS, TURN, run_command, wait_for_event};
use crate::support::daemon::{Daemon, codexd};
use crate::support::http::{Target, get, raw};
use crate::support::scratch;
use crate::support::wait::wait_until_async;
use crate::support::websocket::{EVENTS_PATH, EventStream};

/// A token file in a temporary directory.
struct TokenFile {
    path: PathBuf,
    _home: TempDir,
}

impl TokenFile {
    fn new(token: &str) -> Self {
        let directory = scratch::directory("token");
        let file = Self { path: directory.path().join("token"), _home: directory };
        file.write(token);
        file
    }

    /// Replaces the file atomically.
    fn write(&self, token: &str) {
        let new = self.path.with_extension("new");
        fs::write(&new, token).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(&new, &self.path).unwrap();
    }
}

/// A client that records every response.
struct RecordingClient<'a> {
    daemon: &'a Daemon,
    texts: SearchedTexts,
}

impl RecordingClient<'_> {
    /// Sends a request with these header lines and `Connection: close`; returns the status.
    async fn request(&mut self, first: &str, lines: &str, body: &str) -> u16 {
        let length = body.len();
        let lines = format!("{lines}Connection: close\r\nContent-Length: {length}\r\n");
        self.send(&(head(self.daemon, first, &lines) + body)).await
    }

    /// Sends these bytes and reads until the connection closes; returns the status.
    async fn send(&mut self, bytes: &str) -> u16 {
        let response = raw(self.daemon, bytes.as_bytes()).await;
        let status = response.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        self.texts.add(format!("a response with {status}"), response);
        status
    }

    /// Sends a WebSocket handshake with these header lines and closes the connection; returns the status.
    async fn send_handshake(&mut self, lines: &str) -> u16 {
        let mut connection = RawConnection::connect(self.daemon).await;
        connection
            .send(head(self.daemon, &format!("GET {EVENTS_PATH}"), &format!("{HANDSHAKE}{lines}")))
            .await;
        let response = connection.response().await;
        self.texts.add(format!("a handshake with {}", response.status), response.head + &response.body);
        response.status
    }
}

/// Waits until the daemon is ready, which `/healthz` reports without a token.
async fn wait_until_ready(daemon: &Daemon) {
    wait_until_async("the app-server to connect", async || {
        (get(daemon, "/healthz").await.json["service"]["ready"] == true).then_some(())
    })
    .await;
}

/// The directory with all files of a daemon.
fn root(daemon: &Daemon) -> PathBuf {
    daemon.state_dir().ancestors().nth(3).unwrap().to_owned()
}

/// Adds the command lines, and the environments, of the daemon and its processes.
#[cfg(target_os = "linux")]
fn add_processes(texts: &mut SearchedTexts, daemon: &Daemon, environments: bool) {
    let processes = daemon.survivors();
    assert!(processes.iter().any(|(pid, _)| *pid == daemon.pid()), "{processes:?}");
    for (pid, line) in &processes {
        texts.add(format!("the command line of {line}"), fs::read(format!("/proc/{pid}/cmdline")).unwrap());
        if environments {
            texts
                .add(format!("the environment of {line}"), fs::read(format!("/proc/{pid}/environ")).unwrap());
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn add_processes(_: &mut SearchedTexts, _: &Daemon, _: bool) {}

/// Sends wrong tokens in all places of a request; returns each with the name of its place.
async fn try_wrong_tokens(client: &mut RecordingClient<'_>) -> Vec<(&'static str, String)> {
    let names = [
        "bearer",
        "query",
        "cookie",
        "subprotocol",
        "user-info",
        "unknown",
        "basic",
        "malformed",
        "large",
        "first of two",
        "second of two",
        "body",
        "broken body",
        "digest",
        "proxy",
        "fragment",
    ];
    let wrong: Vec<_> = names.map(|name| (name, unique_secret())).into();
    let [bearer, query, cookie, subprotocol, user_info, unknown, basic, malformed, large, first, second, ..] =
        wrong.iter().map(|(_, token)| token.as_str()).collect::<Vec<_>>()[..]
    else {
        unreachable!("the list has enough names")
    };
    let status = format!("GET {STATUS}");
    let authority = client.daemon.authority().to_owned();
    let basic = base64(format!("user:{basic}").as_bytes());
    for (first_line, lines) in [
        (status.clone(), format!("Authorization: Bearer {bearer}\r\n")),
        (format!("{status}?token={query}&access_token={query}"), String::new()),
        (status.clone(), format!("Cookie: token={cookie}; codexd={cookie}\r\n")),
        (status.clone(), format!("X-Auth-Token: {unknown}\r\nX-Api-Key: {unknown}\r\n")),
        (status.clone(), format!("Authorization: Basic {basic}\r\n")),
        (status.clone(), format!("Authorization: Bearer {first}\r\nAuthorization: Bearer {second}\r\n")),
        (status.clone(), format!("Authorization: Digest response=\"{}\"\r\n", wrong[13].1)),
        (status.clone(), format!("Proxy-Authorization: Bearer {}\r\n", wrong[14].1)),
    ] {
        assert_eq!(client.request(&first_line, &lines, "").await, 401, "{first_line} {lines}");
    }
    let handshake = format!("Sec-WebSocket-Protocol: codexd.v1, codexd.bearer.{subprotocol}\r\n");
    assert_eq!(client.send_handshake(&handshake).await, 401);
    // Other tests check the statuses of these.
    client.request(&format!("GET http://user:{user_info}@{authority}{STATUS}"), "", "").await;
    client.request(&format!("{status}#{}", wrong[15].1), "", "").await;
    assert_eq!(client.request(&status, &format!("Authorization : Bearer {malformed}\r\n"), "").await, 400);
    let much = format!("Authorization: Bearer {large}{}\r\n", "x".repeat(20 * 1024));
    assert_eq!(client.request(&status, &much, "").await, 431);
    wrong
}

#[tokio::test]
async fn tokens_and_prompts_do_not_leak_into_output_logs_or_processes() {
    let token = unique_secret();
    let (prompt, reply, refused_prompt) = (unique_secret(), unique_secret(), unique_secret());
    let file = TokenFile::new(&format!("{token}\n"));
    let mut daemon = Daemon::builder()
        .arg("--auth-token-file")
        .arg(&file.path)
        .env("BAA_CODEXD_LOG", "trace")
        .start()
        .await;
    wait_until_ready(&daemon).await;
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let mut client = RecordingClient { daemon: &daemon, texts: SearchedTexts::default() };

    let header = ("authorization", format!("Bearer {token}"));
    let mut stream = EventStream::connect_to(&daemon, EVENTS_PATH, &[(header.0, header.1.as_str())]).await;
    let hello = stream.hello().await;
    client.texts.add("the hello message", hello.to_string());
    let subprotocol = format!("Sec-WebSocket-Protocol: codexd.v1, codexd.bearer.{token}\r\n");
    assert_eq!(client.send_handshake(&subprotocol).await, 101);
    for path in ["/describe", "/openapi.json", STATUS, "/v1/codexd/events?limit=1000", "/nowhere"] {
        let status = client.request(&format!("GET {path}"), &bearer, "").await;
        assert_eq!(status, if path == "/nowhere" { 404 } else { 200 }, "{path}");
    }
    // The valid token in a wrong place is a secret too.
    let status = format!("GET {STATUS}");
    let basic = base64(format!("codexd:{token}").as_bytes());
    for lines in [format!("Cookie: token={token}\r\n"), format!("Authorization: Basic {basic}\r\n")] {
        assert_eq!(client.request(&format!("{status}?token={token}"), &lines, "").await, 401);
    }
    let mut wrong = try_wrong_tokens(&mut client).await;

    let body = json!({ "token": wrong[11].1 }).to_string();
    assert_eq!(client.request(&format!("POST {SESSIONS}"), &bearer, &body).await, 201);
    let broken = format!("{{\"token\": {}", wrong[12].1);
    assert_eq!(client.request(&format!("POST {SESSIONS}"), &bearer, &broken).await, 400);
    let session_id = &wait_for_event(&daemon, "the session", |event| event["type"] == "session.created")
        .await["detail"]["sessionId"];
    let input = format!("please say {prompt} text={reply}");
    let body = json!({ "sessionId": session_id, "input": input }).to_string();
    assert_eq!(client.request(&format!("POST {TURN}"), &bearer, &body).await, 202);
    let ends = |event: &Value| event["type"] == "app-server.turn.completed";
    let events = stream.collect_until("the end of the turn", ends).await;
    client.texts.add("the events", json!(events).to_string());
    let pong = stream.ask(&json!({ "type": "ping", "token": token, "prompt": prompt })).await;
    client.texts.add("a reply on the WebSocket", pong.to_string());
    // A refused prompt is a secret too.
    let body = json!({ "sessionId": "session-none", "input": refused_prompt }).to_string();
    assert_eq!(client.request(&format!("POST {TURN}"), &bearer, &body).await, 404);
    stream.send(Message::text(format!("no JSON {refused_prompt}"))).await;
    stream.close_code().await;

    // The log reports a file that becomes unusable, without its content.
    let unusable = unique_secret();
    file.write(&format!("{unusable} {unusable}\n"));
    wait_until_async("the file to be read again", async || {
        (get_status(&daemon, &bearer).await == 401).then_some(())
    })
    .await;
    wrong.push(("unusable", unusable));

    add_processes(&mut client.texts, &daemon, true);
    #[cfg(target_os = "linux")]
    for kind in [" start ", " guard ", "fake_codex app-server "] {
        let kinds =
            client.texts.names().filter(|name| name.starts_with("the environment") && name.contains(kind));
        assert_eq!(kinds.count(), 1, "the process of {kind:?}");
    }
    let RecordingClient { mut texts, .. } = client;
    daemon.stop().await;
    texts.add("stdout", daemon.stdout());
    texts.add_files(&root(&daemon));

    wrong.push(("valid", token));
    for (name, token) in &wrong {
        assert_eq!(texts.hits(token, |_| true), Vec::<String>::new(), "the token {name}");
    }
    // Prompts and replies belong into records and events, and not into the daemon's own log or its processes.
    let is_forbidden_place = |place: &str| {
        let is_output = place == "stdout" || place.contains("/stderr-") || place.starts_with("the command");
        is_output || place.starts_with("the environment")
    };
    for (name, text) in [("prompt", &prompt), ("reply", &reply), ("refused prompt", &refused_prompt)] {
        assert_eq!(texts.hits(text, is_forbidden_place), Vec::<String>::new(), "the {name}");
    }
    let logs = |place: &str| place.contains("events.jsonl");
    assert_eq!(texts.hits(&reply, logs).len(), 1, "the search does not find the reply in the event log");
    assert!(texts.names().any(|place| place.contains("/stderr-")), "stderr was not searched");
}

/// The status of `GET /v1/codexd/status` with these header lines.
async fn get_status(daemon: &Daemon, lines: &str) -> u16 {
    let mut connection = RawConnection::connect(daemon).await;
    connection.send(head(daemon, &format!("GET {STATUS}"), lines)).await;
    connection.response().await.status
}

#[tokio::test]
async fn token_refused_at_start_is_not_printed() {
    let token = unique_secret();
    let short = token.get(..20).unwrap();
    for (text, mode) in [(format!("{token}!"), 0o600), (token.clone(), 0o644), (short.to_owned(), 0o600)] {
        let file = TokenFile::new(&text);
        fs::set_permissions(&file.path, fs::Permissions::from_mode(mode)).unwrap();
        let refusal = Daemon::builder()
            .arg("--auth-token-file")
            .arg(&file.path)
            .env("BAA_CODEXD_LOG", "trace")
            .start_refused()
            .await;
        assert_eq!(refusal.status.code(), Some(2), "{}", refusal.stderr);
        let mut texts = SearchedTexts::default();
        texts.add("stdout", refusal.stdout);
        texts.add("stderr", refusal.stderr);
        assert_eq!(texts.hits(short, |_| true), Vec::<String>::new());
    }
}

#[tokio::test]
async fn created_token_is_not_printed() {
    let directory = scratch::directory("token");
    let path = directory.path().join("token");
    let mut texts = SearchedTexts::default();
    let mut tokens = Vec::new();
    for arguments in [&["token"][..], &["token", "--replace", "--json"], &["token"]] {
        let mut command = codexd(directory.path());
        command.args(arguments).arg("--auth-token-file").arg(&path).env("BAA_CODEXD_LOG", "trace");
        let ended = run_command(command).await;
        texts.add("stdout", ended.stdout);
        texts.add("stderr", ended.stderr);
        tokens.push(fs::read_to_string(&path).unwrap().trim().to_owned());
    }
    assert_ne!(tokens[0], tokens[1]);
    assert_eq!(tokens[1], tokens[2], "the token was replaced without --replace");
    for token in tokens {
        assert_eq!(texts.hits(&token, |_| true), Vec::<String>::new());
    }
}

/// Answers every connection with 401.
async fn answer_unauthorized(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let _ = stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await;
    }
}

#[tokio::test]
async fn endpoint_password_is_not_printed_or_stored() {
    let (password, query) = (unique_secret(), unique_secret());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(answer_unauthorized(listener));
    let endpoint = format!("ws://user:{password}@{address}/path?token={query}");
    // The endpoint is in the environment, because other users can read command lines.
    let mut daemon = Daemon::builder()
        .env("BAA_CODEXD_SERVER_STRATEGY", "external")
        .env("BAA_CODEXD_SERVER_ENDPOINT", &endpoint)
        .env("BAA_CODEXD_LOG", "trace")
        .start()
        .await;
    let mut client = RecordingClient { daemon: &daemon, texts: SearchedTexts::default() };
    let mut stream = EventStream::connect(&daemon).await;
    let hello = stream.hello().await;
    client.texts.add("the hello message", hello.to_string());
    let failed = |event: &Value| event["type"] == "app-server.connect.failed";
    wait_for_event(&daemon, "a failed connection", failed).await;
    // From now on the server does not listen, which is another failure.
    server.abort();
    let events = stream.collect_until("a connection without a server", |event| {
        failed(event) && event["message"].as_str().unwrap().contains("does not answer")
    });
    client.texts.add("the events", json!(events.await).to_string());
    for path in ["/healthz", "/describe", "/openapi.json", STATUS, "/v1/codexd/models"] {
        client.request(&format!("GET {path}"), "", "").await;
    }
    client.request(&format!("POST {SESSIONS}"), "", "{}").await;
    add_processes(&mut client.texts, &daemon, false);
    let RecordingClient { mut texts, .. } = client;
    daemon.stop().await;
    texts.add("stdout", daemon.stdout());
    texts.add_files(&root(&daemon));
    let mut command = codexd(Path::new("/"));
    command.arg("config").env("BAA_CODEXD_SERVER_ENDPOINT", &endpoint);
    let config = run_command(command).await;
    texts.add("codexd config", config.stdout + &config.stderr);
    for secret in [password, query] {
        assert_eq!(texts.hits(&secret, |_| true), Vec::<String>::new());
    }
}
