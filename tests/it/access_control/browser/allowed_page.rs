//! What a page may do whose origin is listed, and what the user may do who types an address.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use serde_json::{Value, json};

use super::chromium::{self, Chromium};
use super::pages::{ELSEWHERE, Page, Pages};
use super::target_daemon::Guarded;
use crate::support::daemon::Daemon;
use crate::support::http::Target;
use crate::support::scratch;

/// The name of the pages that may talk to the daemon.
const FRIEND: &str = "friend.test";

const TOKEN: &str = "0123456789abcdefghijklmnopqrstuvwxyz.-_~+";

/// What came of the four things that a page does.
struct Deeds {
    get: Value,
    post: Value,
    websocket: Value,
    event_source: Value,
}

#[tokio::test]
async fn a_listed_page_is_served_and_no_other() {
    let Some(program) = chromium::find_or_skip("a listed page") else { return };
    let pages = Pages::start().await;
    let origin = pages.origin(FRIEND);
    let daemon = Daemon::builder().arg("--allowed-origin").arg(&origin).start().await;
    let unlisted = format!("{}/unlisted", pages.origin(ELSEWHERE));
    add(&pages, "listed", &daemon, None, Some(&unlisted));
    add(&pages, "unlisted", &daemon, None, None);
    let _browser = Chromium::open(&program, &format!("{origin}/listed"), &names());

    let deeds = Deeds::of(&pages, "listed").await;
    let session = deeds.assert_served("");
    assert_eq!(deeds.event_source["opened"], true, "{}", deeds.event_source);

    // The same script from the same server, under another name.
    let deeds = Deeds::of(&pages, "unlisted").await;
    for seen in [&deeds.get, &deeds.post, &deeds.websocket, &deeds.event_source] {
        assert!(seen["error"].is_string() && seen.get("body").is_none(), "{seen}");
    }
    assert_eq!(created(&daemon), [session]);
}

#[tokio::test]
async fn a_listed_page_needs_the_token_where_there_is_one() {
    let Some(program) = chromium::find_or_skip("a listed page with a token") else { return };
    let pages = Pages::start().await;
    let origin = pages.origin(FRIEND);
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

    let session = Deeds::of(&pages, "right").await.assert_served("codexd.v1");

    // The page may read that it lacks the token, and nothing else.
    for page in ["none", "wrong"] {
        let deeds = Deeds::of(&pages, page).await;
        for seen in [&deeds.get, &deeds.post] {
            let (status, error) = (&seen["status"], &seen["body"]["error"]);
            assert_eq!((status, error), (&json!(401), &json!("unauthorized")), "{seen}");
        }
        for seen in [&deeds.websocket, &deeds.event_source] {
            assert_eq!(seen["error"], "closed", "{seen}");
        }
    }
    assert_eq!(created(&daemon), [session]);
}

#[tokio::test]
async fn an_address_that_the_user_types_is_answered() {
    let Some(program) = chromium::find_or_skip("an address that is typed") else { return };
    let (guarded, _) = Guarded::start().await;
    let port = guarded.address().port();
    for host in ["127.0.0.1", "localhost"] {
        let path = format!("/v1/codexd/sessions/typed-{host}");
        let _browser = Chromium::open(&program, &format!("http://{host}:{port}{path}"), &names());
        guarded.has_answered("404", "GET", &path, 1).await;
    }
}

impl Deeds {
    async fn of(pages: &Pages, page: &str) -> Self {
        Self {
            get: pages.report(page, "get").await,
            post: pages.report(page, "post").await,
            websocket: pages.report(page, "websocket").await,
            event_source: pages.report(page, "event-source").await,
        }
    }

    /// That the page could read, create a session, and open a WebSocket in which this subprotocol is spoken; the session.
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
    [FRIEND, ELSEWHERE, "localhost"].map(|name| (name.to_owned(), "127.0.0.1".to_owned())).into()
}

/// The sessions that were created, as the log says.
fn created(daemon: &Daemon) -> Vec<Value> {
    let events = daemon.events_on_disk().into_iter();
    events
        .filter(|event| event["type"] == "session.created")
        .map(|event| event["detail"]["sessionId"].clone())
        .collect()
}
