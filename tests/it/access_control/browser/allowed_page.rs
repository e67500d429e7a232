//! Pages of allowed origins in a real browser, and addresses that the user types.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use serde_json::{Value, json};

use super::chromium::{self, Chromium};
use super::pages::{FOREIGN_HOST, Page, Pages};
use super::target_daemon::TargetDaemon;
use crate::support::daemon::Daemon;
use crate::support::http::Target;
use crate::support::scratch;

/// The host name of the pages with an allowed origin.
const ALLOWED_HOST: &str = "allowed.test";

const TOKEN: &str = "0123456789abcdefghijklmnopqrstuvwxyz.-_~+";

/// The results of the four requests that a page makes.
struct PageResults {
    get: Value,
    post: Value,
    websocket: Value,
    event_source: Value,
}

#[tokio::test]
async fn browser_page_of_allowed_origin_is_served_and_others_are_not() {
    let Some(program) = chromium::find_or_skip("a page of an allowed origin") else { return };
    let pages = Pages::start().await;
    let origin = pages.origin(ALLOWED_HOST);
    let daemon = Daemon::builder().arg("--allowed-origin").arg(&origin).start().await;
    let foreign = format!("{}/foreign", pages.origin(FOREIGN_HOST));
    add(&pages, "allowed", &daemon, None, Some(&foreign));
    add(&pages, "foreign", &daemon, None, None);
    let _browser = Chromium::open(&program, &format!("{origin}/allowed"), &names());

    let results = PageResults::of(&pages, "allowed").await;
    let session = results.assert_served("");
    assert_eq!(results.event_source["opened"], true, "{}", results.event_source);

    // The same script from the same server, under another host name.
    let results = PageResults::of(&pages, "foreign").await;
    for result in [&results.get, &results.post, &results.websocket, &results.event_source] {
        assert!(result["error"].is_string() && result.get("body").is_none(), "{result}");
    }
    assert_eq!(created(&daemon), [session]);
}

#[tokio::test]
async fn browser_page_of_allowed_origin_needs_the_token() {
    let Some(program) = chromium::find_or_skip("a page of an allowed origin with a token") else { return };
    let pages = Pages::start().await;
    let origin = pages.origin(ALLOWED_HOST);
    let home = scratch::directory("test");
    let token_file = home.path().join("auth-token");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&token_file).unwrap();
    writeln!(file, "{TOKEN}").unwrap();
    let builder = Daemon::builder().arg("--allowed-origin").arg(&origin);
    let daemon = builder.arg("--auth-token-file").arg(&token_file).start().await;
    let url = |page| format!("{origin}/{page}");
    add(&pages, "right", &daemon, Some(TOKEN), Some(&url("none")));
    add(&pages, "none", &daemon, None, Some(&url("wrong")));
    add(&pages, "wrong", &daemon, Some("0123456789abcdefghijklmnopqrstuvwxyz"), None);
    let _browser = Chromium::open(&program, &url("right"), &names());

    let session = PageResults::of(&pages, "right").await.assert_served("codexd.v1");

    // The page may read the 401 responses, and nothing else.
    for page in ["none", "wrong"] {
        let results = PageResults::of(&pages, page).await;
        for result in [&results.get, &results.post] {
            let (status, error) = (&result["status"], &result["body"]["error"]);
            assert_eq!((status, error), (&json!(401), &json!("unauthorized")), "{result}");
        }
        for result in [&results.websocket, &results.event_source] {
            assert_eq!(result["error"], "closed", "{result}");
        }
    }
    assert_eq!(created(&daemon), [session]);
}

#[tokio::test]
async fn address_typed_into_the_browser_is_answered() {
    let Some(program) = chromium::find_or_skip("a typed address") else { return };
    let (target, _) = TargetDaemon::start().await;
    let port = target.address().port();
    for host in ["127.0.0.1", "localhost"] {
        let path = format!("/v1/codexd/sessions/typed-{host}");
        let _browser = Chromium::open(&program, &format!("http://{host}:{port}{path}"), &names());
        target.wait_for_response("404", "GET", &path, 1).await;
    }
}

impl PageResults {
    async fn of(pages: &Pages, page: &str) -> Self {
        Self {
            get: pages.report(page, "get").await,
            post: pages.report(page, "post").await,
            websocket: pages.report(page, "websocket").await,
            event_source: pages.report(page, "event-source").await,
        }
    }

    /// Asserts that the page could read the status, create a session, and open a WebSocket with this subprotocol;
    /// returns the session.
    fn assert_served(&self, protocol: &str) -> Value {
        assert_eq!(self.get["status"], 200, "{}", self.get);
        assert!(self.get["body"]["data"]["snapshot"].is_object(), "{}", self.get);
        assert_eq!(self.post["status"], 201, "{}", self.post);
        assert_eq!(self.websocket["body"]["type"], "hello", "{}", self.websocket);
        assert_eq!(self.websocket["protocol"], protocol, "{}", self.websocket);
        self.post["body"]["data"]["session"]["sessionId"].clone()
    }
}

fn add(pages: &Pages, name: &str, daemon: &Daemon, token: Option<&str>, next: Option<&str>) {
    let config = json!({ "target": daemon.base_url(), "token": token });
    pages.add(name, Page { script: include_str!("allowed_page.js"), config, is_sandboxed: false }, next);
}

fn names() -> Vec<(String, String)> {
    [ALLOWED_HOST, FOREIGN_HOST, "localhost"].map(|name| (name.to_owned(), "127.0.0.1".to_owned())).into()
}

/// The IDs of the sessions that were created, from the log.
fn created(daemon: &Daemon) -> Vec<Value> {
    let events = daemon.events_on_disk().into_iter();
    events
        .filter(|event| event["type"] == "session.created")
        .map(|event| event["detail"]["sessionId"].clone())
        .collect()
}
