//! Reads a request body: limits its size, and parses the JSON object and its fields. Also computes the idempotency key of a
//! request.
//!
//! Called by the handlers of `routes`. Invariant: a body is never buffered beyond the configured limit, and never has
//! more than [`MAX_JSON_VALUES`] values.

use std::error::Error;
use std::io;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;
use schemars::JsonSchema;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::error::ApiError;
use super::parse;
use crate::daemon::RequestKey;
use crate::http::request_body::BODY_TIMEOUT;

/// The maximum number of values in a body, including nested ones: an object with one field takes half a kilobyte of
/// memory, and without a limit a body of 16 MiB took 1 GiB (measured).
const MAX_JSON_VALUES: usize = 65_536;

/// The maximum length of an idempotency key, in characters.
pub(super) const MAX_KEY_CHARS: usize = 200;

/// The idempotency key of a request, with a digest of the request.
///
/// `route` distinguishes equal bodies of different routes.
pub(super) fn request_key(
    headers: &HeaderMap,
    route: &str,
    body: &Fields,
) -> Result<Option<RequestKey>, ApiError> {
    let mut keys = headers.get_all("idempotency-key").into_iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let key = key.to_str().map(str::trim).unwrap_or_default();
    if key.is_empty() || key.len() > MAX_KEY_CHARS || keys.next().is_some() {
        return Err(ApiError::bad_request(format!(
            "The request must have exactly one Idempotency-Key header, with 1 to {MAX_KEY_CHARS} visible ASCII characters."
        )));
    }
    let digest = |text: String| {
        let digest = Sha256::new().chain_update(route).chain_update([0]).chain_update(text);
        format!("{:x}", digest.finalize())
    };
    Ok(Some(RequestKey {
        key: key.to_owned(),
        digest: digest(body.canonical()),
        earlier_digest: digest(body.canonical_at_first_depth()),
    }))
}

/// Whether the body has a Content-Encoding such as gzip; codexd decodes none.
pub(super) fn is_encoded(headers: &HeaderMap, body: &Body) -> bool {
    let encodings = headers.get_all(header::CONTENT_ENCODING).into_iter();
    let is_identity =
        |name: &[u8]| name.trim_ascii().is_empty() || name.trim_ascii().eq_ignore_ascii_case(b"identity");
    let mut names = encodings.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    !body.is_end_stream() && !names.all(is_identity)
}

/// The field that holds a path: a name may start or end with white space.
const PATH_FIELD: &str = "cwd";

/// The fields of a body, as the client sent them.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl From<Map<String, Value>> for Fields {
    fn from(fields: Map<String, Value>) -> Self {
        Self(fields)
    }
}

impl Fields {
    /// Reads a body of at most `limit` bytes; an empty body counts as an empty object.
    pub(super) async fn read(mut body: Body, limit: usize) -> Result<Self, ApiError> {
        // A body that declares its length is rejected before it is read.
        if body.size_hint().lower() > limit as u64 {
            return Err(ApiError::payload_too_large(limit).closing_connection());
        }
        // Allocated at once: a buffer that grows exists twice while it is copied, and unused capacity takes no memory.
        let length = usize::try_from(body.size_hint().lower()).unwrap_or(limit);
        let mut bytes = Vec::with_capacity(length.min(limit));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(incomplete_body)?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                return Err(ApiError::payload_too_large(limit).closing_connection());
            }
            bytes.extend_from_slice(&data);
        }
        Self::from_json(&bytes)
    }

    fn from_json(bytes: &[u8]) -> Result<Self, ApiError> {
        // Windows editors and shells write a byte order mark; RFC 8259 section 8.1 allows a parser to ignore it.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        if bytes.trim_ascii().is_empty() {
            return Ok(Self(Map::new()));
        }
        let invalid_json =
            |error| ApiError::bad_request(format!("Request body must be valid JSON: {error}."));
        if count_values(bytes) > MAX_JSON_VALUES {
            // Invalid JSON is reported first.
            serde_json::from_slice::<IgnoredAny>(bytes).map_err(invalid_json)?;
            return Err(ApiError::bad_request(format!(
                "The request body has more than {MAX_JSON_VALUES} values, including nested ones."
            )));
        }
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(ApiError::bad_request("Request body must be a JSON object.")),
            Err(error) => Err(invalid_json(error)),
        }
    }

    /// The fields as text, independent of the order of fields at every depth.
    fn canonical(&self) -> String {
        let mut text = String::new();
        for (name, value) in sorted(&self.0) {
            text.push_str(&format!("{name:?}:"));
            write_canonical(value, &mut text);
            text.push('\n');
        }
        text
    }

    /// [`Fields::canonical`] as an earlier version computed it: nested fields keep their order.
    fn canonical_at_first_depth(&self) -> String {
        sorted(&self.0).into_iter().map(|(name, value)| format!("{name:?}:{value}\n")).collect()
    }

    /// Parses the body; also returns the names of the fields that it does not have, which are ignored.
    ///
    /// `null` and blank strings count as absent; other strings are trimmed, except paths.
    pub(super) fn parse<T: DeserializeOwned + JsonSchema + 'static>(
        mut self,
    ) -> Result<(T, Vec<String>), ApiError> {
        self.0.retain(|name, value| match value {
            Value::Null => false,
            Value::String(text) if text.trim().is_empty() => false,
            Value::String(text) if name != PATH_FIELD && text.trim().len() < text.len() => {
                *text = text.trim().to_owned();
                true
            }
            _ => true,
        });
        parse::object(self.0).map_err(ApiError::bad_request)
    }
}

