//! The bearer token that requests need when `--auth-token-file` is set.
//!
//! [`TokenFile`] owns the digest of the token and reads the file again when it has changed. `RequestGuard` calls it for
//! every request; the CLI uses [`read_token`] and [`new_token`].
//!
//! Invariants: an unusable file admits no request, and the token itself is never stored or compared, only its digest.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use crate::blocking::{Pool, Unanswered};
use crate::storage::{Stamp, read_secret};

/// The minimum length of a token, in characters: 128 bits in hexadecimal.
const MIN_TOKEN_CHARS: usize = 32;
/// The maximum length of a token, in characters.
const MAX_TOKEN_CHARS: usize = 512;
/// The number of random bytes in a token of [`new_token`].
const TOKEN_RANDOM_BYTES: usize = 32;
/// The WebSocket subprotocol of codexd. A browser that offers subprotocols must get one of them back.
pub(crate) const SUBPROTOCOL: &str = "codexd.v1";
/// The prefix of the subprotocol that carries the token where a browser can set no header; it is never sent back.
const TOKEN_SUBPROTOCOL: &str = "codexd.bearer.";

/// How long reading the token file may take before a request is rejected.
const FILE_TIMEOUT: Duration = Duration::from_secs(5);
static POOL: Pool = Pool::new("token", 2, 6);

/// Tokens are compared as digests in constant time, so the time reveals nothing about the right token.
pub(crate) type Digest = [u8; 32];

/// The token file, read again when it has changed.
#[derive(Debug)]
pub struct TokenFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    loaded: Mutex<LoadedToken>,
}

#[derive(Debug)]
struct LoadedToken {
    /// The stamp of the file when it was read; `None` when it must be read again.
    stamp: Option<Stamp>,
    /// `None` while the file is unusable.
    digest: Option<Digest>,
    /// Why it is unusable, as logged.
    problem: Option<String>,
}

impl TokenFile {
    /// Reads the file; the error is a sentence. Blocks.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (stamp, digest) = load(path)?;
        let loaded = Mutex::new(LoadedToken { stamp, digest: Some(digest), problem: None });
        Ok(Self(Arc::new(Inner { path: path.to_owned(), loaded })))
    }

    /// Whether `presented` is the digest of the current token; an error when the file cannot be read in time.
    pub(crate) async fn matches(&self, presented: &Digest) -> Result<bool, Unanswered> {
        let (shared, presented) = (Arc::clone(&self.0), *presented);
        POOL.run(FILE_TIMEOUT, move || shared.matches(&presented)).await
    }
}

impl Inner {
    /// [`TokenFile::matches`]; blocks.
    fn matches(&self, presented: &Digest) -> bool {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Stamp::of(&self.path).ok();
        if now.is_none() || loaded.stamp != now {
            self.reload(&mut loaded);
        }
        loaded.digest.is_some_and(|digest| digest.ct_eq(presented).into())
    }

    /// Reads the file again. An unusable file admits no request: the token may have been removed because it leaked.
    fn reload(&self, loaded: &mut LoadedToken) {
        match load(&self.path) {
            Ok((stamp, digest)) => {
                if loaded.digest != Some(digest) {
                    tracing::info!(path = %self.path.display(), "auth token reloaded");
                }
                *loaded = LoadedToken { stamp, digest: Some(digest), problem: None };
            }
            Err(error) => {
                let problem = error.to_string();
                if loaded.problem.as_ref() != Some(&problem) {
                    tracing::error!(%error, "failed to read the token file; every request that needs the token is refused");
                }
                *loaded = LoadedToken { stamp: None, digest: None, problem: Some(problem) };
            }
        }
    }
}

/// Reads the token of a file, for a client.
pub fn read_token(path: &Path) -> io::Result<String> {
    Ok(parse(path)?.0)
}

/// A new token: 256 random bits in hexadecimal.
pub fn new_token() -> io::Result<String> {
    let mut random = [0; TOKEN_RANDOM_BYTES];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn load(path: &Path) -> io::Result<(Option<Stamp>, Digest)> {
    let (token, stamp) = parse(path)?;
    // File timestamps are coarse: a file changed within the last second may change again without a new timestamp.
    let is_settled = jiff::Timestamp::now().as_second() - stamp.changed_at() > 1;
    Ok((is_settled.then_some(stamp), digest(token.as_bytes())))
}

#[expect(
    clippy::disallowed_methods,
    reason = "it is read before anything is served, on a thread of the pool, or by a command"
)]
fn parse(path: &Path) -> io::Result<(String, Stamp)> {
    let (content, stamp) = read_secret(path, 4096)?;
    let invalid = |problem: &str| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} {problem}; codexd token makes one", path.display()),
        )
    };
    let token = content.trim_ascii();
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+".contains(byte);
    if !token.iter().all(is_allowed) {
        return Err(invalid("contains characters other than letters, digits and - . _ ~ +"));
    }
    if token.len() < MIN_TOKEN_CHARS || token.len() > MAX_TOKEN_CHARS {
        return Err(invalid(&format!(
            "contains no token of {MIN_TOKEN_CHARS} to {MAX_TOKEN_CHARS} characters"
        )));
    }
    let token = String::from_utf8(token.to_vec()).map_err(|_| invalid("contains no text"))?;
    Ok((token, stamp))
}

