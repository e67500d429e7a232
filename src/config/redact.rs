//! Hides the secrets of addresses.

/// The replacement of a secret.
const HIDDEN: &str = "***";

/// The address with its credentials, query and fragment replaced by `***`.
///
/// Error messages show text that only resembles an address, so this works on any text.
pub(super) fn without_secrets(address: &str) -> String {
    let (scheme, rest) = match address.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), address),
    };
    // A socket path has neither credentials nor a query.
    if scheme.eq_ignore_ascii_case("unix://") {
        return address.to_owned();
    }
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // A password may contain an unescaped slash or question mark; then the part before it is not a host.
    if tail.contains('@') {
        return format!("{scheme}{HIDDEN}");
    }
    let authority = match authority.rsplit_once('@') {
        Some((_, host)) => format!("{HIDDEN}@{host}"),
        None => authority.to_owned(),
    };
    let (path, secrets) = tail.split_at(tail.find(['?', '#']).unwrap_or(tail.len()));
    let tail = secrets.chars().next().map(|mark| format!("{mark}{HIDDEN}")).unwrap_or_default();
    format!("{scheme}{authority}{path}{tail}")
}

#[cfg(test)]
mod tests {
    use super::without_secrets;

    #[test]
    fn without_secrets_hides_credentials_queries_and_fragments() {
        for (address, shown) in [
            ("ws://host:1/path", "ws://host:1/path"),
            ("wss://user:secret@host/path", "wss://***@host/path"),
            ("wss://secret@host", "wss://***@host"),
            ("ws://user:sec@ret@host", "ws://***@host"),
            ("ws://host/path?token=secret", "ws://host/path?***"),
            ("ws://host?secret", "ws://host?***"),
            ("ws://host/path#secret", "ws://host/path#***"),
            ("ws://host/path#a?secret", "ws://host/path#***"),
            ("ws://user:sec/ret@host/path", "ws://***"),
            ("ws://user:sec?ret@host/path", "ws://***"),
            ("user:secret@host", "***@host"),
            ("ws:/user:secret@host?secret", "***"),
            ("http://ü?secret", "http://ü?***"),
            ("stdio://codex-app-server", "stdio://codex-app-server"),
            ("unix:///home/me@work/socket", "unix:///home/me@work/socket"),
        ] {
            assert_eq!(without_secrets(address), shown, "{address}");
        }
    }
}
