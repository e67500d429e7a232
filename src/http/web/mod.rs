//! `GET /`: the live page, one HTML document that uses only the public routes.
//!
//! It holds no data, so it needs no token: a browser cannot send one when it navigates. Owns the assembled document, plain
//! and compressed.
//!
//! Invariant: the Content-Security-Policy allows the one script and the one style by hash, and connections to this
//! daemon only. So model output that reached the markup could neither run a script nor contact another host.

use std::io::Write;
use std::sync::LazyLock;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use data_encoding::{BASE64, HEXLOWER};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use super::content_negotiation::accepts_gzip;
use super::error::ApiError;

/// The media type of the page.
pub(super) const CONTENT_TYPE: &str = "text/html; charset=utf-8";
/// A page of another version must not be used with this daemon: a browser asks each time whether it is the same.
pub(super) const CACHE_CONTROL: &str = "no-cache";

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
    include_str!("export.js"),
    include_str!("settings.js"),
    include_str!("composer.js"),
    include_str!("menu.js"),
    include_str!("page.js"),
);
/// Where the style and the script are inserted.
const STYLE_PLACEHOLDER: &str = "/* page.css */";
const SCRIPT_PLACEHOLDER: &str = "/* page.js */";

static LIVE_PAGE: LazyLock<LivePage> = LazyLock::new(LivePage::new);

/// The document, assembled and compressed once.
struct LivePage {
    document: Bytes,
    /// The document in gzip; `None` if it could not be compressed.
    compressed: Option<Bytes>,
    /// The version of the document, for its entity tags.
    version: String,
    /// The directives of its policy for scripts and styles.
    inline_sources: String,
}

impl LivePage {
    fn new() -> Self {
        let document = DOCUMENT.replacen(STYLE_PLACEHOLDER, STYLE, 1).replacen(SCRIPT_PLACEHOLDER, SCRIPT, 1);
        let inline_sources = format!("script-src {}; style-src {}", hash_source(SCRIPT), hash_source(STYLE));
        let version = HEXLOWER.encode(Sha256::digest(&document).get(..12).unwrap_or_default());
        let compressed = compress(document.as_bytes()).ok();
        Self { document: document.into(), compressed, version, inline_sources }
    }

    /// The body, its encoding and its entity tag, which differs between the encodings (RFC 9110 section 8.8.3.3).
    fn representation(&self, is_gzip_accepted: bool) -> (Bytes, Option<HeaderValue>, String) {
        match &self.compressed {
            Some(body) if is_gzip_accepted => {
                (body.clone(), Some(HeaderValue::from_static("gzip")), format!("\"{}-gzip\"", self.version))
            }
            _ => (self.document.clone(), None, format!("\"{}\"", self.version)),
        }
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

fn compress(document: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(document)?;
    Ok(encoder.finish()?.into())
}

/// Whether the client has the representation with this entity tag (RFC 9110 section 13.1.2).
fn has_representation(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
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
    let (body, encoding, tag) = LIVE_PAGE.representation(accepts_gzip(&headers));
    let mut response;
    if has_representation(&headers, &tag) {
        response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        response = Response::new(Body::from(body));
        if let Some(encoding) = encoding {
            response.headers_mut().insert(header::CONTENT_ENCODING, encoding);
        }
    }
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    let mut set = |name: HeaderName, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_TYPE, CONTENT_TYPE);
    set(header::CACHE_CONTROL, CACHE_CONTROL);
    set(header::VARY, "accept-encoding");
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
    fn compressed_document_is_the_same_and_has_its_own_tag() {
        let (plain, none, tag) = LIVE_PAGE.representation(false);
        let (compressed, encoding, gzip_tag) = LIVE_PAGE.representation(true);
        assert_eq!((none, encoding), (None, Some(HeaderValue::from_static("gzip"))));
        let mut unpacked = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&compressed[..]), &mut unpacked)
            .unwrap();
        assert_eq!(unpacked, plain);
        assert!(compressed.len() < plain.len() / 2, "{} of {}", compressed.len(), plain.len());
        for (known, of_plain, of_compressed) in [
            (tag.clone(), true, false),
            (gzip_tag.clone(), false, true),
            (format!("\"other\", W/{tag}"), true, false),
            ("*".to_owned(), true, true),
            ("\"other\"".to_owned(), false, false),
        ] {
            let headers =
                HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_str(&known).unwrap())]);
            let found = (has_representation(&headers, &tag), has_representation(&headers, &gzip_tag));
            assert_eq!(found, (of_plain, of_compressed), "{known}");
        }
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
