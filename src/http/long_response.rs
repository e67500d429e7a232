//! A JSON response with long lists, whose elements are rendered while the client reads.
//!
//! Called by the handlers of responses without a bound. A client that requests one and reads nothing costs the elements that
//! it has not received, which are shared with the records, and some [`CHUNK_BYTES`] of text.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::stream;
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{Formatter, PrettyFormatter};

use super::response;

/// How much is rendered at once, in bytes.
const CHUNK_BYTES: usize = 16 * 1024;
/// How much is rendered first, in bytes; a response of less has a Content-Length.
pub(super) const FIRST_CHUNK_BYTES: usize = 64 * 1024;

/// A response in the making.
pub(super) struct LongResponse {
    status: StatusCode,
    /// The response with empty lists.
    text: Bytes,
    /// How much of it is in the parts.
    taken: usize,
    parts: VecDeque<Part>,
}

enum Part {
    Text(Bytes),
    List(List),
}

struct List {
    /// How deep its elements are nested.
    depth: usize,
    is_empty: bool,
    /// Renders the next element behind the text; `false` if there is none.
    render_next: RenderNext,
}

type RenderNext = Box<dyn FnMut(&mut Vec<u8>, usize) -> bool + Send>;

impl LongResponse {
    /// A response with this value, whose long lists are empty; they are added with [`LongResponse::with_list`], in
    /// their order.
    pub(super) fn new(status: StatusCode, data: impl Serialize) -> Self {
        let (status, text) = response::render(status, &response::Envelope::new(data));
        Self { status, text: text.into(), taken: 0, parts: VecDeque::new() }
    }

    /// Fills an empty list; `path` has the keys on the way to it.
    pub(super) fn with_list<T: Serialize>(
        mut self,
        path: &[&str],
        mut elements: impl Iterator<Item = T> + Send + 'static,
    ) -> Self {
        // An error response has no list.
        if let Some(at) = inside_of_list(&self.text, path) {
            self.parts.push_back(Part::Text(self.text.slice(self.taken..at)));
            self.taken = at;
            let render_next = move |text: &mut Vec<u8>, depth| {
                elements.next().map(|element| render_element(text, &element, depth)).is_some()
            };
            let (depth, is_empty) = (path.len() + 1, true);
            self.parts.push_back(Part::List(List { depth, is_empty, render_next: Box::new(render_next) }));
        }
        self
    }

    /// The response.
    pub(super) fn into_response(mut self) -> Response {
        self.parts.push_back(Part::Text(self.text.split_off(self.taken)));
        let (status, first) = (self.status, self.next_chunk(FIRST_CHUNK_BYTES).unwrap_or_default());
        let body = match self.parts.is_empty() {
            true => Body::from(first),
            false => {
                Body::from_stream(stream::iter(std::iter::once(first).chain(self).map(Ok::<_, Infallible>)))
            }
        };
        response::json_body(status, body)
    }

    fn next_chunk(&mut self, bytes: usize) -> Option<Bytes> {
        let mut chunk = Vec::new();
        while chunk.len() < bytes {
            match self.parts.front_mut() {
                None => break,
                Some(Part::Text(text)) => {
                    chunk.extend_from_slice(text);
                    self.parts.pop_front();
                }
                Some(Part::List(list)) => {
                    if !list.render_next(&mut chunk) {
                        self.parts.pop_front();
                    }
                }
            }
        }
        (!chunk.is_empty()).then(|| chunk.into())
    }
}

impl Iterator for LongResponse {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.next_chunk(CHUNK_BYTES)
    }
}

impl List {
    /// Renders the next element, or the end of the list; `false` after the end.
    fn render_next(&mut self, text: &mut Vec<u8>) -> bool {
        let start = text.len();
        if !self.is_empty {
            text.push(b',');
        }
        start_line(text, self.depth);
        if (self.render_next)(text, self.depth) {
            self.is_empty = false;
            return true;
        }
        text.truncate(start);
        if !self.is_empty {
            start_line(text, self.depth - 1);
        }
        false
    }
}

/// The place between the brackets of an empty list in indented JSON.
///
/// A text in JSON has no line breaks, so a line that begins with the indentation and the key is that of the key.
pub(super) fn inside_of_list(json: &[u8], path: &[&str]) -> Option<usize> {
    let mut at = 0;
    for (depth, key) in (1..).zip(path) {
        let mut line = Vec::new();
        start_line(&mut line, depth);
        line.extend_from_slice(format!("\"{key}\": ").as_bytes());
        at += memchr::memmem::find(json.get(at..)?, &line)? + line.len();
    }
    json.get(at..)?.starts_with(b"[]").then_some(at + 1)
}

/// Starts a line that is indented to this depth.
pub(super) fn start_line(text: &mut Vec<u8>, depth: usize) {
    text.push(b'\n');
    text.extend(std::iter::repeat_n(b' ', 2 * depth));
}

/// Renders a value that is nested to this depth.
pub(super) fn render_element(text: &mut Vec<u8>, value: &impl Serialize, depth: usize) {
    let mut formatter = PrettyFormatter::new();
    for _ in 0..depth {
        // It counts the depth; a sink takes everything.
        let _ = formatter.begin_array(&mut io::sink());
    }
    let start = text.len();
    if let Err(error) = value.serialize(&mut Serializer::with_formatter(&mut *text, formatter)) {
        tracing::error!(%error, "failed to serialize a part of a response");
        text.truncate(start);
        text.extend_from_slice(b"null");
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    use super::*;

    async fn text_of(response: Response) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().into()).unwrap()
    }

    #[tokio::test]
    async fn response_is_the_same_as_one_that_is_rendered_at_once() {
        let element = |number: usize| json!({ "a\n  \"list\": []": [number, {}, []], "list": [] });
        for (first, second) in [(0, 0), (1, 0), (0, 1), (2, 3), (5000, 1), (3, 5000)] {
            let view = |first: Vec<Value>, second: Vec<Value>| {
                json!({
                    "before": { "list": [1], "text": "\n    \"list\": []" },
                    "inner": { "list": first, "more": [] },
                    "list": second,
                    "after": 1,
                })
            };
            let (first, second): (Vec<_>, Vec<_>) =
                ((0..first).map(element).collect(), (0..second).map(element).collect());
            let whole = response::data(StatusCode::CREATED, view(first.clone(), second.clone()));
            let is_short = first.len() + second.len() < 10;
            let long = LongResponse::new(StatusCode::CREATED, view(Vec::new(), Vec::new()))
                .with_list(&["data", "inner", "list"], first.into_iter())
                .with_list(&["data", "list"], second.into_iter())
                .into_response();
            assert_eq!((long.status(), long.headers()), (whole.status(), whole.headers()));
            assert_eq!(axum::body::HttpBody::size_hint(long.body()).exact().is_some(), is_short);
            assert_eq!(text_of(long).await, text_of(whole).await);
        }
    }
}
