//! Secrets are sent everywhere a client might put one, and then looked for everywhere the daemon might leave one.

mod search;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

use self::search::{Places, base64, canary};
use super::raw_connection::{HANDSHAKE, Wire, head};
use crate::api::{SESSIONS, STATUS, TURN, logged, run};
use crate::support::daemon::{Daemon, codexd};
use crate::support::http::{Target, get, raw};
use crate::support::scratch;
use crate::support::wait::wait_until_async;
use crate::support::websocket::{EVENTS_PATH, EventStream};

/// A token file, and the folder that it goes with.
struct TokenFile {
    path: PathBuf,
    _home: TempDir,
}

impl TokenFile {
    fn new(token: &str) -> Self {
        let home = scratch::directory("token");
        let file = Self { path: home.path().join("token"), _home: home };
        file.write(token);
        file
    }

    /// Puts another token into the place of the one that is there.
    fn write(&self, token: &str) {
        let new = self.path.with_extension("new");
        fs::write(&new, token).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(&new, &self.path).unwrap();
    }
}

/// A client that keeps all that it is told.
struct Asker<'a> {
    daemon: &'a Daemon,
    places: Places,
}

impl Asker<'_> {
    /// Sends a request with these lines, after which the connection closes; the status of the answer.
    async fn ask(&mut self, first: &str, lines: &str, body: &str) -> u16 {
        let length = body.len();
        let lines = format!("{lines}Connection: close\r\nContent-Length: {length}\r\n");
        self.say(&(head(self.daemon, first, &lines) + body)).await
    }

    /// Sends these bytes and reads until the connection closes; the status of the answer.
    async fn say(&mut self, bytes: &str) -> u16 {
        let answer = raw(self.daemon, bytes.as_bytes()).await;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        self.places.add(format!("an answer with {status}"), answer);
        status
    }

    /// Asks for a WebSocket with these lines and leaves; the status of the answer.
    async fn shake_hands(&mut self, lines: &str) -> u16 {
        let mut wire = Wire::connect(self.daemon).await;
        wire.send(head(self.daemon, &format!("GET {EVENTS_PATH}"), &format!("{HANDSHAKE}{lines}"))).await;
        let answer = wire.answer().await;
        self.places.add(format!("a handshake with {}", answer.status), answer.head + &answer.body);
        answer.status
    }
}

/// Waits until turns can be taken, which everybody may ask.
async fn ready(daemon: &Daemon) {
    wait_until_async("the app-server to come", async || {
        (get(daemon, "/healthz").await.json["service"]["ready"] == true).then_some(())
    })
    .await;
}

/// The folder with everything of a daemon in it.
fn root(daemon: &Daemon) -> PathBuf {
    daemon.state_dir().ancestors().nth(3).unwrap().to_owned()
}

