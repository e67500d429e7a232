//! Pages from elsewhere that may ask, because the settings list them.

use serde_json::json;

use super::origin_header::{Row, allows_nobody, assert_rows, port, sessions};
use super::raw_http::{Sent, WireAnswer, assert_all_good, first_answers, request};
use crate::api::{SESSIONS, STATUS};
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::http::Target;
use crate::support::websocket::EVENTS_PATH;

/// Two pages from elsewhere, for daemons that list them.
const LISTED: [&str; 2] = ["https://console.example", "http://localhost:3000"];

fn listing(origins: &[&str]) -> DaemonBuilder {
    origins.iter().fold(Daemon::builder(), |builder, origin| builder.arg("--allowed-origin").arg(origin))
}

/// Whether an answer is shown by a browser to the page that this is.
fn is_for(answer: &WireAnswer, origin: &str) -> Result<(), String> {
    let allowed = answer.headers("access-control-allow-origin");
    let vary = answer.headers("vary").join(",");
    let varies = vary.split(',').any(|name| name.trim().eq_ignore_ascii_case("origin"));
    if allowed != [origin] || !varies {
        return Err(format!("{}: allowed {allowed:?}, vary {vary:?}", answer.status));
    }
    Ok(())
}

#[tokio::test]
async fn a_listed_page_is_let_in_from_anywhere_and_may_read_every_answer() {
    let daemon = listing(&LISTED).start().await;
    let (own, port) = (daemon.authority(), port(&daemon));
    let mut rows = Vec::new();
    for origin in LISTED {
        let origin = format!("Origin: {origin}");
        for name in ["127.0.0.1", "localhost"] {
            rows.push(Row::new(&format!("{name}:{port}"), &[&origin], true));
        }
        for site in ["cross-site", "same-site", "same-origin", "none"] {
            rows.push(Row::new(own, &[&origin, &format!("Sec-Fetch-Site: {site}")], true));
        }
    }
    for (name, answer) in assert_rows(&daemon, &rows).await {
        let origin = LISTED.iter().find(|origin| name.contains(*origin)).unwrap();
        is_for(&answer, origin).unwrap_or_else(|why| panic!("{name}: {why}"));
    }

    // Errors too, and the answer to a HEAD.
    let mut sent = Vec::new();
    for (line, body) in [
        ("GET /nothing/here".to_owned(), ""),
        ("GET /v1/codexd/sessions/nobody".to_owned(), ""),
        (format!("POST {SESSIONS}"), "nonsense"),
        (format!("POST {SESSIONS}"), "[]"),
        (format!("HEAD {STATUS}"), ""),
        (format!("OPTIONS {STATUS}"), ""),
        ("GET /healthz".to_owned(), ""),
        (format!("GET {EVENTS_PATH}?limit=0"), ""),
    ] {
        let lines = [format!("Host: {own}"), format!("Origin: {}", LISTED[0])];
        sent.push((format!("{line} {body}"), request(&line, &lines, body)));
    }
    let answers = first_answers(&daemon, &sent).await;
    let checked = sent.iter().zip(answers).map(|((name, _), answer)| {
        let checked = answer.and_then(|answer| is_for(&answer, LISTED[0]));
        checked.map_err(|why| format!("{name}: {why}"))
    });
    let failures: Vec<String> = checked.filter_map(Result::err).collect();
    assert_all_good(&failures);
}

#[tokio::test]
async fn a_page_that_is_nearly_listed_is_refused() {
    let daemon = listing(&LISTED).start().await;
    let own = daemon.authority();
    let mut rows = Vec::new();
    for origin in [
        "https://console.example/",
        "https://console.example.",
        "https://console.example:443",
        "https://console.example:8443",
        "http://console.example",
        "https://CONSOLE.example",
        "HTTPS://console.example",
        "https://sub.console.example",
        "https://evilconsole.example",
        "https://console.example.evil.example",
        "https://console.exampl",
        "https://console.example, http://localhost:3000",
        "https://console.example http://localhost:3000",
        "http://localhost:30000",
        "http://localhost",
        "http://127.0.0.1:3000",
        "https://localhost:3000",
        "null",
        "*",
        "",
    ] {
        rows.push(Row::new(own, &[format!("Origin: {origin}")], false));
        rows.push(Row::new(
            own,
            &[format!("Origin: {origin}"), "Sec-Fetch-Site: same-origin".to_owned()],
            false,
        ));
    }
    let listed = LISTED.map(|origin| format!("Origin: {origin}"));
    rows.push(Row::new(own, &listed, false));
    rows.push(Row::new(own, &[&listed[0], &listed[0]], false));
    rows.push(Row::new(own, &[listed[0].as_str(), "Origin: null"], false));
    // Who lists pages has not said that requests without a page come from anywhere.
    rows.push(Row::new(own, &["Sec-Fetch-Site: cross-site"], false));
    // A list is no licence for another name of ours.
    rows.push(Row::new(own, &["Origin: http://evil.example", "Sec-Fetch-Site: none"], false));
    assert_rows(&daemon, &rows).await;
}

#[tokio::test]
async fn pages_are_listed_in_the_environment_too() {
    let json = json!(LISTED).to_string();
    let words = LISTED.join(" ");
    for value in [json, words] {
        let daemon = Daemon::builder().env("BAA_CODEXD_ALLOWED_ORIGINS", &value).start().await;
        let own = daemon.authority();
        let mut rows: Vec<Row> = Vec::new();
        for origin in LISTED {
            rows.push(Row::new(
                own,
                &[format!("Origin: {origin}"), "Sec-Fetch-Site: cross-site".to_owned()],
                true,
            ));
        }
        rows.push(Row::new(own, &["Origin: https://other.example"], false));
        assert_rows(&daemon, &rows).await;
    }
}

