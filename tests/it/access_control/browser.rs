//! What a real browser can do to the daemon on behalf of a page: nothing, unless the page is listed.
//!
//! Each attack is tried on a server that guards nothing too, and has to get through there.

mod allowed_page;
mod attacks;
mod chromium;
mod pages;
mod target_daemon;
mod unprotected_server;

use std::collections::HashMap;

use serde_json::{Value, json};

use self::attacks::{ATTACKS, Attack, Carries};
use self::chromium::Chromium;
use self::pages::{ELSEWHERE, Page, Pages, Seen};
use self::target_daemon::Guarded;
use self::unprotected_server::{Control, PERMIT, SECRET};
use crate::support::skip::runs_long;

/// The kind of page that has no origin.
const SANDBOXED: &str = "sandboxed";

/// How much of each breach a failure prints.
const PRINTED_CHARACTERS: usize = 200;

/// A page that tries every attack on one server.
struct Visit {
    page: String,
    /// Where the browser finds the page.
    url: String,
    /// What the browser calls the origin of the page.
    origin: String,
    /// The server; none when the name of the page comes to mean it.
    target: Option<String>,
}

#[tokio::test]
async fn a_foreign_page_gets_nothing() {
    if !runs_long() {
        return;
    }
    let Some(program) = chromium::find_or_skip("attacks from foreign pages") else { return };
    let pages = Pages::start().await;
    let control = Control::start().await;
    let (guarded, before) = Guarded::start().await;

    // A page from elsewhere, by each name of this machine; one from another port of it; one that may not have an origin.
    let kinds = [
        ("elsewhere", ELSEWHERE, "127.0.0.1"),
        ("elsewhere-by-name", ELSEWHERE, "localhost"),
        ("elsewhere-by-zero", ELSEWHERE, "0.0.0.0"),
        ("another-port", "127.0.0.1", "127.0.0.1"),
        ("another-port-by-name", "localhost", "localhost"),
        (SANDBOXED, ELSEWHERE, "127.0.0.1"),
    ];
    let of = |server: &str, port: u16| {
        kinds.map(|(kind, host, target)| {
            let (page, origin) = (format!("{kind}-{server}"), pages.origin(host));
            let url = format!("{origin}/{page}");
            let origin = if kind == SANDBOXED { "null".to_owned() } else { origin };
            Visit { page, url, origin, target: Some(format!("http://{target}:{port}")) }
        })
    };
    let on_control = of("control", control.address().port());
    let on_guarded = of("codexd", guarded.address().port());
    serve(&pages, &on_control, Some(&on_guarded[0].url));
    serve(&pages, &on_guarded, None);

    let names = [ELSEWHERE, "localhost", "0.0.0.0"].map(|name| (name.to_owned(), "127.0.0.1".to_owned()));
    let _browser = Chromium::open(&program, &on_control[0].url, &names);
    assert_control_is_taken(&pages, &on_control, &control).await;
    assert_nothing_is_got(&pages, &on_guarded, &guarded).await;
    assert_eq!(guarded.moment().await, before, "an attack had an effect");
}

#[tokio::test]
async fn a_page_whose_name_comes_to_mean_the_daemon_gets_nothing() {
    let Some(program) = chromium::find_or_skip("attacks by DNS rebinding") else { return };
    let pages = Pages::start().await;
    let control = Control::start().await;
    let (guarded, before) = Guarded::start().await;

    let mut names = vec![(ELSEWHERE.to_owned(), "127.0.0.1".to_owned())];
    let mut visits = Vec::new();
    for (page, server) in [("rebound-control", control.address()), ("rebound-codexd", guarded.address())] {
        // To the browser the page comes from the port of the server that it will mean.
        let name = format!("rebind.test:{}", server.port());
        names.push((name.clone(), format!("127.0.0.1:{}", pages.rebind(server).await)));
        let origin = format!("http://{name}");
        visits.push(Visit { page: page.to_owned(), url: format!("{origin}/{page}"), origin, target: None });
    }
    serve(&pages, &visits, None);

    let _browser = Chromium::open(&program, &visits[0].url, &names);
    assert_control_is_taken(&pages, &visits[..1], &control).await;
    assert_nothing_is_got(&pages, &visits[1..], &guarded).await;
    assert_eq!(guarded.moment().await, before, "an attack had an effect");
}

