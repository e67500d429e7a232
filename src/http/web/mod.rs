//! `GET /`: the live page, one HTML document that uses only the public routes.
//!
//! It holds no data, so it needs no token: a browser cannot send one when it navigates. Owns the assembled document.
//!
//! Invariant: the Content-Security-Policy allows the one script and the one style by hash, and connections to this
//! daemon only. So model output that reached the markup could neither run a script nor contact another host.

use std::sync::LazyLock;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use data_encoding::BASE64;
use sha2::{Digest, Sha256};

use super::error::ApiError;

/// The media type of the page.
pub(super) const CONTENT_TYPE: &str = "text/html; charset=utf-8";

const DOCUMENT: &str = include_str!("index.html");
const STYLE: &str = concat!(include_str!("page.css"), include_str!("conversation.css"));
/// The parts of the script share one scope; each follows the parts that it uses while loading.
const SCRIPT: &str = concat!(
    include_str!("vendor/marked.js"),
    include_str!("vendor/speed-highlight.js"),
    include_str!("elements.js"),
    include_str!("text.js"),
    include_str!("markdown.js"),
    include_str!("ansi.js"),
    include_str!("diff.js"),
    include_str!("api.js"),
    include_str!("stream.js"),
    include_str!("sessions.js"),
    include_str!("waiting.js"),
    include_str!("threads.js"),
    include_str!("activity.js"),
    include_str!("health.js"),
    include_str!("forms.js"),
    include_str!("requests.js"),
    include_str!("items.js"),
    include_str!("conversation.js"),
    include_str!("settings.js"),
    include_str!("composer.js"),
    include_str!("menu.js"),
    include_str!("page.js"),
);
/// Where the style and the script are inserted.
const STYLE_PLACEHOLDER: &str = "/* page.css */";
const SCRIPT_PLACEHOLDER: &str = "/* page.js */";

static LIVE_PAGE: LazyLock<LivePage> = LazyLock::new(LivePage::new);

/// The document, assembled once.
struct LivePage {
    document: Bytes,
    /// The directives of its policy for scripts and styles.
    inline_sources: String,
}

impl LivePage {
    fn new() -> Self {
        let document = DOCUMENT.replacen(STYLE_PLACEHOLDER, STYLE, 1).replacen(SCRIPT_PLACEHOLDER, SCRIPT, 1);
        let inline_sources = format!("script-src {}; style-src {}", hash_source(SCRIPT), hash_source(STYLE));
        Self { document: document.into(), inline_sources }
    }

    /// The policy of the page for a request with this host.
    fn policy(&self, host: &str) -> String {
        // 'self' covers WebSockets only in newer browsers; behind a proxy they have TLS, and a policy cannot express an IPv6 address.
        let socket = if host.starts_with('[') { String::new() } else { format!(" ws://{host} wss://{host}") };
        format!(
            "default-src 'none'; {}; connect-src 'self'{socket}; img-src data:; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
            self.inline_sources
        )
    }
}

/// The text of an element as a hash source (Content Security Policy Level 3, section 2.3.1).
fn hash_source(text: &str) -> String {
    format!("'sha256-{}'", BASE64.encode(&Sha256::digest(text)))
}

/// Handles `GET /`; the guard has checked `Host`.
pub(super) async fn page(headers: HeaderMap) -> Result<Response, ApiError> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let policy = HeaderValue::from_str(&LIVE_PAGE.policy(&host.to_ascii_lowercase()))
        .map_err(|_| ApiError::bad_request("The header Host is invalid."))?;
    let mut response = Response::new(Body::from(LIVE_PAGE.document.clone()));
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_TYPE, CONTENT_TYPE);
    // A page of another version must not be used with this daemon.
    set(header::CACHE_CONTROL, "no-store");
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files that `vendor/update` makes.
    const VENDORED: [(&str, &str); 2] = [
        ("marked.js", include_str!("vendor/marked.js")),
        ("speed-highlight.js", include_str!("vendor/speed-highlight.js")),
    ];

    /// The text between the only `start` and the `end` after it.
    fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
        let (_, rest) = text.split_once(start).unwrap();
        let (found, rest) = rest.split_once(end).unwrap();
        assert!(!rest.contains(start), "more than one {start}");
        found
    }

    #[test]
    fn policy_allows_exactly_the_inline_script_and_style() {
        let text = std::str::from_utf8(&LIVE_PAGE.document).unwrap();
        let script = between(text, "<script type=\"module\">", "</script>");
        let style = between(text, "<style>", "</style>");
        let policy = LIVE_PAGE.policy("127.0.0.1:4319");
        for (name, source) in [("script-src", hash_source(script)), ("style-src", hash_source(style))] {
            assert!(policy.contains(&format!("; {name} {source};")), "{name}: {policy}");
        }
        assert!(policy.starts_with("default-src 'none';"));
        assert!(
            policy.contains("; connect-src 'self' ws://127.0.0.1:4319 wss://127.0.0.1:4319;"),
            "{policy}"
        );
        assert!(LIVE_PAGE.policy("[::1]:4319").contains("; connect-src 'self';"));
    }

    /// The page without the files of `vendor`, whose texts have URLs.
    fn own_text() -> String {
        let text = std::str::from_utf8(&LIVE_PAGE.document).unwrap();
        VENDORED.iter().fold(text.to_owned(), |text, (_, vendored)| text.replacen(vendored, "", 1))
    }

    #[test]
    fn document_loads_nothing_external_and_never_parses_html() {
        let text = own_text();
        let is_external = |line: &&str| {
            ["http://", "https://", " src=", "@import", "url("].iter().any(|marker| line.contains(marker))
        };
        let found: Vec<_> = text.lines().filter(is_external).collect();
        // The only URL is the SVG namespace, which is never fetched.
        assert!(found.iter().all(|line| line.contains("data:image/svg+xml")), "{found:?}");
        let forbidden = [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "DOMParser",
            "eval(",
            "Function(",
            "import(",
        ];
        for parser in forbidden {
            assert!(!SCRIPT.contains(parser), "{parser}");
        }
    }

    #[test]
    fn vendored_files_are_those_of_the_list_and_name_their_licence() {
        let sums: Vec<_> = include_str!("vendor/SHA256SUMS").lines().collect();
        assert_eq!(sums.len(), VENDORED.len());
        let facts = [("18.2.1", "MIT"), ("2.1.0", "CC0 1.0 Universal")];
        for ((name, text), (version, licence)) in VENDORED.iter().zip(facts) {
            let sum = data_encoding::HEXLOWER.encode(&Sha256::digest(text));
            assert!(sums.contains(&format!("{sum}  {name}").as_str()), "{name} has the SHA-256 {sum}");
            let (head, _) = text.split_once("*/").unwrap();
            for part in [version, licence, "vendor/update"] {
                assert!(head.contains(part), "{name}: {part} is not in {head}");
            }
            assert!(include_str!("vendor/README.md").contains(version), "{name}: {version}");
        }
    }
}