fn digest(token: &[u8]) -> Digest {
    Sha256::digest(token).into()
}

/// The digest of the token in a request: from its only `Authorization: Bearer` header or, for a WebSocket handshake
/// without `Authorization`, from a subprotocol beside [`SUBPROTOCOL`].
pub(crate) fn presented_token(headers: &HeaderMap, is_upgrade: bool) -> Option<Digest> {
    let mut authorizations = headers.get_all(header::AUTHORIZATION).into_iter();
    if let Some(authorization) = authorizations.next() {
        let (scheme, token) = authorization.to_str().ok()?.split_once(' ')?;
        let is_valid = authorizations.next().is_none() && scheme.eq_ignore_ascii_case("bearer");
        return is_valid.then(|| digest(token.trim_matches(' ').as_bytes()));
    }
    let offers_codexd = is_upgrade && subprotocols(headers).any(|offered| offered == SUBPROTOCOL);
    let mut tokens = subprotocols(headers).filter_map(|offered| offered.strip_prefix(TOKEN_SUBPROTOCOL));
    let token = tokens.next().filter(|_| offers_codexd)?;
    tokens.next().is_none().then(|| digest(token.as_bytes()))
}

/// The subprotocols that a handshake offers.
pub(crate) fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter();
    offered.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use axum::http::HeaderValue;

    use super::*;

    const ONE: &str = "0123456789abcdef0123456789abcdef";
    const TWO: &str = "0123456789abcdef0123456789abcdeF";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn token_file_reloads_after_every_change() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let write = |text: &str| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        };
        let matches = |file: &TokenFile, token: &str| file.0.matches(&digest(token.as_bytes()));
        write(&format!("\n {ONE}\n"));
        let file = TokenFile::open(&path).unwrap();
        assert!(matches(&file, ONE) && !matches(&file, TWO) && !matches(&file, ""));
        // Within the same timestamp and with the same length.
        write(&format!("\n {TWO}\n"));
        assert!(matches(&file, TWO) && !matches(&file, ONE));
        for bad in ["", "too-short", &format!("{ONE} {ONE}"), &"a".repeat(MAX_TOKEN_CHARS + 1)] {
            write(bad);
            assert!(!matches(&file, TWO) && !matches(&file, bad), "{bad}");
            assert!(TokenFile::open(&path).is_err(), "{bad}");
        }
        write(TWO);
        assert!(matches(&file, TWO));
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(!matches(&file, TWO));
        fs::remove_file(&path).unwrap();
        assert!(!matches(&file, TWO));
        write(ONE);
        assert!(matches(&file, ONE));
        assert_eq!(read_token(&path).unwrap(), ONE);
    }

    #[test]
    fn token_is_accepted_from_header_or_subprotocol_once() {
        let right = Some(digest(ONE.as_bytes()));
        let bearer = format!("Bearer {ONE}");
        let offer = format!("codexd.v1, codexd.bearer.{ONE}");
        let authorization = |value: &str| presented_token(&headers(&[("authorization", value)]), false);
        assert_eq!(authorization(&bearer), right);
        assert_eq!(authorization(&format!("bEARER  {ONE}")), right);
        for wrong in
            [format!("Basic {ONE}"), ONE.to_owned(), "Bearer".to_owned(), format!("Bearer {ONE}, {ONE}")]
        {
            assert_ne!(authorization(&wrong), right, "{wrong}");
        }
        assert_eq!(
            presented_token(&headers(&[("authorization", &bearer), ("authorization", &bearer)]), false),
            None
        );
        let protocol = |value: &str, is_upgrade| {
            presented_token(&headers(&[("sec-websocket-protocol", value)]), is_upgrade)
        };
        assert_eq!(protocol(&offer, true), right);
        assert_eq!(protocol(&offer, false), None);
        assert_eq!(protocol(&format!("codexd.bearer.{ONE}"), true), None);
        assert_eq!(protocol(&format!("{offer}, codexd.bearer.{ONE}"), true), None);
        assert_eq!(
            presented_token(
                &headers(&[("authorization", "Basic a"), ("sec-websocket-protocol", &offer)]),
                true
            ),
            None
        );
    }

    #[test]
    fn new_tokens_are_long_and_unique() {
        let (one, other) = (new_token().unwrap(), new_token().unwrap());
        assert_eq!((one.len(), other.len()), (64, 64));
        assert_ne!(one, other);
    }
}
