//! Attacks on the daemon by foreign pages in a real browser: none may read or change anything.
//!
//! Each attack is also tried on an unprotected server, where it must succeed.

mod allowed_page;
mod attacks;
mod chromium;
mod pages;
mod target_daemon;
mod unprotected_server;

use std::collections::HashMap;

use serde_json::{Value, json};

use self::attacks::{ATTACKS, Attack, Payload};
use self::chromium::Chromium;
use self::pages::{FOREIGN_HOST, Page, Pages, Relation};
use self::target_daemon::TargetDaemon;
use self::unprotected_server::{ALLOW_CORS_PARAMETER, SECRET, UnprotectedServer};
use crate::support::skip::runs_long;

/// The kind of page that has no origin.
const SANDBOXED: &str = "sandboxed";

/// The number of characters of each breach that a failure prints.
const PRINTED_CHARACTERS: usize = 200;

/// A page that tries every attack on one server.
struct Visit {
    page: String,
    /// The URL of the page.
    url: String,
    /// The origin of the page in the browser.
    origin: String,
    /// The base URL of the server; `None` when DNS rebinding makes the name of the page resolve to it.
    target: Option<String>,
}

#[tokio::test]
async fn foreign_page_can_neither_read_nor_change_anything() {
    if !runs_long() {
        return;
    }
    let Some(program) = chromium::find_or_skip("attacks from foreign pages") else { return };
    let pages = Pages::start().await;
    let unprotected = UnprotectedServer::start().await;
    let (target, before) = TargetDaemon::start().await;

    // A foreign page for each name of this machine; a page from another port of it; a page without an origin.
    let kinds = [
        ("foreign", FOREIGN_HOST, "127.0.0.1"),
        ("foreign-by-name", FOREIGN_HOST, "localhost"),
        ("foreign-by-zero", FOREIGN_HOST, "0.0.0.0"),
        ("another-port", "127.0.0.1", "127.0.0.1"),
        ("another-port-by-name", "localhost", "localhost"),
        (SANDBOXED, FOREIGN_HOST, "127.0.0.1"),
    ];
    let visits_of = |server: &str, port: u16| {
        kinds.map(|(kind, host, target)| {
            let (page, origin) = (format!("{kind}-{server}"), pages.origin(host));
            let url = format!("{origin}/{page}");
            let origin = if kind == SANDBOXED { "null".to_owned() } else { origin };
            Visit { page, url, origin, target: Some(format!("http://{target}:{port}")) }
        })
    };
    let on_unprotected = visits_of("unprotected", unprotected.address().port());
    let on_daemon = visits_of("codexd", target.address().port());
    serve(&pages, &on_unprotected, Some(&on_daemon[0].url));
    serve(&pages, &on_daemon, None);

    let names = [FOREIGN_HOST, "localhost", "0.0.0.0"].map(|name| (name.to_owned(), "127.0.0.1".to_owned()));
    let _browser = Chromium::open(&program, &on_unprotected[0].url, &names);
    assert_attacks_succeed(&pages, &on_unprotected, &unprotected).await;
    assert_attacks_are_refused(&pages, &on_daemon, &target).await;
    assert_eq!(target.state().await, before, "an attack changed the state of the daemon");
}

#[tokio::test]
async fn dns_rebinding_page_can_neither_read_nor_change_anything() {
    let Some(program) = chromium::find_or_skip("attacks by DNS rebinding") else { return };
    let pages = Pages::start().await;
    let unprotected = UnprotectedServer::start().await;
    let (target, before) = TargetDaemon::start().await;

    let mut names = vec![(FOREIGN_HOST.to_owned(), "127.0.0.1".to_owned())];
    let mut visits = Vec::new();
    for (page, server) in
        [("rebound-unprotected", unprotected.address()), ("rebound-codexd", target.address())]
    {
        // In the browser, the page has the port of the server that its name will resolve to.
        let name = format!("rebind.test:{}", server.port());
        names.push((name.clone(), format!("127.0.0.1:{}", pages.rebind(server).await)));
        let origin = format!("http://{name}");
        visits.push(Visit { page: page.to_owned(), url: format!("{origin}/{page}"), origin, target: None });
    }
    serve(&pages, &visits, None);

    let _browser = Chromium::open(&program, &visits[0].url, &names);
    assert_attacks_succeed(&pages, &visits[..1], &unprotected).await;
    assert_attacks_are_refused(&pages, &visits[1..], &target).await;
    assert_eq!(target.state().await, before, "an attack changed the state of the daemon");
}

