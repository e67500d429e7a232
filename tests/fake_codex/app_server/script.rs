//! The parser of directives: [`Script`] for a prompt, [`Startup`] for the process.

use std::time::Duration;

/// The script of one turn, read from the directives in the user's text.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Script {
    /// Number of deltas, if given; see [`Script::delta_count`].
    pub(super) deltas: Option<u64>,
    /// Characters of one delta, if given.
    pub(super) chars: Option<usize>,
    /// Pause between two deltas.
    pub(super) delay: Duration,
    /// The exact text of the only delta, instead of generated ones.
    pub(super) text: Option<String>,
    pub(super) reasoning: bool,
    pub(super) plan: bool,
    pub(super) diff: bool,
    /// One `error` with `willRetry: true` before anything else.
    pub(super) retry: bool,
    /// Tool items in the order of their directives.
    pub(super) tools: Vec<Tool>,
    pub(super) invalid_lines: bool,
    /// Bytes, newline excluded, of one notification between the deltas.
    pub(super) long_line: Option<usize>,
    /// Half a message without a newline is written before the process ends.
    pub(super) half_line: bool,
    pub(super) end: End,
    pub(super) response: ResponsePlan,
    /// The number of further `turn/start` to reject as overloaded.
    pub(super) overload: u64,
    pub(super) stderr: Vec<String>,
    /// Bytes written to stderr before the deltas.
    pub(super) stderr_flood: usize,
    pub(super) stop_reading: bool,
}

/// How the turn ends after its deltas.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum End {
    #[default]
    Completed,
    Fail,
    Crash(i32),
    Abort,
    Kill,
    Hang,
    HangDeltas,
    LoseCompletion,
    LoseEverything,
    CloseStdout,
    CloseStdin,
}

/// Faults of the response to `turn/start`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ResponsePlan {
    pub(super) delay: Option<Duration>,
    pub(super) never: bool,
    pub(super) twice: bool,
    /// A response to an unused ID comes first.
    pub(super) unknown_id: bool,
}

/// One tool item of a turn.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tool {
    /// A command item without a process.
    Command(String),
    /// A process that runs `sleep`.
    Spawn { seconds: String, how: SpawnKind },
    /// A request to the client.
    Ask(Ask),
}

/// The relation of a process to the app-server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum SpawnKind {
    /// The turn waits for it.
    Foreground,
    /// The turn does not wait for it.
    Background,
    /// Its parent exits at once, so init or a subreaper adopts the process.
    Double,
}

/// The kinds of requests to the client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ask {
    Command,
    File,
    Permissions,
    Input,
    /// Two questions; the second asks for a secret.
    Questions,
    /// An MCP elicitation without fields, which asks for a confirmation.
    Confirmation,
    /// An MCP elicitation of a form.
    Form,
    Unknown,
}

impl Script {
    /// Reads the directives in `text`. An unknown directive, or one with an invalid value, is ordinary text.
    pub(super) fn parse(text: &str) -> Self {
        let mut script = Self::default();
        for directive in text.split_whitespace() {
            let (name, value) = match directive.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (directive, None),
            };
            // Not an error: a prompt also contains ordinary text.
            let _ = script.apply(name, value);
        }
        if script.half_line && !script.end.ends_process() {
            script.end = End::Crash(101);
        }
        script
    }

    /// Number of deltas of the turn: 1 with `text=`, else the number given, else 0 for a turn that fails and 3 for any
    /// other.
    pub(super) fn delta_count(&self) -> u64 {
        match (self.deltas, self.end) {
            _ if self.text.is_some() => 1,
            (Some(count), _) => count,
            (None, End::Fail) => 0,
            (None, _) => 3,
        }
    }

    fn apply(&mut self, name: &str, value: Option<&str>) -> Option<()> {
        match (name, value) {
            ("deltas", Some(value)) => self.deltas = Some(value.parse().ok()?),
            ("chars", Some(value)) => self.chars = Some(value.parse().ok()?),
            ("delay", Some(value)) => self.delay = milliseconds(value)?,
            ("text", Some(value)) => self.text = Some(value.to_owned()),
            ("reasoning", None) => self.reasoning = true,
            ("plan", None) => self.plan = true,
            ("diff", None) => self.diff = true,
            ("retry", None) => self.retry = true,
            ("garbage", None) => self.invalid_lines = true,
            ("long-line", Some(value)) => self.long_line = Some(value.parse().ok()?),
            ("half-line", None) => self.half_line = true,
            ("overload", Some(value)) => self.overload = value.parse().ok()?,
            ("stderr", Some(value)) => self.stderr.push(value.to_owned()),
            ("stderr-flood", Some(value)) => self.stderr_flood = value.parse().ok()?,
            ("stop-reading", None) => self.stop_reading = true,
            ("answer-late", Some(value)) => self.response.delay = Some(milliseconds(value)?),
            ("answer-never", None) => self.response.never = true,
            ("answer-twice", None) => self.response.twice = true,
            ("answer-foreign", None) => self.response.unknown_id = true,
            _ => match tool(name, value) {
                Some(tool) => self.tools.push(tool),
                None => self.end = End::parse(name, value)?,
            },
        }
        Some(())
    }
}

