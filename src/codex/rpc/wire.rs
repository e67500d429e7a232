//! Encoding and decoding of one message.
//!
//! The protocol is JSON-RPC without the `jsonrpc` field. Both sides send requests; IDs are integers or strings (measured on
//! codex-cli 0.169.0).
//! Decoding is lenient: unknown methods, fields and values pass through.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// An ID chosen by the app-server; it is sent back unchanged.
pub type RpcId = Box<RawValue>;

/// The error of a response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RpcError {
    /// −32600 for nearly everything, −32001 for "overloaded" (measured).
    pub code: i64,
    /// The only thing that distinguishes most errors.
    pub message: String,
    /// More about it, in Codex's form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<serde_json::Value>>,
}

/// One decoded message, which borrows from its line.
#[derive(Debug)]
pub enum Message<'a> {
    /// The response to one of our calls.
    Response {
        /// The ID of the call.
        id: u64,
        /// The result or the error.
        outcome: Result<&'a RawValue, RpcError>,
    },
    /// A request of the app-server.
    Request {
        /// Its ID, for the response.
        id: &'a RawValue,
        /// Its method.
        method: Cow<'a, str>,
        /// Its parameters.
        params: Option<&'a RawValue>,
    },
    /// A notification.
    Notification {
        /// Its method.
        method: Cow<'a, str>,
        /// Its parameters.
        params: Option<&'a RawValue>,
    },
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Text<'a>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<RpcError>,
}

/// A text that is borrowed unless it has escapes; serde does not borrow in an `Option<Cow<str>>`.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A field that is present, even when it is `null`.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(value: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(value).map(Some)
}

/// Decodes one line; the error describes the problem without quoting the line.
pub fn decode(line: &[u8]) -> Result<Message<'_>, String> {
    // Checked once: from bytes, serde_json would check each text by itself.
    let line = std::str::from_utf8(line).map_err(|error| error.to_string())?;
    let envelope: Envelope<'_> = serde_json::from_str(line).map_err(|error| error.to_string())?;
    match envelope {
        Envelope { method: Some(Text(method)), id: Some(id), params, .. } => {
            Ok(Message::Request { id, method, params })
        }
        Envelope { method: Some(Text(method)), id: None, params, .. } => {
            Ok(Message::Notification { method, params })
        }
        Envelope { id: Some(id), result, error, .. } => {
            let id = id.get().parse().map_err(|_| "it answers a call that was never made".to_owned())?;
            match (result, error) {
                (_, Some(error)) => Ok(Message::Response { id, outcome: Err(error) }),
                (Some(result), None) => Ok(Message::Response { id, outcome: Ok(result) }),
                (None, None) => Err("it answers with neither a result nor an error".to_owned()),
            }
        }
        Envelope { id: None, .. } => Err("it has neither a method nor an id".to_owned()),
    }
}

/// A call as one line without newline.
pub fn call(id: u64, method: &str, params: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Call<'a, P> {
        id: u64,
        method: &'a str,
        params: &'a P,
    }
    serde_json::to_vec(&Call { id, method, params })
}

/// A notification without parameters, as one line without newline.
pub fn notification(method: &str) -> Vec<u8> {
    serde_json::json!({ "method": method }).to_string().into_bytes()
}

/// The response to a request of the app-server, as one line without newline.
pub fn response(id: &RawValue, result: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Response<'a, R> {
        id: &'a RawValue,
        result: &'a R,
    }
    serde_json::to_vec(&Response { id, result })
}

/// An error response to a request of the app-server, as one line without newline.
pub fn error_response(id: &RawValue, error: &RpcError) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct ErrorResponse<'a> {
        id: &'a RawValue,
        error: &'a RpcError,
    }
    serde_json::to_vec(&ErrorResponse { id, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_recognizes_responses_errors_requests_and_notifications() {
        let Ok(Message::Response { id: 7, outcome: Ok(result) }) = decode(br#"{"id":7,"result":{"a":1}}"#)
        else {
            panic!("a response");
        };
        assert_eq!(result.get(), r#"{"a":1}"#);
        let Ok(Message::Response { id: 7, outcome: Ok(result) }) = decode(br#"{"id":7,"result":null}"#)
        else {
            panic!("a response with a null result");
        };
        assert_eq!(result.get(), "null");
        let line = br#"{"error":{"code":-32600,"message":"no","data":{}},"id":8}"#;
        let Ok(Message::Response { id: 8, outcome: Err(error) }) = decode(line) else { panic!("an error") };
        let data = Some(Box::new(serde_json::json!({})));
        assert_eq!(error, RpcError { code: -32600, message: "no".to_owned(), data });
        let line = br#"{"method":"item/tool/call","id":"x-1","params":{}}"#;
        let Ok(Message::Request { id, method, .. }) = decode(line) else { panic!("a request") };
        assert_eq!((id.get(), &*method), ("\"x-1\"", "item/tool/call"));
        let line = br#"{"method":"turn/started","params":{"x":[1]},"emittedAtMs":5,"new":true}"#;
        let Ok(Message::Notification { method, params: Some(params) }) = decode(line) else {
            panic!("a notification");
        };
        assert_eq!((&*method, params.get()), ("turn/started", r#"{"x":[1]}"#));
    }

    #[test]
    fn invalid_messages_are_errors_and_never_panics() {
        let deep = "[".repeat(100_000);
        for line in [
            "",
            "x",
            "[1,2]",
            "{}",
            "7",
            "null",
            "\"a\"",
            "{\"id\":1}",
            "{\"id\":-1,\"result\":1}",
            "{\"id\":\"s\",\"result\":1}",
            "{\"method\":5}",
            "{\"id\":1,\"error\":\"text\"}",
            "{\"id\":1,",
            &deep,
        ] {
            assert!(decode(line.as_bytes()).is_err(), "{line:.40}");
        }
        assert!(decode(b"{\"method\":\"\xff\"}").is_err());
    }

    #[test]
    fn call_is_encoded_as_one_line() {
        let line = call(3, "turn/start", &serde_json::json!({"text": "a\nb"})).unwrap();
        assert_eq!(line, br#"{"id":3,"method":"turn/start","params":{"text":"a\nb"}}"#);
    }
}