impl Visit {
    fn relation(&self) -> Relation {
        if self.target.is_some() { Relation::Foreign } else { Relation::Rebound }
    }
}

/// Serves the pages of these visits; each page leads to the next one, and the last one to `next`.
fn serve(pages: &Pages, visits: &[Visit], next: Option<&str>) {
    for (index, visit) in visits.iter().enumerate() {
        let query = match visit.relation() {
            Relation::Foreign => format!("page={}&{ALLOW_CORS_PARAMETER}", visit.page),
            Relation::Rebound => format!("page={}", visit.page),
        };
        let page = Page {
            script: attacks::SCRIPT,
            config: json!({ "target": visit.target, "query": query }),
            is_sandboxed: visit.origin == "null",
        };
        pages.add(&visit.page, page, visits.get(index + 1).map(|after| after.url.as_str()).or(next));
    }
}

/// Asserts that every attack succeeds against the unprotected server; otherwise it would prove nothing.
async fn assert_attacks_succeed(pages: &Pages, visits: &[Visit], unprotected: &UnprotectedServer) {
    for visit in visits {
        assert_page_starts(pages, visit).await;
        for attack in &ATTACKS {
            let Attack { name, method, path, .. } = attack;
            let report = pages.report(&visit.page, name).await;
            unprotected
                .wait_for_request(
                    &format!("{name} by {} to reach the unprotected server", visit.page),
                    |request| {
                        let has_parameter = |key: &str, value: &str| {
                            request.query.get(key).is_some_and(|found| found == value)
                        };
                        let is_from_attack =
                            has_parameter("attack", name) && has_parameter("page", &visit.page);
                        is_from_attack
                            && request.method == *method
                            && request.path == *path
                            && has_payload(attack, &request.text)
                    },
                )
                .await;
            let read = report["read"].as_str();
            let is_read = read.is_some_and(|text| text.contains(SECRET) || text == "opened");
            assert_eq!(
                is_read,
                attack.is_read(visit.relation()),
                "whether the page can read the response: {report}"
            );
        }
    }
}

/// Asserts that no attack reads anything, and that the daemon received and refused each of them.
async fn assert_attacks_are_refused(pages: &Pages, visits: &[Visit], target: &TargetDaemon) {
    let mut breaches = Vec::new();
    let mut expected = HashMap::new();
    for visit in visits {
        assert_page_starts(pages, visit).await;
        for attack in &ATTACKS {
            let report = pages.report(&visit.page, attack.name).await;
            let reads_nothing = match report["read"].as_str() {
                None => true,
                // A page with the daemon's own origin may read the refusal.
                Some(text) => visit.relation() == Relation::Rebound && is_refusal(text),
            };
            if !reads_nothing {
                breaches.push(report.to_string().chars().take(PRINTED_CHARACTERS).collect::<String>());
            }
            *expected.entry((attack.first_method(visit.relation()), attack.path)).or_insert(0) += 1;
        }
    }
    assert_eq!(breaches, [""; 0], "responses that pages could read");
    for ((method, path), count) in expected {
        target.wait_for_response("403", method, path, count).await;
    }
    // A window that shows the refusal requests an icon for it, as the page that it shows.
    let accepted =
        target.access_log().filter(|access| access.status != "403" && access.path != "/favicon.ico");
    assert_eq!(accepted.collect::<Vec<_>>(), [], "requests that were accepted");
}

async fn assert_page_starts(pages: &Pages, visit: &Visit) {
    let report = pages.report(&visit.page, "begin").await;
    assert_eq!(report["origin"], visit.origin.as_str());
    assert_eq!(
        report["attacks"],
        json!(ATTACKS.map(|attack| attack.name)),
        "the attacks in Rust and in JavaScript differ"
    );
}

/// Whether this text is the payload of the attack.
fn has_payload(attack: &Attack, text: &str) -> bool {
    let json = || serde_json::from_str::<Value>(text).unwrap_or_default();
    match attack.payload {
        Payload::Nothing => true,
        Payload::Session => json()["metadata"]["attack"] == attack.name,
        Payload::Message => json()["type"] == "respond" && json()["attack"] == attack.name,
    }
}

fn is_refusal(text: &str) -> bool {
    let response = serde_json::from_str::<Value>(text).unwrap_or_default();
    response["ok"] == false && response["error"] == "forbidden" && response.get("data").is_none()
}
