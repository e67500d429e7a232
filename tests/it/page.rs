//! Tests of the live page in Chromium. The scripts in `tests/page` drive the browser, the tests here run the daemon.
//!
//! `.ci/page` installs the tools and sets `CODEXD_PAGE_TOOLS`; without it these tests are skipped, and print that.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use hyper::Method;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::api::start_daemon;
use crate::real::trust;
use crate::support::codex::{CodexHome, versions};
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::http::{Target, get, raw, request};
use crate::support::model::MockModel;
use crate::support::scratch;
use crate::support::skip::skip;

/// The environment variable with the directory of the npm packages.
const TOOLS_VARIABLE: &str = "CODEXD_PAGE_TOOLS";
/// The limit of one script on a machine with two slow cores.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(180);

/// The directory with the tools, or `None` after printing what is skipped.
fn tools(what: &str) -> Option<PathBuf> {
    let tools = std::env::var_os(TOOLS_VARIABLE).map(PathBuf::from);
    if tools.is_none() {
        skip(TOOLS_VARIABLE, what, &format!("{TOOLS_VARIABLE} is not set; .ci/page sets it"));
    }
    tools
}

/// A running script.
struct PageScript {
    script: String,
    process: Child,
}

impl PageScript {
    /// Starts a script with the page of this daemon; `variables` are its environment variables.
    fn start(daemon: &Daemon, tools: &Path, script: &str, variables: &[(&str, &str)]) -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page");
        let process = Command::new("node")
            .arg(directory.join(script))
            .env(TOOLS_VARIABLE, tools)
            .env("CODEXD_URL", daemon.base_url())
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { script: script.to_owned(), process }
    }

    /// Runs the script to its end. When it prints `restart`, `daemon` is killed and the result of `restarted` is started.
    async fn run(mut self, mut daemon: Daemon, restarted: impl Fn(&Daemon) -> DaemonBuilder) {
        let mut lines = BufReader::new(self.process.stdout.take().unwrap()).lines();
        let mut input = self.process.stdin.take().unwrap();
        let output = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line == "restart" {
                    daemon.kill().await;
                    daemon = restarted(&daemon).address_of(&daemon).start().await;
                    input.write_all(b"done\n").await.unwrap();
                } else {
                    let _ = writeln!(std::io::stderr(), "{}: {line}", self.script);
                }
            }
            self.process.wait().await.unwrap()
        };
        let status = tokio::time::timeout(SCRIPT_TIMEOUT, output).await;
        let status = status.unwrap_or_else(|_| panic!("{} took more than {SCRIPT_TIMEOUT:?}", self.script));
        assert!(status.success(), "{} ended with {status}; its output is above", self.script);
    }
}