/// The question of a browser whether this page may send this.
fn preflight(host: &str, path: &str, headers: &[&str]) -> Vec<u8> {
    let host = format!("Host: {host}");
    request(&format!("OPTIONS {path}"), &[&[host.as_str()], headers].concat(), "")
}

#[tokio::test]
async fn a_listed_page_may_ask_beforehand_and_nobody_else() {
    let daemon = listing(&LISTED).start().await;
    let own = daemon.authority();
    let own_origin = format!("Origin: http://{own}");
    let asks = "Access-Control-Request-Method: POST";
    let more = "Access-Control-Request-Headers: authorization,content-type,idempotency-key";
    let listed = format!("Origin: {}", LISTED[0]);
    let mut failures = Vec::new();

    let mut sent: Vec<Sent> = Vec::new();
    for path in [SESSIONS, STATUS, EVENTS_PATH, "/nothing/here"] {
        for lines in [
            &[listed.as_str(), asks][..],
            &[&listed, asks, more],
            &[&listed, asks, more, "Sec-Fetch-Site: cross-site"],
            &[
                &listed,
                asks,
                "Access-Control-Request-Headers: traceparent, baggage,x-request-id, not a name,,",
            ],
        ] {
            sent.push((format!("{path} {lines:?}"), preflight(own, path, lines)));
        }
    }
    for ((name, _), answer) in sent.iter().zip(first_answers(&daemon, &sent).await) {
        let checked = answer.and_then(|answer| {
            answer.is(204, None)?;
            is_for(&answer, LISTED[0])?;
            let methods = answer.headers("access-control-allow-methods").join(",");
            let allowed = answer.headers("access-control-allow-headers").join(",").to_ascii_lowercase();
            for (list, word) in [
                (&methods, "GET"),
                (&methods, "POST"),
                (&methods, "DELETE"),
                (&methods, "PATCH"),
                (&allowed, "authorization"),
                (&allowed, "content-type"),
                (&allowed, "idempotency-key"),
                (&allowed, "last-event-id"),
            ] {
                if !list.split(',').any(|known| known.trim() == word) {
                    return Err(format!("{word} is not in {list:?}"));
                }
            }
            // What a library adds to each request, such as one that traces them.
            for word in ["traceparent", "baggage", "x-request-id"] {
                let is_allowed = allowed.split(',').any(|known| known.trim() == word);
                if is_allowed != name.contains(word) {
                    return Err(format!("{word}: {allowed:?}"));
                }
            }
            match answer.headers("access-control-allow-credentials").as_slice() {
                [] => Ok(()),
                values => Err(format!("credentials {values:?}")),
            }
        });
        failures.extend(checked.err().map(|why| format!("{name}: {why}")));
    }

    let mut refused: Vec<(Sent, u16, &str)> = Vec::new();
    for (lines, status, code) in [
        (&["Origin: http://evil.example", asks][..], 403, "forbidden"),
        (&["Origin: null", asks], 403, "forbidden"),
        (
            &["Origin: http://evil.example", asks, more, "Access-Control-Request-Private-Network: true"],
            403,
            "forbidden",
        ),
        (
            &["Origin: http://evil.example", asks, "Access-Control-Request-Local-Network: true"],
            403,
            "forbidden",
        ),
        (&[&listed, &listed, asks], 403, "forbidden"),
        (&["Sec-Fetch-Site: cross-site", asks], 403, "forbidden"),
        (&[&own_origin, asks], 404, "not_found"),
        (&[asks], 404, "not_found"),
        (&[], 404, "not_found"),
    ] {
        refused.push(((format!("{lines:?}"), preflight(own, SESSIONS, lines)), status, code));
    }
    let foreign = "a foreign Host".to_owned();
    refused.push(((foreign, preflight("evil.example", SESSIONS, &[&listed, asks])), 403, "forbidden"));
    let sent: Vec<Sent> = refused.iter().map(|(sent, _, _)| sent.clone()).collect();
    for (((name, _), status, code), answer) in refused.iter().zip(first_answers(&daemon, &sent).await) {
        let is_listed = name.contains("foreign");
        let checked = answer.and_then(|answer| {
            answer.refuses(*status, code)?;
            if is_listed { Ok(()) } else { allows_nobody(&answer) }
        });
        failures.extend(checked.err().map(|why| format!("{name}: {why}")));
    }
    assert_eq!(sessions(&daemon).await, 0);
    assert_all_good(&failures);
}

#[tokio::test]
async fn a_page_that_cannot_be_listed_is_refused_at_the_start() {
    for origin in [
        "*",
        "null",
        "",
        "console.example",
        "https://console.example/",
        "https://console.example/path",
        "https://console.example?",
        "https://user@console.example",
        "https://*.console.example",
        "https://console.example https://other.example",
        "https://",
    ] {
        let refusal = listing(&[origin]).start_refused().await;
        assert_eq!(refusal.status.code(), Some(2), "{origin:?}: {}", refusal.stderr);
        assert!(refusal.stderr.contains("--allowed-origin"), "{origin:?}: {}", refusal.stderr);
        assert!(refusal.stderr.trim_end().ends_with('.'), "{origin:?}: {}", refusal.stderr);
    }
}
