//! Requests byte by byte, and every answer that comes back on a connection.
//!
//! The clients in `support` cannot say what is wrong on purpose; these can, and they count the answers.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::http::Target;
use crate::support::wait::DEADLINE;

/// How many connections of a table are open at once.
const AT_ONCE: usize = 16;

/// How much of an answer a failure prints, in characters.
const PRINTED: usize = 200;

/// An answer as it came over the wire.
#[derive(Debug, Clone)]
pub(super) struct WireAnswer {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl WireAnswer {
    /// All values of a header, in their order.
    pub(super) fn headers(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// The headers whose name begins so.
    pub(super) fn headers_beginning(&self, beginning: &str) -> Vec<&(String, String)> {
        let beginning = beginning.to_ascii_lowercase();
        self.headers.iter().filter(|(name, _)| name.to_ascii_lowercase().starts_with(&beginning)).collect()
    }

    /// What is wrong with this as a refusal of this status and code, in the form of all refusals.
    pub(super) fn refuses(&self, status: u16, code: &str) -> Result<(), String> {
        if self.status != status {
            return Err(self.instead_of(status));
        }
        for (name, value) in
            [("content-type", "application/json; charset=utf-8"), ("cache-control", "no-store")]
        {
            if self.headers(name) != [value] {
                return Err(format!("{name} is {:?}", self.headers(name)));
            }
        }
        let json: Value =
            serde_json::from_str(&self.body).map_err(|error| format!("{error}: {:?}", self.body))?;
        if self.body != serde_json::to_string_pretty(&json).unwrap() + "\n" {
            return Err(format!("it is not printed as all answers are: {:?}", self.body));
        }
        let message = json["message"].as_str().unwrap_or_default();
        if json["ok"] != false || json["error"] != code || !message.ends_with('.') {
            return Err(format!("it is not a {code} with a sentence: {:?}", self.body));
        }
        Ok(())
    }

    /// What is wrong with this as an answer of this status; a refusal has a code, and its whole form is looked at.
    pub(super) fn is(&self, status: u16, code: Option<&str>) -> Result<(), String> {
        match code {
            Some(code) => self.refuses(status, code),
            None if self.status == status => Ok(()),
            None => Err(self.instead_of(status)),
        }
    }

    fn instead_of(&self, status: u16) -> String {
        let body: String = self.body.chars().take(PRINTED).collect();
        format!("{} instead of {status}: {body:?}", self.status)
    }
}

/// A request: its first line without the version, its header lines, each without its end, and its body.
pub(super) fn request(line: &str, headers: &[impl AsRef<[u8]>], body: &str) -> Vec<u8> {
    let mut bytes = format!("{line} HTTP/1.1\r\n").into_bytes();
    for header in headers {
        bytes.extend_from_slice(header.as_ref());
        bytes.extend_from_slice(b"\r\n");
    }
    if !body.is_empty() {
        bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body.as_bytes());
    bytes
}

/// The header lines of a good WebSocket handshake, without Host.
pub(super) const HANDSHAKE: [&str; 4] = [
    "connection: Upgrade",
    "upgrade: websocket",
    "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
];

/// The first answer to these bytes, whatever becomes of the connection afterwards.
pub(super) async fn first_answer(address: &str, bytes: &[u8]) -> Result<WireAnswer, String> {
    let mut received = Received::of(bytes);
    received.exchange(address, bytes, |answers| !answers.is_empty()).await?;
    let first = received.answers()?.into_iter().next();
    first.ok_or_else(|| format!("no answer, only {:?}", received.text()))
}

/// Asserts that nothing failed, and says everything that did.
pub(super) fn assert_all_good(failures: &[String]) {
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}

/// Bytes under a name, for a table whose rows are sent side by side.
pub(super) type Sent = (String, Vec<u8>);

/// Sends each row on a connection of its own; the first answers, in the order of the rows.
pub(super) async fn first_answers(
    target: &(impl Target + ?Sized),
    rows: &[Sent],
) -> Vec<Result<WireAnswer, String>> {
    let one = async |address: String, bytes: Vec<u8>| first_answer(&address, &bytes).await;
    side_by_side(target, rows, one).await
}

/// Sends each row on a connection of its own, which the server has to close without hearing that ours ends; all answers,
/// in the order of the rows.
pub(super) async fn all_answers(
    target: &(impl Target + ?Sized),
    rows: &[Sent],
) -> Vec<Result<Vec<WireAnswer>, String>> {
    let one = async |address: String, bytes: Vec<u8>| {
        let mut received = Received::of(&bytes);
        received.exchange(&address, &bytes, |_| false).await?;
        match received.parsed()? {
            (answers, b"") => Ok(answers),
            (answers, rest) => {
                Err(format!("after {} answers: {:?}", answers.len(), String::from_utf8_lossy(rest)))
            }
        }
    };
    side_by_side(target, rows, one).await
}

async fn side_by_side<T: Send + 'static, F>(
    target: &(impl Target + ?Sized),
    rows: &[Sent],
    ask: impl Fn(String, Vec<u8>) -> F,
) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
{
    let mut answers = Vec::new();
    for some in rows.chunks(AT_ONCE) {
        let mut asked = JoinSet::new();
        for (place, (_, bytes)) in some.iter().enumerate() {
            let answer = ask(target.authority().to_owned(), bytes.clone());
            asked.spawn(async move { (place, answer.await) });
        }
        let mut together = asked.join_all().await;
        together.sort_by_key(|(place, _)| *place);
        answers.extend(together.into_iter().map(|(_, answer)| answer));
    }
    answers
}

/// What came over a connection so far.
struct Received {
    bytes: Vec<u8>,
    /// Whether the first request was a HEAD, whose answer has no body whatever its length says.
    is_head: bool,
}

impl Received {
    fn of(request: &[u8]) -> Self {
        Self { bytes: Vec::new(), is_head: request.starts_with(b"HEAD ") }
    }