impl End {
    /// Whether the process ends after half of the deltas.
    pub(super) fn ends_process(self) -> bool {
        matches!(self, Self::Crash(_) | Self::Abort | Self::Kill)
    }

    fn parse(name: &str, value: Option<&str>) -> Option<Self> {
        Some(match (name, value) {
            ("fail", None) => Self::Fail,
            ("crash", None) => Self::Crash(101),
            ("crash", Some(code)) => Self::Crash(code.parse().ok()?),
            ("abort", None) => Self::Abort,
            ("kill", None) => Self::Kill,
            ("hang", None) => Self::Hang,
            ("hang-deltas", None) => Self::HangDeltas,
            ("lose-completion", None) => Self::LoseCompletion,
            ("lose-everything-after-deltas", None) => Self::LoseEverything,
            ("close-stdout", None) => Self::CloseStdout,
            ("close-stdin", None) => Self::CloseStdin,
            _ => return None,
        })
    }
}

fn tool(name: &str, value: Option<&str>) -> Option<Tool> {
    let spawn = |how| {
        let seconds = value?;
        let length: f64 = seconds.parse().ok()?;
        (length.is_finite() && length >= 0.0).then(|| Tool::Spawn { seconds: seconds.to_owned(), how })
    };
    match (name, value) {
        ("command", None) => Some(Tool::Command("true".to_owned())),
        ("command", Some(text)) => Some(Tool::Command(text.to_owned())),
        ("spawn", _) => spawn(SpawnKind::Foreground),
        ("spawn-background", _) => spawn(SpawnKind::Background),
        ("spawn-double", _) => spawn(SpawnKind::Double),
        ("ask", Some("command")) => Some(Tool::Ask(Ask::Command)),
        ("ask", Some("file")) => Some(Tool::Ask(Ask::File)),
        ("ask", Some("permissions")) => Some(Tool::Ask(Ask::Permissions)),
        ("ask", Some("input")) => Some(Tool::Ask(Ask::Input)),
        ("ask", Some("questions")) => Some(Tool::Ask(Ask::Questions)),
        ("ask", Some("leave")) => Some(Tool::Ask(Ask::Confirmation)),
        ("ask", Some("form")) => Some(Tool::Ask(Ask::Form)),
        ("ask", Some("unknown")) => Some(Tool::Ask(Ask::Unknown)),
        _ => None,
    }
}

/// The behaviour of the whole process, read from the startup directives.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Startup {
    pub(super) hang_initialize: bool,
    pub(super) refuse_initialize: bool,
    pub(super) exit: Option<u8>,
    pub(super) exit_after_initialize: Option<i32>,
    pub(super) abort: bool,
    pub(super) ignore_eof: bool,
    pub(super) ignore_term: bool,
    pub(super) response_late: Duration,
    pub(super) stderr: Vec<String>,
    pub(super) stdout: Vec<String>,
    pub(super) flood: bool,
    pub(super) stop_reading: bool,
    pub(super) foreign_thread: bool,
    /// The delay of `thread/start`.
    pub(super) thread_start_delay: Duration,
    /// The version of Codex to report.
    pub(super) version: Option<String>,
    /// Methods to reject as unknown, like an older version.
    pub(super) without: Vec<String>,
}

