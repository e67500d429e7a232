//! `--allowed-origin`: pages of these origins may send requests and read the responses; others may not.

use serde_json::json;

use super::origin_header::{Row, assert_rows, check_no_cors_headers, port, session_count};
use super::raw_http::{HttpResponse, NamedRequest, assert_no_failures, first_responses, request};
use crate::api::{SESSIONS, STATUS};
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::http::Target;
use crate::support::websocket::EVENTS_PATH;

/// The origins that the daemons of these tests allow.
const ALLOWED_ORIGINS: [&str; 2] = ["https://console.example", "http://localhost:3000"];

fn builder_allowing(origins: &[&str]) -> DaemonBuilder {
    origins.iter().fold(Daemon::builder(), |builder, origin| builder.arg("--allowed-origin").arg(origin))
}

/// Checks that a browser lets a page of this origin read the response.
fn check_readable_by(response: &HttpResponse, origin: &str) -> Result<(), String> {
    let allowed = response.headers("access-control-allow-origin");
    let vary = response.headers("vary").join(",");
    let varies = vary.split(',').any(|name| name.trim().eq_ignore_ascii_case("origin"));
    if allowed != [origin] || !varies {
        return Err(format!("{}: allowed {allowed:?}, vary {vary:?}", response.status));
    }
    Ok(())
}

#[tokio::test]
async fn allowed_origin_is_accepted_and_may_read_every_response() {
    let daemon = builder_allowing(&ALLOWED_ORIGINS).start().await;
    let (authority, port) = (daemon.authority(), port(&daemon));
    let mut rows = Vec::new();
    for origin in ALLOWED_ORIGINS {
        let origin = format!("Origin: {origin}");
        for name in ["127.0.0.1", "localhost"] {
            rows.push(Row::new(&format!("{name}:{port}"), &[&origin], true));
        }
        for site in ["cross-site", "same-site", "same-origin", "none"] {
            rows.push(Row::new(authority, &[&origin, &format!("Sec-Fetch-Site: {site}")], true));
        }
    }
    for (name, response) in assert_rows(&daemon, &rows).await {
        let origin = ALLOWED_ORIGINS.iter().find(|origin| name.contains(*origin)).unwrap();
        check_readable_by(&response, origin).unwrap_or_else(|why| panic!("{name}: {why}"));
    }

    // Also error responses, and the response to a HEAD.
    let mut sent = Vec::new();
    for (line, body) in [
        ("GET /nothing/here".to_owned(), ""),
        ("GET /v1/codexd/sessions/unknown".to_owned(), ""),
        (format!("POST {SESSIONS}"), "nonsense"),
        (format!("POST {SESSIONS}"), "[]"),
        (format!("HEAD {STATUS}"), ""),
        (format!("OPTIONS {STATUS}"), ""),
        ("GET /healthz".to_owned(), ""),
        (format!("GET {EVENTS_PATH}?limit=0"), ""),
    ] {
        let lines = [format!("Host: {authority}"), format!("Origin: {}", ALLOWED_ORIGINS[0])];
        sent.push((format!("{line} {body}"), request(&line, &lines, body)));
    }
    let responses = first_responses(&daemon, &sent).await;
    let checked = sent.iter().zip(responses).map(|((name, _), response)| {
        let checked = response.and_then(|response| check_readable_by(&response, ALLOWED_ORIGINS[0]));
        checked.map_err(|why| format!("{name}: {why}"))
    });
    let failures: Vec<String> = checked.filter_map(Result::err).collect();
    assert_no_failures(&failures);
}

#[tokio::test]
async fn origin_that_resembles_an_allowed_one_is_forbidden() {
    let daemon = builder_allowing(&ALLOWED_ORIGINS).start().await;
    let authority = daemon.authority();
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
        rows.push(Row::new(authority, &[format!("Origin: {origin}")], false));
        rows.push(Row::new(
            authority,
            &[format!("Origin: {origin}"), "Sec-Fetch-Site: same-origin".to_owned()],
            false,
        ));
    }
    let allowed_origin = ALLOWED_ORIGINS.map(|origin| format!("Origin: {origin}"));
    rows.push(Row::new(authority, &allowed_origin, false));
    rows.push(Row::new(authority, &[&allowed_origin[0], &allowed_origin[0]], false));
    rows.push(Row::new(authority, &[allowed_origin[0].as_str(), "Origin: null"], false));
    // The list does not apply to cross-site requests without an Origin.
    rows.push(Row::new(authority, &["Sec-Fetch-Site: cross-site"], false));
    // An origin that is not in the list stays forbidden.
    rows.push(Row::new(authority, &["Origin: http://evil.example", "Sec-Fetch-Site: none"], false));
    assert_rows(&daemon, &rows).await;
}

#[tokio::test]
async fn allowed_origins_are_read_from_the_environment() {
    let json = json!(ALLOWED_ORIGINS).to_string();
    let separated_by_spaces = ALLOWED_ORIGINS.join(" ");
    for value in [json, separated_by_spaces] {
        let daemon = Daemon::builder().env("BAA_CODEXD_ALLOWED_ORIGINS", &value).start().await;
        let authority = daemon.authority();
        let mut rows: Vec<Row> = Vec::new();
        for origin in ALLOWED_ORIGINS {
            rows.push(Row::new(
                authority,
                &[format!("Origin: {origin}"), "Sec-Fetch-Site: cross-site".to_owned()],
                true,
            ));
        }
        rows.push(Row::new(authority, &["Origin: https://other.example"], false));
        assert_rows(&daemon, &rows).await;
    }
}