/// The fields, sorted by name.
fn sorted(fields: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut fields: Vec<_> = fields.iter().collect();
    fields.sort_unstable_by_key(|(name, _)| *name);
    fields
}

/// Writes a value with the fields of every object sorted by name.
fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            text.push('{');
            for (index, (name, value)) in sorted(fields).into_iter().enumerate() {
                text.push_str(if index > 0 { "," } else { "" });
                text.push_str(&format!("{}:", Value::from(name.as_str())));
                write_canonical(value, text);
            }
            text.push('}');
        }
        Value::Array(values) => {
            text.push('[');
            for (index, value) in values.iter().enumerate() {
                text.push_str(if index > 0 { "," } else { "" });
                write_canonical(value, text);
            }
            text.push(']');
        }
        _ => text.push_str(&value.to_string()),
    }
}

/// The approximate number of values in a JSON text, never too few, without parsing it.
fn count_values(text: &[u8]) -> usize {
    let (mut count, mut is_text) = (1, false);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            // An escaped character does not end the string.
            b'\\' if is_text => drop(bytes.next()),
            b'"' => is_text = !is_text,
            b',' | b'[' | b'{' if !is_text => count += 1,
            _ => {}
        }
    }
    count
}

/// The error for a body that ended early.
fn incomplete_body(error: axum::Error) -> ApiError {
    let kind = std::iter::successors(error.source(), |error| (*error).source())
        .find_map(|source| source.downcast_ref::<io::Error>())
        .map(io::Error::kind);
    // The rest would be parsed as the next request, so the connection is closed.
    let error = match kind {
        Some(io::ErrorKind::TimedOut) => ApiError::too_slow(BODY_TIMEOUT),
        Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => {
            ApiError::bad_request("The chunked encoding of the request body is invalid.")
        }
        _ => ApiError::bad_request("The request body is incomplete."),
    };
    error.closing_connection()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_body_ignores_field_order_at_every_depth() {
        let canonical = |text: &str| Fields::from_json(text.as_bytes()).unwrap().canonical();
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
        // Bodies without nested objects have the digest that earlier versions stored.
        let flat = Fields::from_json(br#"{"b":[1,"x"],"a":"\u00e9\n"}"#).unwrap();
        assert_eq!(flat.canonical(), flat.canonical_at_first_depth());
    }

    #[test]
    fn body_parser_skips_byte_order_mark() {
        let fields = Fields::from_json(b"\xef\xbb\xbf{\"a\": 1}").unwrap();
        assert_eq!(fields.canonical(), "\"a\":1\n");
        assert!(Fields::from_json(b"\xef\xbb\xbf").unwrap().0.is_empty());
        assert!(Fields::from_json(b"{\xef\xbb\xbf}").is_err());
    }

    #[test]
    fn value_count_ignores_string_contents() {
        for (text, least) in [
            ("1", 1),
            (r#""a,b[c{d\",[""#, 1),
            ("[1,2,3]", 4),
            (r#"{"a":{"b":[1,{"c":"\""}]}}"#, 6),
            (r#"{"a":"\\","b":2}"#, 3),
        ] {
            let count = count_values(text.as_bytes());
            assert!(count >= least && count <= least + 1, "{text}: {count}");
        }
        let many = format!("[{}1]", "1,".repeat(MAX_JSON_VALUES));
        assert!(Fields::from_json(many.as_bytes()).unwrap_err().message().contains("65536 values"));
    }
}
