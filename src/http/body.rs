//! Reading a request's body: a JSON object, and its fields one by one.

use std::error::Error;
use std::io;

use axum::body::{Body, HttpBody};
use axum::http::HeaderMap;
use http_body_util::BodyExt;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::door::conversation::BODY_TIME;
use super::error::ApiError;
use crate::daemon::RequestKey;

/// How many values a body may have, nested ones included: an object with one field costs half a kilobyte of memory, and
/// without a limit a body of 16 MiB cost 1 GiB (measured).
const VALUES: usize = 65_536;

/// How many characters the word for a request that may be repeated may have.
pub(super) const KEY: usize = 200;

/// The word that makes a request one that may be repeated, with a digest of the request.
///
/// `route` keeps equal bodies of different routes apart.
pub(super) fn request_key(
    headers: &HeaderMap,
    route: &str,
    body: &Fields,
) -> Result<Option<RequestKey>, ApiError> {
    let mut words = headers.get_all("idempotency-key").into_iter();
    let Some(word) = words.next() else { return Ok(None) };
    let word = word.to_str().map(str::trim).unwrap_or_default();
    if word.is_empty() || word.len() > KEY || words.next().is_some() {
        return Err(ApiError::bad_request(format!(
            "The header Idempotency-Key must be there once, with 1 to {KEY} visible ASCII characters."
        )));
    }
    let digest = Sha256::new().chain_update(route).chain_update([0]).chain_update(body.canonical());
    Ok(Some(RequestKey { key: word.to_owned(), digest: format!("{:x}", digest.finalize()) }))
}

/// The fields of a request; unknown ones are ignored, and `null` is the same as absent.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl From<Map<String, Value>> for Fields {
    fn from(fields: Map<String, Value>) -> Self {
        Self(fields)
    }
}

impl Fields {
    /// Reads the body, of at most so many bytes; none at all counts as an object without fields.
    pub(super) async fn read(mut body: Body, limit: usize) -> Result<Self, ApiError> {
        // One that says so itself is not even begun.
        if body.size_hint().lower() > limit as u64 {
            return Err(ApiError::payload_too_large(limit).last());
        }
        // All at once, because a buffer that grows is there twice while it does; what is not filled costs no memory.
        let length = usize::try_from(body.size_hint().lower()).unwrap_or(limit);
        let mut bytes = Vec::with_capacity(length.min(limit));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(unreadable)?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                return Err(ApiError::payload_too_large(limit).last());
            }
            bytes.extend_from_slice(&data);
        }
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        if bytes.trim_ascii().is_empty() {
            return Ok(Self(Map::new()));
        }
        let wrong = |error| ApiError::bad_request(format!("Request body must be valid JSON: {error}."));
        if values(bytes) > VALUES {
            // What is no JSON at all is told so first.
            serde_json::from_slice::<IgnoredAny>(bytes).map_err(wrong)?;
            return Err(ApiError::bad_request(format!(
                "The request body has more than {VALUES} values, counting those within others."
            )));
        }
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(ApiError::bad_request("Request body must be a JSON object.")),
            Err(error) => Err(wrong(error)),
        }
    }

    /// The fields as a text that is the same for equal fields, in whatever order they came.
    fn canonical(&self) -> String {
        let mut fields: Vec<_> = self.0.iter().collect();
        fields.sort_by_key(|(name, _)| *name);
        fields.into_iter().map(|(name, value)| format!("{name:?}:{value}\n")).collect()
    }

    /// Takes a field out, whatever it is; strings are trimmed everywhere, and an empty one is absent.
    pub(super) fn any(&mut self, name: &str) -> Option<Value> {
        match self.0.remove(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => trimmed(&text).map(Value::String),
            Some(value) => Some(value),
        }
    }

    /// Whether a field is there, as [`Fields::any`] sees it.
    pub(super) fn has(&self, name: &str) -> bool {
        match self.0.get(name) {
            None | Some(Value::Null) => false,
            Some(Value::String(text)) => trimmed(text).is_some(),
            Some(_) => true,
        }
    }
}

/// How many values a text of JSON has, or a few more, without reading any of them.
fn values(text: &[u8]) -> usize {
    let (mut count, mut is_text) = (1, false);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            // Whatever it escapes does not end the text.
            b'\\' if is_text => drop(bytes.next()),
            b'"' => is_text = !is_text,
            b',' | b'[' | b'{' if !is_text => count += 1,
            _ => {}
        }
    }
    count
}

/// Why a body did not come to its end.
fn unreadable(error: axum::Error) -> ApiError {
    let kind = std::iter::successors(error.source(), |error| (*error).source())
        .find_map(|source| source.downcast_ref::<io::Error>())
        .map(io::Error::kind);
    // The rest of it would be taken for the next request.
    let refusal = match kind {
        Some(io::ErrorKind::TimedOut) => ApiError::too_slow("body", BODY_TIME),
        Some(io::ErrorKind::InvalidData) => {
            ApiError::bad_request("The body of the request is not made of chunks.")
        }
        _ => ApiError::bad_request("The body of the request ends before its end."),
    };
    refusal.last()
}

/// The text without white space around it; `None` when nothing is left.
pub(super) fn trimmed(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_and_what_stands_in_texts_is_not() {
        for (text, least) in [
            ("1", 1),
            (r#""a,b[c{d\",[""#, 1),
            ("[1,2,3]", 4),
            (r#"{"a":{"b":[1,{"c":"\""}]}}"#, 6),
            (r#"{"a":"\\","b":2}"#, 3),
        ] {
            let count = values(text.as_bytes());
            assert!(count >= least && count <= least + 1, "{text}: {count}");
        }
        let many = format!("[{}1]", "1,".repeat(VALUES));
        assert!(Fields::parse(many.as_bytes()).unwrap_err().message().contains("65536 values"));
    }
}