/// A CORS preflight request.
fn preflight(host: &str, path: &str, headers: &[&str]) -> Vec<u8> {
    let host = format!("Host: {host}");
    request(&format!("OPTIONS {path}"), &[&[host.as_str()], headers].concat(), "")
}

#[tokio::test]
async fn cors_preflight_is_answered_for_allowed_origins_only() {
    let daemon = builder_allowing(&ALLOWED_ORIGINS).start().await;
    let authority = daemon.authority();
    let own_origin = format!("Origin: http://{authority}");
    let requested_method = "Access-Control-Request-Method: POST";
    let requested_headers = "Access-Control-Request-Headers: authorization,content-type,idempotency-key";
    let allowed_origin = format!("Origin: {}", ALLOWED_ORIGINS[0]);
    let mut failures = Vec::new();

    let mut sent: Vec<NamedRequest> = Vec::new();
    for path in [SESSIONS, STATUS, EVENTS_PATH, "/nothing/here"] {
        for lines in [
            &[allowed_origin.as_str(), requested_method][..],
            &[&allowed_origin, requested_method, requested_headers],
            &[&allowed_origin, requested_method, requested_headers, "Sec-Fetch-Site: cross-site"],
            &[
                &allowed_origin,
                requested_method,
                "Access-Control-Request-Headers: traceparent, baggage,x-request-id, not a name,,",
            ],
        ] {
            sent.push((format!("{path} {lines:?}"), preflight(authority, path, lines)));
        }
    }
    for ((name, _), response) in sent.iter().zip(first_responses(&daemon, &sent).await) {
        let checked = response.and_then(|response| {
            response.check(204, None)?;
            check_readable_by(&response, ALLOWED_ORIGINS[0])?;
            let methods = response.headers("access-control-allow-methods").join(",");
            let allowed = response.headers("access-control-allow-headers").join(",").to_ascii_lowercase();
            for (list, name) in [
                (&methods, "GET"),
                (&methods, "POST"),
                (&methods, "DELETE"),
                (&methods, "PATCH"),
                (&allowed, "authorization"),
                (&allowed, "content-type"),
                (&allowed, "idempotency-key"),
                (&allowed, "last-event-id"),
            ] {
                if !list.split(',').any(|known| known.trim() == name) {
                    return Err(format!("{name} is not in {list:?}"));
                }
            }
            // The headers that tracing libraries add to each request.
            for header in ["traceparent", "baggage", "x-request-id"] {
                let is_allowed = allowed.split(',').any(|known| known.trim() == header);
                if is_allowed != name.contains(header) {
                    return Err(format!("{header}: {allowed:?}"));
                }
            }
            match response.headers("access-control-allow-credentials").as_slice() {
                [] => Ok(()),
                values => Err(format!("credentials {values:?}")),
            }
        });
        failures.extend(checked.err().map(|why| format!("{name}: {why}")));
    }

    let mut refused: Vec<(NamedRequest, u16, &str)> = Vec::new();
    for (lines, status, code) in [
        (&["Origin: http://evil.example", requested_method][..], 403, "forbidden"),
        (&["Origin: null", requested_method], 403, "forbidden"),
        (
            &[
                "Origin: http://evil.example",
                requested_method,
                requested_headers,
                "Access-Control-Request-Private-Network: true",
            ],
            403,
            "forbidden",
        ),
        (
            &["Origin: http://evil.example", requested_method, "Access-Control-Request-Local-Network: true"],
            403,
            "forbidden",
        ),
        (&[&allowed_origin, &allowed_origin, requested_method], 403, "forbidden"),
        (&["Sec-Fetch-Site: cross-site", requested_method], 403, "forbidden"),
        (&[&own_origin, requested_method], 404, "not_found"),
        (&[requested_method], 404, "not_found"),
        (&[], 404, "not_found"),
    ] {
        refused.push(((format!("{lines:?}"), preflight(authority, SESSIONS, lines)), status, code));
    }
    let foreign = "a foreign Host".to_owned();
    refused.push((
        (foreign, preflight("evil.example", SESSIONS, &[&allowed_origin, requested_method])),
        403,
        "forbidden",
    ));
    let sent: Vec<NamedRequest> = refused.iter().map(|(sent, _, _)| sent.clone()).collect();
    for (((name, _), status, code), response) in refused.iter().zip(first_responses(&daemon, &sent).await) {
        let has_foreign_host = name.contains("foreign");
        let checked = response.and_then(|response| {
            response.check_error(*status, code)?;
            if has_foreign_host { Ok(()) } else { check_no_cors_headers(&response) }
        });
        failures.extend(checked.err().map(|why| format!("{name}: {why}")));
    }
    assert_eq!(session_count(&daemon).await, 0);
    assert_no_failures(&failures);
}

#[tokio::test]
async fn invalid_allowed_origin_is_refused_at_start() {
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
        let refusal = builder_allowing(&[origin]).start_refused().await;
        assert_eq!(refusal.status.code(), Some(2), "{origin:?}: {}", refusal.stderr);
        assert!(refusal.stderr.contains("--allowed-origin"), "{origin:?}: {}", refusal.stderr);
        assert!(refusal.stderr.trim_end().ends_with('.'), "{origin:?}: {}", refusal.stderr);
    }
}
