//! The live page in a real Chromium: the scripts in `tests/page` are the person, the tests here are the machine.
//!
//! `.ci/page` brings what this needs and names it in `CODEXD_PAGE_TOOLS`; without it the tests say what they leave out.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use hyper::Method;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::api::start;
use crate::real::trust;
use crate::support::codex::{CodexHome, versions};
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::http::{Target, get, raw, request};
use crate::support::model::MockModel;
use crate::support::scratch;
use crate::support::skip::skip;

/// The folder with what npm installed.
const TOOLS: &str = "CODEXD_PAGE_TOOLS";
/// How long one script may take, on a machine with two slow cores.
const PATIENCE: Duration = Duration::from_secs(180);

/// The directory with the tools, or `None` after printing what is skipped.
fn tools(what: &str) -> Option<PathBuf> {
    let tools = std::env::var_os(TOOLS).map(PathBuf::from);
    if tools.is_none() {
        skip(TOOLS, what, &format!("{TOOLS} is not set; .ci/page sets it"));
    }
    tools
}

/// A script that is being played.
struct Person {
    script: String,
    process: Child,
}

impl Person {
    /// Somebody at the page of this daemon; `wishes` are the variables of the script.
    fn at(daemon: &Daemon, tools: &Path, script: &str, wishes: &[(&str, &str)]) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page");
        let process = Command::new("node")
            .arg(folder.join(script))
            .env(TOOLS, tools)
            .env("CODEXD_URL", daemon.base_url())
            .envs(wishes.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { script: script.to_owned(), process }
    }

    /// Plays the script to its end; where it says `restart`, `daemon` ends without a warning and `again` is started.
    async fn play(mut self, mut daemon: Daemon, again: impl Fn(&Daemon) -> DaemonBuilder) {
        let mut lines = BufReader::new(self.process.stdout.take().unwrap()).lines();
        let mut input = self.process.stdin.take().unwrap();
        let playing = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line == "restart" {
                    daemon.kill().await;
                    daemon = again(&daemon).address_of(&daemon).start().await;
                    input.write_all(b"done\n").await.unwrap();
                } else {
                    let _ = writeln!(std::io::stderr(), "{}: {line}", self.script);
                }
            }
            self.process.wait().await.unwrap()
        };
        let status = tokio::time::timeout(PATIENCE, playing).await;
        let status = status.unwrap_or_else(|_| panic!("{} took more than {PATIENCE:?}", self.script));
        assert!(status.success(), "{} ended with {status}; what it said stands above", self.script);
    }
}

#[tokio::test]
async fn the_page_is_html_that_may_load_nothing_and_be_framed_by_nobody() {
    let daemon = start().await;
    let head = format!("GET / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", daemon.authority());
    let answer = raw(&daemon, head.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(body.starts_with("<!doctype html>") && body.trim_end().ends_with("</html>"), "{body}");
    let policy = format!("connect-src 'self' ws://{};", daemon.authority());
    for line in [
        "content-type: text/html; charset=utf-8",
        "cache-control: no-store",
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
}

#[tokio::test]
async fn the_page_and_the_probe_need_no_token_and_all_else_does() {
    let (daemon, _folder) = guarded().await;
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

/// A daemon that wants a token, and the folder that the token is in.
async fn guarded() -> (Daemon, tempfile::TempDir) {
    let folder = scratch::directory("test");
    let path = folder.path().join("token");
    fs::write(&path, TOKEN).unwrap();
    #[cfg(unix)]
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let builder = Daemon::builder().arg("--auth-token-file").arg(&path).arg("--ping-interval").arg("1");
    (builder.start().await, folder)
}

const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[tokio::test]
async fn a_conversation_with_an_approval_goes_on_over_a_restart_without_a_lost_or_doubled_word() {
    let Some(tools) = tools("a conversation on the page") else { return };
    let model = MockModel::start();
    let home = CodexHome::builder(&model).approval_policy("on-request").sandbox_mode("read-only").build();
    let daemon = Daemon::builder().real(&home).start().await;
    let workspace = home.workspace();
    let wishes = [("CODEXD_WORKSPACE", workspace.to_str().unwrap())];
    let person = Person::at(&daemon, &tools, "conversation.mjs", &wishes);
    person.play(daemon, |before| Daemon::builder().real(&home).state_from(before)).await;
}

#[tokio::test]
async fn a_directory_is_trusted_by_the_form_alone() {
    let Some(tools) = tools("trust on the page") else { return };
    for version in versions() {
        let model = MockModel::start();
        let home = CodexHome::new(&model);
        let daemon = Daemon::builder().real_version(&home, version).start().await;
        let project = trust::Project::in_workspace(&home, "malicious");
        let wishes = [
            ("CODEXD_WORKSPACE", project.path.to_str().unwrap()),
            ("CODEXD_MARK", project.marker.to_str().unwrap()),
        ];
        let person = Person::at(&daemon, &tools, "trust.mjs", &wishes);
        person.play(daemon, |_| Daemon::builder()).await;
    }
}

#[tokio::test]
async fn ten_thousand_events_leave_the_page_smooth() {
    let Some(tools) = tools("ten thousand events on the page") else { return };
    let daemon = start().await;
    let person = Person::at(&daemon, &tools, "flood.mjs", &[]);
    person.play(daemon, |before| Daemon::builder().state_from(before)).await;
}

#[tokio::test]
async fn the_token_is_asked_for_once_and_stays_out_of_every_address() {
    let Some(tools) = tools("the token on the page") else { return };
    let (daemon, folder) = guarded().await;
    let file = folder.path().join("token");
    let wishes = [("CODEXD_TOKEN", TOKEN), ("CODEXD_TOKEN_FILE", file.to_str().unwrap())];
    let person = Person::at(&daemon, &tools, "token.mjs", &wishes);
    person.play(daemon, |_| Daemon::builder()).await;
}

#[tokio::test]
async fn the_page_is_for_phones_keyboards_screen_readers_and_the_dark() {
    let Some(tools) = tools("the page for everybody") else { return };
    let daemon = start().await;
    let folder = scratch::directory("test");
    let shots = std::env::var("CODEXD_PAGE_SHOTS").unwrap_or_default();
    let wishes = [("CODEXD_WORKSPACE", folder.path().to_str().unwrap()), ("CODEXD_PAGE_SHOTS", &shots)];
    let person = Person::at(&daemon, &tools, "everybody.mjs", &wishes);
    person.play(daemon, |before| Daemon::builder().state_from(before)).await;
}

#[tokio::test]
async fn a_log_that_was_replaced_is_told_and_everything_is_read_anew() {
    let Some(tools) = tools("a gap on the page") else { return };
    let daemon = start().await;
    let person = Person::at(&daemon, &tools, "gap.mjs", &[]);
    // Fresh folders: another log at the same address.
    person.play(daemon, |_| Daemon::builder()).await;
}
