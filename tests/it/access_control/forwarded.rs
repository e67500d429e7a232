//! Proxies and further clients: `--allowed-host`, and the token that only reads.

use serde_json::{Value, json};

use super::raw_http::HttpResponse;
use super::routes::{PathParameters, routes};
use super::tokens::{OTHER, TOKEN, TokenFile, bearer, is_authorized, send, wait_until_ready, write_private};
use crate::api::{SESSIONS, STATUS, run_command, wait_for_event_type};
use crate::support::daemon::{Daemon, codexd};
use crate::support::http::Target;
use crate::support::scratch;
use crate::support::websocket::{EVENTS_PATH, EventStream};

const NAME: &str = "codexd.example";

/// Sends a GET with this Host and these header lines.
async fn get_as(daemon: &Daemon, path: &str, host: &str, lines: &[&str]) -> HttpResponse {
    let host = format!("Host: {host}");
    let lines = [&[host.as_str()], lines].concat();
    let bytes = super::raw_http::request(&format!("GET {path}"), &lines, "");
    super::raw_http::first_response(daemon.authority(), &bytes).await.unwrap()
}

#[tokio::test]
async fn allowed_host_is_answered_with_the_token_and_learns_its_own_addresses() {
    let file = TokenFile::new();
    let daemon = file.of(Daemon::builder()).arg("--allowed-host").arg(NAME).start().await;
    wait_until_ready(&daemon).await;
    let token = bearer(TOKEN);
    for host in [NAME, "CODEXD.example:8443"] {
        get_as(&daemon, STATUS, host, &[&token]).await.check(200, None).unwrap();
        get_as(&daemon, STATUS, host, &[]).await.check_error(401, "unauthorized").unwrap();
    }
    let foreign = get_as(&daemon, STATUS, "evil.example", &[&token]).await;
    foreign.check_error(403, "forbidden").unwrap();
    for (origin, status) in
        [("https://codexd.example", 200), ("http://codexd.example", 200), ("https://a", 403)]
    {
        let origin = format!("Origin: {origin}");
        assert_eq!(get_as(&daemon, STATUS, NAME, &[&token, &origin]).await.status, status, "{origin}");
    }

    let addresses = async |host: &str, proto: &str| {
        let lines = [token.as_str(), &format!("X-Forwarded-Proto: {proto}")];
        let read =
            async |path| serde_json::from_str::<Value>(&get_as(&daemon, path, host, &lines).await.body);
        let describe = read("/describe").await.unwrap();
        let status = read(STATUS).await.unwrap();
        let health = read("/healthz").await.unwrap();
        assert_eq!(status["data"]["service"]["eventStreamUrl"], describe["event_stream"]["url"]);
        assert_eq!(health["service"]["eventStreamUrl"], describe["event_stream"]["url"]);
        json!([describe["base_url"], describe["event_stream"]["url"]])
    };
    let over_tls = json!(["https://codexd.example", "wss://codexd.example/v1/codexd/events"]);
    assert_eq!(addresses(NAME, "https").await, over_tls);
    let plain = json!(["http://codexd.example:81", "ws://codexd.example:81/v1/codexd/events"]);
    assert_eq!(addresses("codexd.example:81", "http").await, plain);
    // Anybody could send the header to codexd's own address.
    let own = json!([daemon.base_url(), format!("ws://{}/v1/codexd/events", daemon.authority())]);
    assert_eq!(addresses(daemon.authority(), "https").await, own);
}

#[tokio::test]
async fn settings_that_let_clients_in_are_refused_without_a_token() {
    let directory = scratch::directory("test");
    for setting in ["--allowed-host=codexd.example", "--allow-uid=0", "--read-token-file=/nowhere"] {
        let mut command = codexd(directory.path());
        command.args(["start", "--local-api-base=http://127.0.0.1:0", setting]).arg("--repo-root");
        command.arg(directory.path());
        let refused = run_command(command).await;
        assert_eq!(refused.code, Some(2), "{setting}: {}", refused.stderr);
        let (name, _) = setting.split_once('=').unwrap();
        assert!(refused.stderr.contains(&format!("{name}: works together with --auth-token-file only")));
    }
}

#[tokio::test]
async fn token_that_only_reads_must_be_another_one() {
    let (file, directory) = (TokenFile::new(), scratch::directory("read-token"));
    let path = directory.path().join("read-token");
    write_private(&path, TOKEN);
    let refused = file.of(Daemon::builder()).arg("--read-token-file").arg(&path).start_refused().await;
    assert!(refused.stderr.contains("--read-token-file has the token of"), "{}", refused.stderr);
}

#[tokio::test]
async fn token_that_only_reads_changes_nothing() {
    let (file, directory) = (TokenFile::new(), scratch::directory("read-token"));
    let path = directory.path().join("read-token");
    write_private(&path, OTHER);
    let daemon = file.of(Daemon::builder()).arg("--read-token-file").arg(&path).start().await;
    wait_until_ready(&daemon).await;
    assert!(is_authorized(&daemon, TOKEN).await && is_authorized(&daemon, OTHER).await);
    let reader = bearer(OTHER);
    let unknown = |kind: &str| format!("{kind}-unknown");
    let parameters = PathParameters {
        session: unknown("session"),
        turn: unknown("turn"),
        request: unknown("request"),
        queue: unknown("queued"),
    };
    // It comes after the daemon is ready.
    wait_for_event_type(&daemon, "app-server.notification").await;
    let before = daemon.events_on_disk();
    for route in routes(&daemon, &[&reader]).await {
        let line = format!("{} {}", route.method, parameters.fill(&route.path));
        let response = send(&daemon, &line, &[&reader], "").await;
        let is_personal = ["/v1/codexd/account", "/v1/codexd/threads"].contains(&route.path.as_str());
        if route.method == "GET" && !is_personal {
            assert!(![401, 403].contains(&response.status), "{line}: {}", response.body);
        } else {
            response.check_error(403, "forbidden").unwrap_or_else(|why| panic!("{line}: {why}"));
            assert!(response.body.contains("only reads"), "{line}: {}", response.body);
        }
    }
    send(&daemon, &format!("PUT {SESSIONS}"), &[&reader], "").await.check_error(403, "forbidden").unwrap();
    assert_eq!(daemon.events_on_disk(), before);

    let offered = format!("codexd.v1, codexd.bearer.{OTHER}");
    let protocol = [("sec-websocket-protocol", offered.as_str())];
    let mut stream = EventStream::connect_to(&daemon, EVENTS_PATH, &protocol).await;
    stream.hello().await;
    let reply = stream.ask(&json!({ "type": "respond", "requestId": "r", "decision": "accept" })).await;
    assert_eq!((&reply["error"], &reply["requestId"]), (&json!("forbidden"), &json!("r")));

    // The token is replaced: what it opened is closed, and the other one is unaffected.
    write_private(&path, format!("{OTHER}x"));
    assert!(!is_authorized(&daemon, OTHER).await && is_authorized(&daemon, TOKEN).await);
}
