//! The event stream as server-sent events, which goes on by itself where it was cut off.

use std::collections::VecDeque;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, StatusCode};
use serde_json::Value;
use tokio::time::Instant;

use super::{Client, ClientError, SHORT, escaped};

/// The pause before the first new connection, which doubles up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Which events are wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// Only those about this session.
    pub(crate) session_id: Option<String>,
    /// Only those whose types begin with one of these; none means all.
    pub(crate) types: Vec<String>,
}

/// What comes next in the stream.
#[derive(Debug)]
pub(crate) enum Heard {
    /// An event, as the daemon wrote it.
    Event(String),
    /// Events are missing here, for this reason; the stream goes on behind them.
    Gap(String),
    /// The connection is gone and is looked for again.
    Lost,
    /// It is there again, and nothing is missing.
    Back,
}

/// The events after a cursor, each once and in their order, over restarts of the daemon.
#[derive(Debug)]
pub(crate) struct EventStream {
    client: Client,
    filter: Filter,
    /// The newest event that was given out.
    cursor: String,
    connection: Option<Connection>,
    /// Since when there is none, after there was one.
    lost_since: Option<Instant>,
    /// How long a lost connection is looked for; `None` is for ever.
    patience: Option<Duration>,
    pause: Duration,
}

impl EventStream {
    /// The events after this cursor; a connection is made when they are asked for.
    pub(crate) fn new(client: &Client, filter: Filter, cursor: String, patience: Option<Duration>) -> Self {
        Self {
            client: client.clone(),
            filter,
            cursor,
            connection: None,
            lost_since: None,
            patience,
            pause: PAUSE,
        }
    }

    /// The same with a first connection, whose failure is an error.
    pub(crate) async fn open(mut self) -> Result<Self, ClientError> {
        match self.connect().await {
            // Said by `next`, which asks once more.
            Err(ClientError::Refused { code, .. }) if code == "cursor_gone" => {}
            other => self.connection = Some(other?),
        }
        Ok(self)
    }

    /// What comes next; dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Heard, ClientError> {
        loop {
            let Some(connection) = &mut self.connection else {
                match self.connect_again().await? {
                    Some(heard) => return Ok(heard),
                    None => continue,
                }
            };
            let Some(message) = connection.next().await else {
                self.connection = None;
                self.lost_since = Some(Instant::now());
                return Ok(Heard::Lost);
            };
            if let Some(cursor) = message.id {
                self.cursor = cursor;
            }
            match message.event.as_str() {
                "" => {
                    if self.filter.session_id.is_some() && message.data.contains("\"session.recreated\"") {
                        // The filter holds for the thread that the session had when the connection was made.
                        self.connection = None;
                    }
                    return Ok(Heard::Event(message.data));
                }
                "gap" => {
                    self.connection = None;
                    return Ok(self.jump(&serde_json::from_str(&message.data).unwrap_or_default()));
                }
                _ => {}
            }
        }
    }

    /// One more try to connect; `None` when the next one is due, or when there is nothing to say.
    async fn connect_again(&mut self) -> Result<Option<Heard>, ClientError> {
        let error = match self.connect().await {
            Ok(connection) => {
                self.connection = Some(connection);
                self.pause = PAUSE;
                return Ok(self.lost_since.take().map(|_| Heard::Back));
            }
            Err(error) => error,
        };
        match &error {
            ClientError::Refused { code, details, .. } if code == "cursor_gone" => {
                return Ok(Some(self.jump(details)));
            }
            ClientError::Refused { code, .. }
                if !["shutting_down", "overloaded", "request_timeout"].contains(&code.as_str()) =>
            {
                return Err(error);
            }
            ClientError::Token(_) => return Err(error),
            _ => {}
        }
        let Some(since) = self.lost_since else {
            self.lost_since = Some(Instant::now());
            return Ok(Some(Heard::Lost));
        };
        if self.patience.is_some_and(|patience| since.elapsed() > patience) {
            return Err(error);
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(None)
    }

    async fn connect(&self) -> Result<Connection, ClientError> {
        let mut path = format!("{}?after={}", self.client.event_stream_path, escaped(&self.cursor));
        if let Some(session_id) = &self.filter.session_id {
            path.push_str(&format!("&sessionId={}", escaped(session_id)));
        }
        for name in &self.filter.types {
            path.push_str(&format!("&type={}", escaped(name)));
        }
        let connecting = async {
            let answer = self.client.send(Method::GET, &path, Some("text/event-stream"), None).await?;
            if answer.status() == StatusCode::OK {
                return Ok(Connection::new(answer.into_body()));
            }
            let refused = self.client.data(answer).await;
            Err(refused.err().unwrap_or_else(|| self.client.strange("it has no event stream".to_owned())))
        };
        let late = |_| self.client.strange(format!("no answer within {} s", SHORT.as_secs()));
        tokio::time::timeout(SHORT, connecting).await.map_err(late)?
    }

    /// Goes on behind what is missing: with the oldest event that is kept, or now when that may have been given out
    /// already.
    fn jump(&mut self, gap: &Value) -> Heard {
        let (epoch, oldest) =
            (gap["epoch"].as_str().unwrap_or_default(), gap["oldest"].as_u64().unwrap_or(1));
        let reason = match gap["reason"].as_str() {
            Some("expired") => {
                self.cursor = format!("{epoch}-{}", oldest.saturating_sub(1));
                format!("those before event {oldest} are no longer kept")
            }
            reason => {
                self.cursor = gap["cursor"].as_str().unwrap_or_default().to_owned();
                match reason {
                    Some("epoch") => "the log was replaced by another one".to_owned(),
                    Some("lost") => {
                        format!("the log has lost the events {} to {}", gap["lostFrom"], gap["lostThrough"])
                    }
                    _ => "the log ends before this cursor".to_owned(),
                }
            }
        };
        Heard::Gap(reason)
    }
}