    /// Sends and receives at once, until the server closes the connection or there are enough answers.
    async fn exchange(
        &mut self,
        address: &str,
        bytes: &[u8],
        is_enough: impl Fn(&[WireAnswer]) -> bool,
    ) -> Result<(), String> {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
        let (mut from, mut to) = stream.into_split();
        let write = async {
            // A server that refuses a request early may close before it has taken all of it.
            let _ = to.write_all(bytes).await;
            std::future::pending::<()>().await;
        };
        let read = async {
            let mut chunk = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = from.read(&mut chunk).await {
                self.bytes.extend_from_slice(&chunk[..count]);
                if self.answers().is_ok_and(|answers| is_enough(&answers)) {
                    return;
                }
            }
        };
        let done = async {
            tokio::select! {
                () = read => {}
                () = write => {}
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, done).await;
        in_time.map_err(|_| {
            let text = String::from_utf8_lossy(&self.bytes);
            format!("the connection is still open after {} s; so far: {text:?}", DEADLINE.as_secs())
        })
    }

    fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }

    /// All whole answers so far; an error when what came is no answer.
    fn answers(&self) -> Result<Vec<WireAnswer>, String> {
        self.parsed().map(|(answers, _)| answers)
    }

    /// All whole answers, and what came after the last one.
    fn parsed(&self) -> Result<(Vec<WireAnswer>, &[u8]), String> {
        let mut answers = Vec::new();
        let mut rest = self.bytes.as_slice();
        while let Some(end) = memchr::memmem::find(rest, b"\r\n\r\n") {
            let (mut answer, length) = head(&rest[..end])?;
            let body = &rest[end + 4..];
            let is_bodiless = matches!(answer.status, 101 | 204) || (self.is_head && answers.is_empty());
            let length = if is_bodiless { 0 } else { length };
            let Some(whole) = body.get(..length) else { break };
            answer.body = String::from_utf8_lossy(whole).into_owned();
            rest = &body[length..];
            let is_upgraded = answer.status == 101;
            answers.push(answer);
            if is_upgraded {
                // What follows is no HTTP any more.
                rest = b"";
            }
        }
        Ok((answers, rest))
    }
}

/// The head of an answer, and the length of its body.
fn head(bytes: &[u8]) -> Result<(WireAnswer, usize), String> {
    let text = String::from_utf8_lossy(bytes);
    let strange = || format!("no answer of HTTP: {text:?}");
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    // An answer to a request of HTTP/1.0 says so.
    let first = first.strip_prefix("HTTP/1.1 ").or(first.strip_prefix("HTTP/1.0 "));
    let status = first.and_then(|line| line.get(..3));
    let status = status.and_then(|status| status.parse().ok()).ok_or_else(strange)?;
    let headers = lines.map(|line| line.split_once(':').ok_or_else(strange));
    let headers = headers.map(|pair| pair.map(|(name, value)| (name.to_owned(), value.trim().to_owned())));
    let headers = headers.collect::<Result<Vec<_>, _>>()?;
    let answer = WireAnswer { status, headers, body: String::new() };
    let length = answer.headers("content-length").first().map_or(Ok(0), |length| length.parse());
    Ok((answer, length.map_err(|_| strange())?))
}