impl Visit {
    fn seen(&self) -> Seen {
        if self.target.is_some() { Seen::Foreign } else { Seen::Rebound }
    }
}

/// Serves the pages of these visits, each leading to the one after it, and the last one to `next`.
fn serve(pages: &Pages, visits: &[Visit], next: Option<&str>) {
    for (at, visit) in visits.iter().enumerate() {
        let query = match visit.seen() {
            Seen::Foreign => format!("page={}&{PERMIT}", visit.page),
            Seen::Rebound => format!("page={}", visit.page),
        };
        let page = Page {
            script: attacks::SCRIPT,
            config: json!({ "target": visit.target, "query": query }),
            is_sandboxed: visit.origin == "null",
        };
        pages.add(&visit.page, page, visits.get(at + 1).map(|after| after.url.as_str()).or(next));
    }
}

/// Every attack has to get through to a server that guards nothing, or it would prove nothing.
async fn assert_control_is_taken(pages: &Pages, visits: &[Visit], control: &Control) {
    for visit in visits {
        assert_begins(pages, visit).await;
        for attack in &ATTACKS {
            let Attack { name, method, path, .. } = attack;
            let report = pages.report(&visit.page, name).await;
            control
                .heard(&format!("{name} by {} to get through", visit.page), |heard| {
                    let is_told =
                        |key: &str, value: &str| heard.query.get(key).is_some_and(|told| told == value);
                    let is_it = is_told("attack", name) && is_told("page", &visit.page);
                    is_it && heard.method == *method && heard.path == *path && carries(attack, &heard.text)
                })
                .await;
            let read = report["read"].as_str();
            let is_read = read.is_some_and(|text| text.contains(SECRET) || text == "opened");
            assert_eq!(is_read, attack.is_read(visit.seen()), "whether the page reads something: {report}");
        }
    }
}

/// No attack may read anything, and each has to be heard and refused by the daemon.
async fn assert_nothing_is_got(pages: &Pages, visits: &[Visit], guarded: &Guarded) {
    let mut breaches = Vec::new();
    let mut expected = HashMap::new();
    for visit in visits {
        assert_begins(pages, visit).await;
        for attack in &ATTACKS {
            let report = pages.report(&visit.page, attack.name).await;
            let is_nothing = match report["read"].as_str() {
                None => true,
                // A page that seems to be the daemon's own may see that it is refused.
                Some(text) => visit.seen() == Seen::Rebound && is_refusal(text),
            };
            if !is_nothing {
                breaches.push(report.to_string().chars().take(PRINTED_CHARACTERS).collect::<String>());
            }
            *expected.entry((attack.first_method(visit.seen()), attack.path)).or_insert(0) += 1;
        }
    }
    assert_eq!(breaches, [""; 0], "what pages could read");
    for ((method, path), count) in expected {
        guarded.has_answered("403", method, path, count).await;
    }
    // A window that shows the refusal wants a picture for it, as the page that it shows.
    let let_in = guarded.answered().filter(|access| access.status != "403" && access.path != "/favicon.ico");
    assert_eq!(let_in.collect::<Vec<_>>(), [], "what came in");
}

async fn assert_begins(pages: &Pages, visit: &Visit) {
    let report = pages.report(&visit.page, "begin").await;
    assert_eq!(report["origin"], visit.origin.as_str());
    assert_eq!(report["attacks"], json!(ATTACKS.map(|attack| attack.name)), "the two halves of the table");
}

/// Whether this text is what the attack brings with it.
fn carries(attack: &Attack, text: &str) -> bool {
    let json = || serde_json::from_str::<Value>(text).unwrap_or_default();
    match attack.carries {
        Carries::Nothing => true,
        Carries::Session => json()["metadata"]["attack"] == attack.name,
        Carries::Message => json()["type"] == "respond" && json()["attack"] == attack.name,
    }
}

fn is_refusal(text: &str) -> bool {
    let answer = serde_json::from_str::<Value>(text).unwrap_or_default();
    answer["ok"] == false && answer["error"] == "forbidden" && answer.get("data").is_none()
}