#[tokio::test]
async fn page_headers_forbid_external_content_and_framing() {
    let daemon = start_daemon().await;
    let head = format!("GET / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", daemon.authority());
    let answer = raw(&daemon, head.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(body.starts_with("<!doctype html>") && body.trim_end().ends_with("</html>"), "{body}");
    let host = daemon.authority();
    let policy = format!("connect-src 'self' ws://{host} wss://{host};");
    for line in [
        "content-type: text/html; charset=utf-8",
        "cache-control: no-cache",
        "vary: accept-encoding",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "content-security-policy: default-src 'none'; script-src 'sha256-",
        "frame-ancestors 'none'",
        "form-action 'none'",
        "base-uri 'none'",
        policy.as_str(),
    ] {
        assert!(head.contains(line), "{line} is not in {head}");
    }
    assert_eq!(get(&daemon, "/describe").await.json["capabilities"]["page"], true);
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    let again =
        format!("GET / HTTP/1.1\r\nhost: {host}\r\nif-none-match: {tag}\r\nconnection: close\r\n\r\n");
    let again = raw(&daemon, again.as_bytes()).await;
    assert!(again.starts_with("HTTP/1.1 304 ") && again.ends_with("\r\n\r\n"), "{again}");
    assert!(again.contains("content-security-policy: "), "{again}");
}

#[tokio::test]
async fn only_page_and_health_probe_need_no_token() {
    let (daemon, _directory) = daemon_with_token().await;
    let ask = async |path: &str| {
        let head =
            format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", daemon.authority());
        raw(&daemon, head.as_bytes()).await
    };
    for open in ["/", "//", "/?token=x", "/healthz"] {
        assert!(ask(open).await.starts_with("HTTP/1.1 200 "), "{open}");
    }
    for closed in ["/describe", "/v1/codexd/status", "/index.html", "/healthz/x", "/%2f", "/./"] {
        assert!(ask(closed).await.starts_with("HTTP/1.1 401 "), "{closed}");
    }
    let posted = request(&daemon, Method::POST, "/", &[], "").await;
    posted.error(404, "not_found");
}

/// A daemon with a token, and the directory of the token file.
async fn daemon_with_token() -> (Daemon, tempfile::TempDir) {
    let directory = scratch::directory("test");
    let path = directory.path().join("token");
    fs::write(&path, TOKEN).unwrap();
    #[cfg(unix)]
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let builder = Daemon::builder().arg("--auth-token-file").arg(&path).arg("--ping-interval").arg("1");
    (builder.start().await, directory)
}

const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[tokio::test]
async fn page_shows_each_character_once_across_a_restart() {
    let Some(tools) = tools("a conversation on the page") else { return };
    let model = MockModel::start();
    let home = CodexHome::builder(&model).approval_policy("on-request").sandbox_mode("read-only").build();
    let daemon = Daemon::builder().real(&home).start().await;
    let workspace = home.workspace();
    let variables = [("CODEXD_WORKSPACE", workspace.to_str().unwrap())];
    let script = PageScript::start(&daemon, &tools, "conversation.mjs", &variables);
    script.run(daemon, |before| Daemon::builder().real(&home).state_from(before)).await;
}

#[tokio::test]
async fn page_opens_threads_of_codex_and_shows_the_account() {
    let Some(tools) = tools("threads on the page") else { return };
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let daemon = Daemon::builder().real(&home).start().await;
    let workspace = home.workspace();
    let variables = [("CODEXD_WORKSPACE", workspace.to_str().unwrap())];
    let script = PageScript::start(&daemon, &tools, "threads.mjs", &variables);
    script.run(daemon, |_| Daemon::builder()).await;
}

#[tokio::test]
async fn page_trusts_a_directory_only_by_the_form() {
    let Some(tools) = tools("trust on the page") else { return };
    for version in versions() {
        let model = MockModel::start();
        let home = CodexHome::new(&model);
        let daemon = Daemon::builder().real_version(&home, version).start().await;
        let project = trust::Project::in_workspace(&home, "malicious");
        let variables = [
            ("CODEXD_WORKSPACE", project.path.to_str().unwrap()),
            ("CODEXD_MARK", project.marker.to_str().unwrap()),
        ];
        let script = PageScript::start(&daemon, &tools, "trust.mjs", &variables);
        script.run(daemon, |_| Daemon::builder()).await;
    }
}

#[tokio::test]
async fn page_stays_responsive_with_ten_thousand_events() {
    let Some(tools) = tools("ten thousand events on the page") else { return };
    let daemon = start_daemon().await;
    let script = PageScript::start(&daemon, &tools, "flood.mjs", &[]);
    script.run(daemon, |before| Daemon::builder().state_from(before)).await;
}

#[tokio::test]
async fn page_renders_messages_commands_and_changes() {
    let Some(tools) = tools("the rendering of a conversation") else { return };
    let daemon = start_daemon().await;
    let directory = scratch::directory("test");
    let variables = [("CODEXD_WORKSPACE", directory.path().to_str().unwrap())];
    let script = PageScript::start(&daemon, &tools, "rendering.mjs", &variables);
    script.run(daemon, |_| Daemon::builder()).await;
}

#[tokio::test]
async fn page_asks_for_the_token_once_and_keeps_it_out_of_urls() {
    let Some(tools) = tools("the token on the page") else { return };
    let (daemon, directory) = daemon_with_token().await;
    let file = directory.path().join("token");
    let variables = [("CODEXD_TOKEN", TOKEN), ("CODEXD_TOKEN_FILE", file.to_str().unwrap())];
    let script = PageScript::start(&daemon, &tools, "token.mjs", &variables);
    script.run(daemon, |_| Daemon::builder()).await;
}

#[tokio::test]
async fn page_is_accessible_by_keyboard_screen_reader_and_phone() {
    let Some(tools) = tools("the accessibility of the page") else { return };
    let daemon = start_daemon().await;
    let directory = scratch::directory("test");
    let shots = std::env::var("CODEXD_PAGE_SHOTS").unwrap_or_default();
    let variables = [("CODEXD_WORKSPACE", directory.path().to_str().unwrap()), ("CODEXD_PAGE_SHOTS", &shots)];
    let script = PageScript::start(&daemon, &tools, "accessibility.mjs", &variables);
    script.run(daemon, |before| Daemon::builder().state_from(before)).await;
}

#[tokio::test]
async fn page_keeps_requests_sessions_and_drafts_in_reach() {
    let Some(tools) = tools("requests, sessions and drafts on the page") else { return };
    let daemon = start_daemon().await;
    let directory = scratch::directory("test");
    let variables = [("CODEXD_WORKSPACE", directory.path().to_str().unwrap())];
    let script = PageScript::start(&daemon, &tools, "waiting.mjs", &variables);
    script.run(daemon, |before| Daemon::builder().state_from(before)).await;
}

#[tokio::test]
async fn page_reports_a_replaced_log_and_reads_everything_again() {
    let Some(tools) = tools("a gap on the page") else { return };
    let daemon = start_daemon().await;
    let script = PageScript::start(&daemon, &tools, "gap.mjs", &[]);
    // New directories: another log at the same address.
    script.run(daemon, |_| Daemon::builder()).await;
}
