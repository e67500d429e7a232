//! The origins of web pages, as browsers write them in the `Origin` header (RFC 6454, section 6.2).

/// Why an origin is rejected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// A wildcard, or `null`.
    #[error("{0:?} would allow every web page; list each origin, such as http://localhost:5173.")]
    Wildcard(String),
    /// Not of the form `scheme://host[:port]`.
    #[error("{0:?} is not an origin; use the form http://localhost:5173, without a path.")]
    NotAnOrigin(String),
    /// An origin that browsers write in another way, so that it would never match.
    #[error("browsers write {0:?} differently; use {1}.")]
    NotNormalized(String, String),
}

/// Parses an origin. One that browsers write in another way is rejected with the way they write it.
pub(super) fn parse_origin(text: &str) -> Result<String, OriginError> {
    let text = text.trim();
    if text.contains('*') || text.eq_ignore_ascii_case("null") {
        return Err(OriginError::Wildcard(text.to_owned()));
    }
    let wrong = || OriginError::NotAnOrigin(text.to_owned());
    let (scheme, authority) = text.split_once("://").ok_or_else(wrong)?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    let is_authority = !authority.is_empty()
        && authority
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':' | '[' | ']' | '/'));
    let bare = authority.trim_end_matches('/');
    if !is_scheme || !is_authority || bare.is_empty() || bare.contains('/') {
        return Err(wrong());
    }
    let default_port = match scheme.to_ascii_lowercase().as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => "/",
    };
    let usual =
        format!("{scheme}://{}", bare.strip_suffix(default_port).unwrap_or(bare)).to_ascii_lowercase();
    match usual == text {
        true => Ok(usual),
        false => Err(OriginError::NotNormalized(text.to_owned(), usual)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_origin_accepts_browser_form() {
        for text in [
            "http://localhost:5173",
            "https://example.org",
            "http://[::1]:8080",
            "https://127.0.0.1:8443",
            "vscode-webview://0abc",
            "tauri://localhost",
        ] {
            assert_eq!(parse_origin(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn parse_origin_rejects_other_forms_with_browser_form() {
        for text in ["*", "http://*", "null", "https://*.example.org"] {
            assert_eq!(parse_origin(text), Err(OriginError::Wildcard(text.to_owned())));
        }
        for text in [
            "",
            "localhost:5173",
            "http://",
            "http:///",
            "http://a/b",
            "http://a?b",
            "http://u@a",
            "://a",
            "1http://a",
        ] {
            assert_eq!(parse_origin(text), Err(OriginError::NotAnOrigin(text.to_owned())));
        }
        for (text, usual) in [
            ("http://localhost:5173/", "http://localhost:5173"),
            ("HTTP://localhost", "http://localhost"),
            ("http://Example.org", "http://example.org"),
            ("http://a:80", "http://a"),
            ("https://a:443/", "https://a"),
        ] {
            assert_eq!(
                parse_origin(text),
                Err(OriginError::NotNormalized(text.to_owned(), usual.to_owned()))
            );
        }
    }
}
