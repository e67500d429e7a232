//! Reading a request's body: a JSON object, and its fields one by one.

use std::error::Error;
use std::io;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::error::ApiError;
use crate::daemon::RequestKey;
use crate::http::framing::framer::BODY_TIMEOUT;

/// How many values a body may have, nested ones included: an object with one field costs half a kilobyte of memory, and
/// without a limit a body of 16 MiB cost 1 GiB (measured).
const MAX_JSON_VALUES: usize = 65_536;

/// How many characters the word for a request that may be repeated may have.
pub(super) const MAX_KEY_CHARS: usize = 200;

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
    if word.is_empty() || word.len() > MAX_KEY_CHARS || words.next().is_some() {
        return Err(ApiError::bad_request(format!(
            "The header Idempotency-Key must be there once, with 1 to {MAX_KEY_CHARS} visible ASCII characters."
        )));
    }
    let digest = |text: String| {
        let digest = Sha256::new().chain_update(route).chain_update([0]).chain_update(text);
        format!("{:x}", digest.finalize())
    };
    Ok(Some(RequestKey {
        key: word.to_owned(),
        digest: digest(body.canonical()),
        earlier_digest: digest(body.canonical_at_first_depth()),
    }))
}

/// Whether a body comes in an encoding, such as gzip; none is decoded here.
pub(super) fn is_encoded(headers: &HeaderMap, body: &Body) -> bool {
    let encodings = headers.get_all(header::CONTENT_ENCODING).into_iter();
    let is_identity =
        |name: &[u8]| name.trim_ascii().is_empty() || name.trim_ascii().eq_ignore_ascii_case(b"identity");
    let mut names = encodings.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    !body.is_end_stream() && !names.all(is_identity)
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
        // Editors and shells of Windows put it before a text; RFC 8259 section 8.1 lets a reader pass over it.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        if bytes.trim_ascii().is_empty() {
            return Ok(Self(Map::new()));
        }
        let wrong = |error| ApiError::bad_request(format!("Request body must be valid JSON: {error}."));
        if values(bytes) > MAX_JSON_VALUES {
            // What is no JSON at all is told so first.
            serde_json::from_slice::<IgnoredAny>(bytes).map_err(wrong)?;
            return Err(ApiError::bad_request(format!(
                "The request body has more than {MAX_JSON_VALUES} values, counting those within others."
            )));
        }
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(ApiError::bad_request("Request body must be a JSON object.")),
            Err(error) => Err(wrong(error)),
        }
    }

    /// The fields as a text that is the same for equal fields, in whatever order they and those within them came.
    fn canonical(&self) -> String {
        let mut text = String::new();
        for (name, value) in sorted(&self.0) {
            text.push_str(&format!("{name:?}:"));
            write_canonical(value, &mut text);
            text.push('\n');
        }
        text
    }

    /// [`Fields::canonical`] as an earlier version had it: fields within fields stand in the order in which they came.
    fn canonical_at_first_depth(&self) -> String {
        sorted(&self.0).into_iter().map(|(name, value)| format!("{name:?}:{value}\n")).collect()
    }

    /// Takes a path out, to the byte: a name may begin or end with white space. One of nothing else is absent.
    pub(super) fn path(&mut self, name: &str) -> Option<Value> {
        let is_there = self.has(name);
        self.0.shift_remove(name).filter(|_| is_there)
    }

    /// Takes a field out, whatever it is; strings are trimmed, and an empty one is absent.
    pub(super) fn any(&mut self, name: &str) -> Option<Value> {
        match self.0.shift_remove(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => trimmed(&text).map(Value::String),
            Some(value) => Some(value),
        }
    }

    /// The names of the fields that were not taken out, and hold something.
    pub(super) fn left(&self) -> Vec<String> {
        self.0.keys().filter(|name| self.has(name)).cloned().collect()
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

/// The fields by name.
fn sorted(fields: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut fields: Vec<_> = fields.iter().collect();
    fields.sort_unstable_by_key(|(name, _)| *name);
    fields
}

/// Writes a value with the fields of each object by name.
fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            text.push('{');
            for (place, (name, value)) in sorted(fields).into_iter().enumerate() {
                text.push_str(if place > 0 { "," } else { "" });
                text.push_str(&format!("{}:", Value::from(name.as_str())));
                write_canonical(value, text);
            }
            text.push('}');
        }
        Value::Array(values) => {
            text.push('[');
            for (place, value) in values.iter().enumerate() {
                text.push_str(if place > 0 { "," } else { "" });
                write_canonical(value, text);
            }
            text.push(']');
        }
        _ => text.push_str(&value.to_string()),
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
        Some(io::ErrorKind::TimedOut) => ApiError::too_slow("body", BODY_TIMEOUT),
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
    fn equal_bodies_are_equal_at_every_depth() {
        let canonical = |text: &str| Fields::parse(text.as_bytes()).unwrap().canonical();
        let one = canonical(r#"{"a":[{"x":1,"y":{"p":"q","r":null}}],"b":2}"#);
        assert_eq!(one, canonical(r#" {"b": 2, "a": [{"y": {"r": null, "p": "q"}, "x": 1}]}"#));
        for other in [
            r#"{"a":[{"x":1,"y":{"p":"q"}}],"b":2}"#,
            r#"{"a":[{"x":1,"y":{"p":"q","r":null}}],"b":2.0}"#,
            r#"{"a":[{"x":"1","y":{"p":"q","r":null}}],"b":2}"#,
            r#"{"a":[{"x":1},{"y":{"p":"q","r":null}}],"b":2}"#,
        ] {
            assert_ne!(one, canonical(other), "{other}");
        }
        // Fields that hold no objects have the digest that an earlier version remembers.
        let flat = Fields::parse(br#"{"b":[1,"x"],"a":"\u00e9\n"}"#).unwrap();
        assert_eq!(flat.canonical(), flat.canonical_at_first_depth());
    }

    #[test]
    fn a_byte_order_mark_is_passed_over() {
        let fields = Fields::parse(b"\xef\xbb\xbf{\"a\": 1}").unwrap();
        assert_eq!(fields.canonical(), "\"a\":1\n");
        assert!(Fields::parse(b"\xef\xbb\xbf").unwrap().0.is_empty());
        assert!(Fields::parse(b"{\xef\xbb\xbf}").is_err());
    }

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
        let many = format!("[{}1]", "1,".repeat(MAX_JSON_VALUES));
        assert!(Fields::parse(many.as_bytes()).unwrap_err().message().contains("65536 values"));
    }
}