/// All that a daemon and its processes show to others of the same user.
#[cfg(target_os = "linux")]
fn add_processes(places: &mut Places, daemon: &Daemon, environments: bool) {
    let processes = daemon.survivors();
    assert!(processes.iter().any(|(pid, _)| *pid == daemon.pid()), "{processes:?}");
    for (pid, line) in &processes {
        places.add(format!("the command line of {line}"), fs::read(format!("/proc/{pid}/cmdline")).unwrap());
        if environments {
            places
                .add(format!("the environment of {line}"), fs::read(format!("/proc/{pid}/environ")).unwrap());
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn add_processes(_: &mut Places, _: &Daemon, _: bool) {}

/// The tokens that somebody tries who has none, and where each of them is put.
async fn try_wrong_tokens(asker: &mut Asker<'_>) -> Vec<(&'static str, String)> {
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
    let wrong: Vec<_> = names.map(|name| (name, canary())).into();
    let [bearer, query, cookie, subprotocol, user_info, unknown, basic, malformed, large, first, second, ..] =
        wrong.iter().map(|(_, token)| token.as_str()).collect::<Vec<_>>()[..]
    else {
        unreachable!("there are that many")
    };
    let status = format!("GET {STATUS}");
    let authority = asker.daemon.authority().to_owned();
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
        assert_eq!(asker.ask(&first_line, &lines, "").await, 401, "{first_line} {lines}");
    }
    let handshake = format!("Sec-WebSocket-Protocol: codexd.v1, codexd.bearer.{subprotocol}\r\n");
    assert_eq!(asker.shake_hands(&handshake).await, 401);
    // What becomes of these is the business of others.
    asker.ask(&format!("GET http://user:{user_info}@{authority}{STATUS}"), "", "").await;
    asker.ask(&format!("{status}#{}", wrong[15].1), "", "").await;
    assert_eq!(asker.ask(&status, &format!("Authorization : Bearer {malformed}\r\n"), "").await, 400);
    let much = format!("Authorization: Bearer {large}{}\r\n", "x".repeat(20 * 1024));
    assert_eq!(asker.ask(&status, &much, "").await, 431);
    wrong
}

#[tokio::test]
async fn no_token_and_no_prompt_is_where_it_does_not_belong() {
    let token = canary();
    let (prompt, answer, late) = (canary(), canary(), canary());
    let file = TokenFile::new(&format!("{token}\n"));
    let mut daemon = Daemon::builder()
        .arg("--auth-token-file")
        .arg(&file.path)
        .env("BAA_CODEXD_LOG", "trace")
        .start()
        .await;
    ready(&daemon).await;
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let mut asker = Asker { daemon: &daemon, places: Places::default() };

    let right = ("authorization", format!("Bearer {token}"));
    let mut stream = EventStream::connect_to(&daemon, EVENTS_PATH, &[(right.0, right.1.as_str())]).await;
    let hello = stream.hello().await;
    asker.places.add("the greeting", hello.to_string());
    let subprotocol = format!("Sec-WebSocket-Protocol: codexd.v1, codexd.bearer.{token}\r\n");
    assert_eq!(asker.shake_hands(&subprotocol).await, 101);
    for path in ["/describe", "/openapi.json", STATUS, "/v1/codexd/events?limit=1000", "/nowhere"] {
        let status = asker.ask(&format!("GET {path}"), &bearer, "").await;
        assert_eq!(status, if path == "/nowhere" { 404 } else { 200 }, "{path}");
    }
    // The right one in a wrong place is a secret all the same.
    let status = format!("GET {STATUS}");
    let basic = base64(format!("codexd:{token}").as_bytes());
    for lines in [format!("Cookie: token={token}\r\n"), format!("Authorization: Basic {basic}\r\n")] {
        assert_eq!(asker.ask(&format!("{status}?token={token}"), &lines, "").await, 401);
    }
    let mut wrong = try_wrong_tokens(&mut asker).await;

    let body = json!({ "token": wrong[11].1 }).to_string();
    assert_eq!(asker.ask(&format!("POST {SESSIONS}"), &bearer, &body).await, 201);
    let broken = format!("{{\"token\": {}", wrong[12].1);
    assert_eq!(asker.ask(&format!("POST {SESSIONS}"), &bearer, &broken).await, 400);
    let session_id = &logged(&daemon, "the session", |event| event["type"] == "session.created").await["detail"]
        ["sessionId"];
    let input = format!("please say {prompt} text={answer}");
    let body = json!({ "sessionId": session_id, "input": input }).to_string();
    assert_eq!(asker.ask(&format!("POST {TURN}"), &bearer, &body).await, 202);
    let ends = |event: &Value| event["type"] == "app-server.turn.completed";
    let events = stream.collect_until("the end of the turn", ends).await;
    asker.places.add("the events", json!(events).to_string());
    let pong = stream.ask(&json!({ "type": "ping", "token": token, "prompt": prompt })).await;
    asker.places.add("a word of the WebSocket", pong.to_string());
    // A prompt that is refused is one too.
    let body = json!({ "sessionId": "session-none", "input": late }).to_string();
    assert_eq!(asker.ask(&format!("POST {TURN}"), &bearer, &body).await, 404);
    stream.send(Message::text(format!("no JSON {late}"))).await;
    stream.close_code().await;

    // A file that cannot be used any more is complained about without saying what is in it.
    let unusable = canary();
    file.write(&format!("{unusable} {unusable}\n"));
    wait_until_async("the file to be read again", async || {
        (get_status(&daemon, &bearer).await == 401).then_some(())
    })
    .await;
    wrong.push(("unusable", unusable));

    add_processes(&mut asker.places, &daemon, true);
    #[cfg(target_os = "linux")]
    for kind in [" start ", " guard ", "fake_codex app-server "] {
        let kinds =
            asker.places.names().filter(|name| name.starts_with("the environment") && name.contains(kind));
        assert_eq!(kinds.count(), 1, "the process of {kind:?}");
    }
    let Asker { mut places, .. } = asker;
    daemon.stop().await;
    places.add("stdout", daemon.stdout());
    places.add_files(&root(&daemon));

    wrong.push(("the right one", token));
    for (name, token) in &wrong {
        assert_eq!(places.hits(token, |_| true), Vec::<String>::new(), "the token {name}");
    }
    // Prompts and answers belong into the records, and into nothing that is meant for the log of a system.
    let elsewhere = |place: &str| {
        let of_the_daemon =
            place == "stdout" || place.contains("/stderr-") || place.starts_with("the command");
        of_the_daemon || place.starts_with("the environment")
    };
    for (name, text) in [("prompt", &prompt), ("answer", &answer), ("refused prompt", &late)] {
        assert_eq!(places.hits(text, elsewhere), Vec::<String>::new(), "the {name}");
    }
    let logs = |place: &str| place.contains("events.jsonl");
    assert_eq!(places.hits(&answer, logs).len(), 1, "what is there is not found");
    assert!(places.names().any(|place| place.contains("/stderr-")), "stderr was looked at");
}

/// The status of an answer to somebody with these lines.
async fn get_status(daemon: &Daemon, lines: &str) -> u16 {
    let mut wire = Wire::connect(daemon).await;
    wire.send(head(daemon, &format!("GET {STATUS}"), lines)).await;
    wire.answer().await.status
}

#[tokio::test]
async fn a_token_that_is_refused_at_the_start_is_not_shown() {
    let token = canary();
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
        let mut places = Places::default();
        places.add("stdout", refusal.stdout);
        places.add("stderr", refusal.stderr);
        assert_eq!(places.hits(short, |_| true), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_token_that_is_made_is_shown_to_nobody() {
    let home = scratch::directory("token");
    let path = home.path().join("token");
    let mut places = Places::default();
    let mut tokens = Vec::new();
    for arguments in [&["token"][..], &["token", "--replace", "--json"], &["token"]] {
        let mut command = codexd(home.path());
        command.args(arguments).arg("--auth-token-file").arg(&path).env("BAA_CODEXD_LOG", "trace");
        let ended = run(command).await;
        places.add("stdout", ended.stdout);
        places.add("stderr", ended.stderr);
        tokens.push(fs::read_to_string(&path).unwrap().trim().to_owned());
    }
    assert_ne!(tokens[0], tokens[1]);
    assert_eq!(tokens[1], tokens[2], "it is not replaced unasked");
    for token in tokens {
        assert_eq!(places.hits(&token, |_| true), Vec::<String>::new());
    }
}

/// Refuses everybody who connects.
async fn refuse(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let _ = stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await;
    }
}

#[tokio::test]
async fn the_password_of_an_endpoint_is_shown_to_nobody() {
    let (password, query) = (canary(), canary());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(refuse(listener));
    let endpoint = format!("ws://user:{password}@{address}/path?token={query}");
    // On the command line everybody could read it.
    let mut daemon = Daemon::builder()
        .env("BAA_CODEXD_SERVER_STRATEGY", "external")
        .env("BAA_CODEXD_SERVER_ENDPOINT", &endpoint)
        .env("BAA_CODEXD_LOG", "trace")
        .start()
        .await;
    let mut asker = Asker { daemon: &daemon, places: Places::default() };
    let mut stream = EventStream::connect(&daemon).await;
    let hello = stream.hello().await;
    asker.places.add("the greeting", hello.to_string());
    let failed = |event: &Value| event["type"] == "app-server.connect.failed";
    logged(&daemon, "a refusal", failed).await;
    // From now on nobody is there at all, which is another failure.
    server.abort();
    let seen = stream.collect_until("nobody to be there", |event| {
        failed(event) && event["message"].as_str().unwrap().contains("does not answer")
    });
    asker.places.add("the events", json!(seen.await).to_string());
    for path in ["/healthz", "/describe", "/openapi.json", STATUS, "/v1/codexd/models"] {
        asker.ask(&format!("GET {path}"), "", "").await;
    }
    asker.ask(&format!("POST {SESSIONS}"), "", "{}").await;
    add_processes(&mut asker.places, &daemon, false);
    let Asker { mut places, .. } = asker;
    daemon.stop().await;
    places.add("stdout", daemon.stdout());
    places.add_files(&root(&daemon));
    let mut command = codexd(Path::new("/"));
    command.arg("config").env("BAA_CODEXD_SERVER_ENDPOINT", &endpoint);
    let shown = run(command).await;
    places.add("codexd config", shown.stdout + &shown.stderr);
    for secret in [password, query] {
        assert_eq!(places.hits(&secret, |_| true), Vec::<String>::new());
    }
}