impl Startup {
    /// Reads the startup directives.
    ///
    /// # Errors
    ///
    /// The first unknown directive. If it were ignored, a misspelt one would silently test nothing.
    pub(super) fn parse(directives: &[String]) -> Result<Self, String> {
        let mut startup = Self::default();
        for directive in directives.iter().flat_map(|text| text.split_whitespace()) {
            startup.apply(directive).ok_or_else(|| directive.to_owned())?;
        }
        Ok(startup)
    }

    fn apply(&mut self, directive: &str) -> Option<()> {
        let (name, value) = match directive.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (directive, None),
        };
        match (name, value) {
            ("hang-initialize", None) => self.hang_initialize = true,
            ("refuse-initialize", None) => self.refuse_initialize = true,
            ("exit", Some(code)) => self.exit = Some(code.parse().ok()?),
            ("without", Some(method)) => self.without.push(method.to_owned()),
            ("exit-after-initialize", Some(code)) => self.exit_after_initialize = Some(code.parse().ok()?),
            ("abort", None) => self.abort = true,
            ("ignore-eof", None) => self.ignore_eof = true,
            ("ignore-term", None) => self.ignore_term = true,
            // `ignore-term` after the program has been executed again.
            ("term-ignored", None) => {}
            ("answer-late", Some(value)) => self.response_late = milliseconds(value)?,
            ("stderr", Some(value)) => self.stderr.push(value.to_owned()),
            ("stdout", Some(value)) => self.stdout.push(value.to_owned()),
            ("flood", None) => self.flood = true,
            ("stop-reading", None) => self.stop_reading = true,
            ("late-start", Some(value)) => self.thread_start_delay = milliseconds(value)?,
            ("version", Some(version)) => self.version = Some(version.to_owned()),
            ("foreign-thread", None) => self.foreign_thread = true,
            _ => return None,
        }
        Some(())
    }
}

fn milliseconds(value: &str) -> Option<Duration> {
    value.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_of_ordinary_text_is_the_default() {
        let script = Script::parse("please fix a=b the deltas=many bug, spawn=soon ask=me");
        assert_eq!(script, Script::default());
        assert_eq!(script.delta_count(), 3);
    }

    #[test]
    fn script_combines_directives_and_keeps_the_order_of_tools() {
        let script = Script::parse(
            "go deltas=7 chars=4 delay=5 ask=file command=ls ask=command spawn=0.5 hang-deltas",
        );
        assert_eq!(script.delta_count(), 7);
        assert_eq!(script.chars, Some(4));
        assert_eq!(script.delay, Duration::from_millis(5));
        assert_eq!(script.end, End::HangDeltas);
        assert_eq!(
            script.tools,
            [
                Tool::Ask(Ask::File),
                Tool::Command("ls".to_owned()),
                Tool::Ask(Ask::Command),
                Tool::Spawn { seconds: "0.5".to_owned(), how: SpawnKind::Foreground },
            ]
        );
    }

    #[test]
    fn delta_count_is_one_with_text_and_zero_for_a_failure() {
        assert_eq!(Script::parse("text=hello deltas=9").delta_count(), 1);
        assert_eq!(Script::parse("fail").delta_count(), 0);
        assert_eq!(Script::parse("fail deltas=2").delta_count(), 2);
    }

    #[test]
    fn half_line_implies_a_crash() {
        assert_eq!(Script::parse("half-line").end, End::Crash(101));
        assert_eq!(Script::parse("half-line crash=3").end, End::Crash(3));
        assert_eq!(Script::parse("kill half-line").end, End::Kill);
    }

    #[test]
    fn startup_rejects_unknown_directives() {
        let directives = ["answer-late=20 flood".to_owned(), "exit-after-initialize=4".to_owned()];
        let startup = Startup::parse(&directives).unwrap();
        assert_eq!(startup.response_late, Duration::from_millis(20));
        assert!(startup.flood);
        assert_eq!(startup.exit_after_initialize, Some(4));
        assert_eq!(Startup::parse(&["floood".to_owned()]), Err("floood".to_owned()));
    }
}
