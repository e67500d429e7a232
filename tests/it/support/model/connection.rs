//! One connection to the model. HTTP/1.1 is implemented here, because tests need faults that an HTTP library does not
//! produce, such as no response or a connection that closes within the body.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::script::{Ids, Prompt};
use super::{Key, Requests, account};

/// Buffered text is sent when it exceeds this size.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

/// How many of the newest requests are kept; a run of hours would otherwise fill the memory.
const MAX_RECORDED_REQUESTS: usize = 500;

/// Answers requests until the client disconnects or the prompt asks for the end of the connection.
pub(super) async fn serve(stream: TcpStream, requests: Requests, key: Key, ids: Ids) {
    // Each delta must be sent at once.
    let _ = stream.set_nodelay(true);
    let mut connection = Connection { stream: BufReader::new(stream), requests, key, ids };
    while let Ok(AfterAnswer::Keep) = connection.answer_one().await {}
}

struct Connection {
    stream: BufReader<TcpStream>,
    requests: Requests,
    key: Key,
    ids: Ids,
}

struct Request {
    method: String,
    path: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

#[derive(PartialEq)]
enum AfterAnswer {
    Keep,
    Close,
}

impl Connection {
    async fn answer_one(&mut self) -> io::Result<AfterAnswer> {
        let Some(request) = self.read_request().await? else { return Ok(AfterAnswer::Close) };
        let required = self.key.lock().unwrap().clone();
        let given = request.headers.get("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let is_refused = required.is_some_and(|required| given != Some(required.as_str()));
        let after = match (request.method.as_str(), request.path.as_str()) {
            ("POST", path) if path.ends_with("/responses") && is_refused => {
                self.plain(401, &error_body("Incorrect API key provided.")).await?
            }
            ("POST", path) if path.ends_with("/responses") => {
                match serde_json::from_slice::<Value>(&request.body) {
                    Ok(body) => {
                        self.record(&body);
                        self.respond(&body).await?
                    }
                    Err(error) => {
                        let encoding = request.headers.get("content-encoding");
                        self.plain(
                            400,
                            &error_body(&format!("not JSON: {error}; content-encoding {encoding:?}")),
                        )
                        .await?
                    }
                }
            }
            ("GET", path) if path.ends_with("/models") => {
                let model = json!({ "id": "mock-model", "object": "model", "created": 1_700_000_000, "owned_by": "mock" });
                self.plain(200, &json!({ "object": "list", "data": [model], "models": [] })).await?
            }
            (_, path) if path.contains("/wham/") && is_refused => {
                self.plain(401, &error_body("Incorrect API key provided.")).await?
            }
            ("GET", path) => match account::answer(path) {
                Some(answer) => self.plain(200, &answer).await?,
                None => self.plain(404, &error_body(&format!("no route GET {path}"))).await?,
            },
            (method, path) => self.plain(404, &error_body(&format!("no route {method} {path}"))).await?,
        };
        let asked_to_close =
            request.headers.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        Ok(if asked_to_close { AfterAnswer::Close } else { after })
    }

    fn record(&self, body: &Value) {
        let mut requests = self.requests.lock().unwrap();
        if requests.len() == MAX_RECORDED_REQUESTS {
            requests.remove(0);
        }
        requests.push(body.clone());
    }

    /// Reads the next request; returns `None` when the client has disconnected.
    async fn read_request(&mut self) -> io::Result<Option<Request>> {
        let line = self.read_line().await?;
        let mut parts = line.split_whitespace();
        let (Some(method), Some(target)) = (parts.next(), parts.next()) else { return Ok(None) };
        let path = target.split('?').next().unwrap_or_default().to_owned();
        let method = method.to_owned();
        let mut headers = HashMap::new();
        loop {
            let line = self.read_line().await?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
        let mut body = Vec::new();
        if let Some(length) = headers.get("content-length").and_then(|value| value.parse().ok()) {
            body.resize(length, 0);
            self.stream.read_exact(&mut body).await?;
        } else if headers.get("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
        {
            while self.read_chunk(&mut body).await? {}
        }
        Ok(Some(Request { method, path, headers, body }))
    }

    async fn read_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await?;
        Ok(line.trim_end().to_owned())
    }

    /// Appends one chunk to the body; returns whether another one follows.
    async fn read_chunk(&mut self, body: &mut Vec<u8>) -> io::Result<bool> {
        let line = self.read_line().await?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(digits, 16).map_err(io::Error::other)?;
        let start = body.len();
        body.resize(start + size, 0);
        self.stream.read_exact(&mut body[start..]).await?;
        self.read_line().await?;
        Ok(size > 0)
    }

    async fn plain(&mut self, status: u16, payload: &Value) -> io::Result<AfterAnswer> {
        let body = payload.to_string();
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.stream.write_all(head.as_bytes()).await?;
        Ok(AfterAnswer::Keep)
    }

    async fn respond(&mut self, body: &Value) -> io::Result<AfterAnswer> {
        let prompt = Prompt::read(body);
        if prompt.has("limit") {
            let seconds: i64 = prompt.number("limit", 3600);
            let error = json!({
                "type": "usage_limit_reached", "message": "The usage limit has been reached", "plan_type": "plus",
                "resets_at": now() + seconds, "resets_in_seconds": seconds,
            });
            return self.plain(429, &json!({ "error": error })).await;
        }
        if prompt.has("fail") {
            return self
                .plain(prompt.number("fail", 500), &error_body("the mock model fails on request"))
                .await;
        }
        if prompt.has("mute") {
            return self.wait_for_disconnect().await;
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\n\
                    transfer-encoding: chunked\r\n\r\n";
        self.stream.write_all(head.as_bytes()).await?;
        let response = json!({
            "id": self.ids.next("resp"), "object": "response", "created_at": 1_700_000_000,
            "model": body["model"], "output": [],
        });
        let mut events = Events { stream: &mut self.stream, buffer: Vec::new(), sequence: 0, response };
        events.put_response("in_progress", "response.created", json!({}));
        events.flush().await?;

        if prompt.has("failed") {
            let error =
                json!({ "code": "server_error", "message": "the mock model reports a failed response" });
            events.put_response("failed", "response.failed", json!({ "error": error }));
            return events.end().await;
        }
        if prompt.hangs() {
            return self.wait_for_disconnect().await;
        }
        let calls = prompt.calls(&self.ids);
        if calls.is_empty() {
            write_text(&prompt, &self.ids, events).await
        } else {
            write_calls(&calls, events).await
        }
    }

    async fn wait_for_disconnect(&mut self) -> io::Result<AfterAnswer> {
        let mut ignored = [0; 1024];
        while self.stream.read(&mut ignored).await? > 0 {}
        Ok(AfterAnswer::Close)
    }
}

async fn write_calls(calls: &[Value], mut events: Events<'_>) -> io::Result<AfterAnswer> {
    for (index, call) in calls.iter().enumerate() {
        let mut started = call.clone();
        started["status"] = json!("in_progress");
        events.put("response.output_item.added", json!({ "output_index": index, "item": started }));
        events.put("response.output_item.done", json!({ "output_index": index, "item": call }));
    }
    events.put_response("completed", "response.completed", json!({ "output": calls, "usage": usage(5) }));
    events.end().await
}

async fn write_text(prompt: &Prompt, ids: &Ids, mut events: Events<'_>) -> io::Result<AfterAnswer> {
    let mut index = 0;
    if prompt.has("reasoning") {
        write_reasoning(&ids.next("rs"), &mut events);
        index = 1;
    }
    let id = ids.next("msg");
    let deltas = prompt.text_deltas();
    let pause = Duration::from_secs_f64(prompt.number("delay", 0.0_f64).max(0.0) / 1000.0);
    let message = |status: &str, content: Value| json!({ "type": "message", "id": id, "role": "assistant", "status": status, "content": content });
    let part = |text: &str| json!({ "type": "output_text", "text": text, "annotations": [] });
    let at = |rest: Value| {
        let mut fields = json!({ "item_id": id, "output_index": index, "content_index": 0 });
        merge(&mut fields, rest);
        fields
    };

    let started = message("in_progress", json!([]));
    events.put("response.output_item.added", json!({ "output_index": index, "item": started }));
    events.put("response.content_part.added", at(json!({ "part": part("") })));
    for (count, delta) in deltas.iter().enumerate() {
        events.put("response.output_text.delta", at(json!({ "delta": delta })));
        if prompt.has("cut") && count >= deltas.len() / 2 {
            events.flush().await?;
            return Ok(AfterAnswer::Close);
        }
        if !pause.is_zero() {
            events.flush().await?;
            tokio::time::sleep(pause).await;
        } else if events.buffer.len() > MAX_BUFFER_BYTES {
            events.flush().await?;
        }
    }
    let text = deltas.concat();
    let done = message("completed", json!([part(&text)]));
    events.put("response.output_text.done", at(json!({ "text": text })));
    events.put("response.output_item.done", json!({ "output_index": index, "item": done }));
    let rest = json!({ "output": [done], "usage": usage(deltas.len()) });
    events.put_response("completed", "response.completed", rest);
    events.end().await
}

fn write_reasoning(id: &str, events: &mut Events<'_>) {
    let text = "**Thinking** about mocks";
    let item = |summary: Value| json!({ "output_index": 0, "item": { "type": "reasoning", "id": id, "summary": summary } });
    let at = |name: &str, value: Value| json!({ "item_id": id, "output_index": 0, "summary_index": 0, name: value });
    let part = |text: &str| json!({ "type": "summary_text", "text": text });
    events.put("response.output_item.added", item(json!([])));
    events.put("response.reasoning_summary_part.added", at("part", part("")));
    events.put("response.reasoning_summary_text.delta", at("delta", json!(text)));
    events.put("response.output_item.done", item(json!([part(text)])));
}

/// A response that is being written: server-sent events in HTTP chunks.
struct Events<'a> {
    stream: &'a mut BufReader<TcpStream>,
    buffer: Vec<u8>,
    sequence: u64,
    /// The fields that every event about the whole response repeats.
    response: Value,
}

impl Events<'_> {
    fn put(&mut self, event_type: &str, fields: Value) {
        let mut event = json!({ "type": event_type, "sequence_number": self.sequence });
        merge(&mut event, fields);
        self.sequence += 1;
        let data = format!("event: {event_type}\ndata: {event}\n\n");
        self.buffer.extend_from_slice(format!("{:x}\r\n{data}\r\n", data.len()).as_bytes());
    }

    fn put_response(&mut self, status: &str, event_type: &str, fields: Value) {
        let mut response = self.response.clone();
        response["status"] = json!(status);
        merge(&mut response, fields);
        self.put(event_type, json!({ "response": response }));
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.buffer).await?;
        self.buffer.clear();
        Ok(())
    }

    async fn end(mut self) -> io::Result<AfterAnswer> {
        self.buffer.extend_from_slice(b"0\r\n\r\n");
        self.flush().await?;
        Ok(AfterAnswer::Keep)
    }
}

fn merge(target: &mut Value, fields: Value) {
    if let (Value::Object(target), Value::Object(fields)) = (target, fields) {
        target.extend(fields);
    }
}

/// The time in seconds since 1970.
fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

fn error_body(message: &str) -> Value {
    json!({ "error": { "message": message, "type": "server_error", "code": "mock_failure" } })
}

fn usage(output_tokens: usize) -> Value {
    json!({
        "input_tokens": 100, "input_tokens_details": { "cached_tokens": 0 },
        "output_tokens": output_tokens, "output_tokens_details": { "reasoning_tokens": 0 },
        "total_tokens": 100 + output_tokens,
    })
}