/// The cursor of the newest event.
pub(crate) async fn newest(client: &Client) -> Result<String, ClientError> {
    // A page says which event is the newest, whatever is in it.
    let page = client.get(&format!("{}?limit=1", client.event_stream_path)).await?;
    let number = |name: &str| page[name].as_u64().unwrap_or(0);
    Ok(format!("{}-{}", page["epoch"].as_str().unwrap_or_default(), number("latest")))
}

/// One message of the stream.
#[derive(Debug, Default, PartialEq)]
struct Message {
    id: Option<String>,
    event: String,
    data: String,
}

#[derive(Debug)]
struct Connection {
    body: Incoming,
    parser: Parser,
}

impl Connection {
    fn new(body: Incoming) -> Self {
        Self { body, parser: Parser::default() }
    }

    /// The next whole message; `None` at the end of the connection, however it ended.
    async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.parser.ready.pop_front() {
                return Some(message);
            }
            let frame = self.body.frame().await?.ok()?;
            if let Some(bytes) = frame.data_ref() {
                self.parser.take(bytes);
            }
        }
    }
}

/// Cuts bytes into messages (HTML living standard, section 9.2.6, as far as codexd uses it).
#[derive(Debug, Default)]
struct Parser {
    /// Bytes of a line that is not whole yet.
    line: Vec<u8>,
    message: Message,
    ready: VecDeque<Message>,
}

impl Parser {
    fn take(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.pop_if(|byte| *byte == b'\n').is_some() {
                let line = std::mem::take(&mut self.line);
                self.line_ended(&String::from_utf8_lossy(&line));
            }
        }
    }

    fn line_ended(&mut self, line: &str) {
        if line.is_empty() {
            let message = std::mem::take(&mut self.message);
            if !message.data.is_empty() {
                self.ready.push_back(message);
            }
            return;
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" => self.message.id = Some(value.to_owned()),
            "event" => self.message.event = value.to_owned(),
            "data" => self.message.data.push_str(value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_whole_however_their_bytes_come() {
        let text = "retry: 1000\n\nid: ab-1\ndata: {\"a\":\"é\"}\n\n:\n\nid: ab-2\nevent: bookmark\ndata: {}\n\nid: ab-3\ndata: {";
        let message = |id: &str, event: &str, data: &str| Message {
            id: Some(id.to_owned()),
            event: event.to_owned(),
            data: data.to_owned(),
        };
        let expected = [message("ab-1", "", "{\"a\":\"é\"}"), message("ab-2", "bookmark", "{}")];
        for size in 1..text.len() {
            let mut parser = Parser::default();
            for chunk in text.as_bytes().chunks(size) {
                parser.take(chunk);
            }
            assert_eq!(parser.ready, expected, "in pieces of {size}");
        }
    }
}
