//! The origins of web pages, as browsers write them in the `Origin` header (RFC 6454, section 6.2).

/// Parses an origin. One that browsers write in another way would never match; it is rejected with the way they write it.
pub(super) fn parse_origin(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.contains('*') || text.eq_ignore_ascii_case("null") {
        return Err(format!(
            "{text:?} would allow every web page; list each origin, such as http://localhost:5173."
        ));
    }
    let wrong = || format!("{text:?} is not an origin; use the form http://localhost:5173, without a path.");
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
        false => Err(format!("browsers write {text:?} differently; use {usual}.")),
    }
}

/// Parses a name of this daemon for its clients, with or without a port, into lower case.
pub(super) fn parse_host(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.contains('*') {
        return Err(format!("{text:?} would allow every name; list each name, such as codexd.example.org."));
    }
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (text, None),
    };
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_name = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
    };
    match is_name && port.is_none_or(|port| port.parse::<u16>().is_ok()) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err(format!(
            "{text:?} is not the name of a host; use the form codexd.example.org or localhost:9999, without http://."
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_host_accepts_names_with_and_without_port() {
        for (text, host) in [
            ("codexd.example.org", "codexd.example.org"),
            (" Mac.tail1234.ts.net ", "mac.tail1234.ts.net"),
            ("localhost:9999", "localhost:9999"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]:80", "[::1]:80"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(parse_host(text), Ok(host.to_owned()), "{text}");
        }
        for text in [
            "",
            ":80",
            "http://a",
            "a/b",
            "a b",
            "a:",
            "a:x",
            "a:70000",
            "::1",
            "[a]",
            "u@a",
            "*.example.org",
        ] {
            assert!(parse_host(text).is_err(), "{text}");
        }
    }

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
            assert_eq!(parse_origin(text), Ok(text.to_owned()));
        }
    }

    #[test]
    fn parse_origin_rejects_other_forms_with_browser_form() {
        for text in ["*", "http://*", "null", "https://*.example.org"] {
            let refusal = parse_origin(text).unwrap_err();
            assert!(refusal.starts_with(&format!("{text:?} would allow every web page;")), "{refusal}");
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
            let refusal = parse_origin(text).unwrap_err();
            assert!(refusal.starts_with(&format!("{text:?} is not an origin;")), "{refusal}");
        }
        for (text, usual) in [
            ("http://localhost:5173/", "http://localhost:5173"),
            ("HTTP://localhost", "http://localhost"),
            ("http://Example.org", "http://example.org"),
            ("http://a:80", "http://a"),
            ("https://a:443/", "https://a"),
        ] {
            let refusal = format!("browsers write {text:?} differently; use {usual}.");
            assert_eq!(parse_origin(text), Err(refusal));
        }
    }
}
