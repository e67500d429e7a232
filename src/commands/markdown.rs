//! Markdown for terminals, written while it arrives.
//!
//! [`MarkdownStream`] gets a message in pieces and returns the lines that no later piece can change: whole blocks, the
//! items of a list, the lines of a code block, and those of a paragraph in which no markup is open. It renders the last
//! block again with each piece, so it keeps the source of that block only.
//! Invariant: text passes [`sanitize_for_terminal`] after it was parsed, because an entity can stand for any character.

mod table;
#[cfg(test)]
mod tests;

use std::ops::Range;

use anstyle::{AnsiColor, Style};
use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use super::patch::diff_style;
use super::terminal::{FAINT, OutputTarget, STRONG, sanitize_for_terminal};
use super::wrap::{Span, WrappedLine, paint_line, wrap};
use table::Table;

/// Prose is not wider than this, so that it can be read on a wide terminal.
const MAX_PROSE_WIDTH: usize = 100;
/// The last block is rendered again when it has grown by this part of its length.
const MIN_GROWTH_DIVISOR: usize = 64;
/// What code looks like.
const CODE: Style = AnsiColor::Cyan.on_default();
/// How far a code block is indented.
const CODE_INDENT: &str = "    ";
/// Characters that may become markup when more text arrives.
const MARKUP: [char; 10] = ['*', '_', '~', '`', '[', ']', '<', '|', '&', '\\'];

/// Renders a whole document; each line ends with a line break.
pub(crate) fn render(screen: &OutputTarget, source: &str) -> String {
    let mut stream = MarkdownStream::new(*screen);
    stream.push(source) + &stream.finish()
}

/// A message that is being written.
#[derive(Debug)]
pub(crate) struct MarkdownStream {
    screen: OutputTarget,
    /// The source from the last block on.
    source: String,
    /// How many lines of the last block were returned.
    returned: usize,
    /// The length of `source` when it was rendered last.
    rendered: usize,
    /// Whether a block comes before `source`.
    has_previous_block: bool,
}

impl MarkdownStream {
    /// An empty message for this output.
    pub(crate) fn new(screen: OutputTarget) -> Self {
        Self { screen, source: String::new(), returned: 0, rendered: 0, has_previous_block: false }
    }

    /// Adds a piece; returns the lines that are final now.
    pub(crate) fn push(&mut self, piece: &str) -> String {
        self.source.push_str(piece);
        // A long block is rendered again only when it has grown by a part of its length, so that the work stays linear.
        if self.source.len().saturating_sub(self.rendered) < self.source.len() / MIN_GROWTH_DIVISOR {
            return String::new();
        }
        let complete = self.source.rfind('\n').map_or(0, |at| at + 1);
        let (lines, last) = self.source.split_at(complete);
        // The start of a line decides what the line is, and may also change the block before it.
        let is_plain = last.trim_start().starts_with(char::is_alphabetic);
        let source = if is_plain { self.source.clone() } else { lines.to_owned() };
        self.take(&source, false)
    }

    /// Returns all lines that are left; the next piece begins a new message.
    pub(crate) fn finish(&mut self) -> String {
        let source = std::mem::take(&mut self.source);
        let lines = self.take(&source, true);
        *self = Self::new(self.screen);
        lines
    }

    fn take(&mut self, source: &str, is_whole: bool) -> String {
        self.rendered = self.source.len();
        let mut writer = Writer::new(&self.screen, source, self.has_previous_block);
        writer.write();
        let stable = if is_whole { writer.lines.len() } else { writer.stable };
        let new = writer.lines.get(self.returned..stable).unwrap_or_default();
        let text: String = new.iter().map(|line| format!("{}\n", line.trim_end())).collect();
        self.returned = self.returned.max(stable);
        if !is_whole && writer.last_block.source > 0 {
            self.source.drain(..writer.last_block.source);
            self.rendered = self.source.len();
            self.returned -= writer.last_block.line;
            self.has_previous_block = true;
        }
        text
    }
}

/// Where the last block begins.
#[derive(Debug, Clone, Copy, Default)]
struct LastBlock {
    /// In the source, in bytes.
    source: usize,
    /// Among the lines.
    line: usize,
}

/// The prefix of the lines in a block.
struct Prefix {
    /// Of the first line, such as the bullet of a list; taken when that line is written.
    first: Option<String>,
    rest: String,
    width: usize,
}

struct Writer<'a> {
    screen: &'a OutputTarget,
    source: &'a str,
    lines: Vec<String>,
    /// How many lines cannot change any more.
    stable: usize,
    last_block: LastBlock,
    prefixes: Vec<Prefix>,
    /// The text of the current paragraph, heading or cell.
    spans: Vec<Span>,
    styles: Vec<Style>,
    /// For each open list, the number of its next item; `None` for bullets.
    lists: Vec<Option<u64>>,
    /// The destination of each open link or image, and where its text begins.
    links: Vec<(String, usize)>,
    table: Option<Table>,
    code: Option<String>,
    /// Whether the code is a diff.
    is_diff: bool,
    /// How many elements are open.
    depth: usize,
    /// Whether the next block is separated from the one before it.
    needs_blank: bool,
}

impl<'a> Writer<'a> {
    fn new(screen: &'a OutputTarget, source: &'a str, has_previous_block: bool) -> Self {
        Self {
            screen,
            source,
            lines: Vec::new(),
            stable: 0,
            last_block: LastBlock::default(),
            prefixes: Vec::new(),
            spans: Vec::new(),
            styles: Vec::new(),
            lists: Vec::new(),
            links: Vec::new(),
            table: None,
            code: None,
            is_diff: false,
            depth: 0,
            needs_blank: has_previous_block,
        }
    }

    fn write(&mut self) {
        let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
        let source = self.source;
        for (event, range) in Parser::new_ext(source, options).into_offset_iter() {
            match event {
                Event::Start(tag) => {
                    if self.depth == 0 {
                        let before = source.get(..range.start).unwrap_or_default();
                        let start = before.rfind('\n').map_or(0, |at| at + 1);
                        self.last_block = LastBlock { source: start, line: self.lines.len() };
                        self.stable = self.lines.len();
                    }
                    self.depth += 1;
                    self.start(tag, &range);
                }
                Event::End(tag) => {
                    self.depth -= 1;
                    self.end(tag);
                }
                Event::Text(text) => match &mut self.code {
                    Some(code) => code.push_str(&text),
                    None => self.add(&text),
                },
                Event::Code(text) => {
                    let text = if self.screen.has_colors() { text.to_string() } else { format!("`{text}`") };
                    self.styles.push(CODE);
                    self.add(&text);
                    self.styles.pop();
                }
                Event::Html(text) => match &mut self.code {
                    Some(code) => code.push_str(&text),
                    None => self.add(&text),
                },
                Event::SoftBreak => self.add(" "),
                Event::HardBreak => self.add("\n"),
                Event::TaskListMarker(is_done) => self.add(if is_done { "[x] " } else { "[ ] " }),
                Event::Rule => {
                    self.last_block = LastBlock { source: range.start, line: self.lines.len() };
                    self.stable = self.lines.len();
                    self.begin_block();
                    let rule = "─".repeat(self.width().min(MAX_PROSE_WIDTH));
                    self.push_line(&self.screen.paint(FAINT, &rule));
                    self.needs_blank = true;
                }
                other => {
                    if let Event::InlineHtml(text) | Event::InlineMath(text) | Event::DisplayMath(text) =
                        other
                    {
                        self.add(&text);
                    }
                }
            }
        }
    }

    fn start(&mut self, tag: Tag<'_>, range: &Range<usize>) {
        match tag {
            Tag::Paragraph => self.begin_block(),
            Tag::Heading { level, .. } => {
                self.begin_block();
                self.styles.push(if level == HeadingLevel::H1 { STRONG.underline() } else { STRONG });
            }
            Tag::BlockQuote(_) => {
                self.flush_inline(false);
                self.begin_block();
                let bar = self.screen.paint(FAINT, "│ ");
                self.prefixes.push(Prefix { first: None, rest: bar, width: 2 });
                self.needs_blank = false;
            }
            Tag::CodeBlock(_) | Tag::HtmlBlock => {
                self.is_diff =
                    matches!(tag, Tag::CodeBlock(CodeBlockKind::Fenced(language)) if &*language == "diff");
                self.flush_inline(false);
                self.begin_block();
                self.code = Some(String::new());
            }
            Tag::List(first) => {
                self.flush_inline(false);
                if self.lists.is_empty() {
                    self.begin_block();
                }
                self.needs_blank = false;
                self.lists.push(first);
            }
            Tag::Item => self.start_item(range),
            Tag::Table(alignments) => {
                self.begin_block();
                self.table = Some(Table { alignments, rows: Vec::new() });
            }
            Tag::TableHead | Tag::TableRow => {
                if let Some(table) = &mut self.table {
                    table.rows.push(Vec::new());
                }
            }
            Tag::Emphasis => self.push_style(Style::italic),
            Tag::Strong => self.push_style(Style::bold),
            Tag::Strikethrough => self.push_style(Style::strikethrough),
            Tag::Link { dest_url, .. } => {
                self.push_style(Style::underline);
                self.links.push((dest_url.to_string(), self.spans.len()));
            }
            Tag::Image { dest_url, .. } => {
                self.links.push((dest_url.to_string(), self.spans.len()));
                self.add("image: ");
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph => {
                self.flush_inline(self.depth == 0);
                self.end_final_block("\n\n");
                self.needs_blank = true;
            }
            TagEnd::Heading(_) => {
                self.flush_inline(false);
                self.end_final_block("\n");
                self.styles.pop();
                self.needs_blank = true;
            }
            TagEnd::BlockQuote(_) => {
                self.prefixes.pop();
                self.needs_blank = true;
            }
            TagEnd::CodeBlock | TagEnd::HtmlBlock => self.end_code(tag == TagEnd::CodeBlock),
            TagEnd::List(_) => {
                self.lists.pop();
                self.needs_blank = true;
            }
            TagEnd::Item => {
                self.flush_inline(false);
                self.prefixes.pop();
                self.needs_blank = false;
            }
            TagEnd::Table => self.end_table(),
            TagEnd::TableCell => {
                let cell = std::mem::take(&mut self.spans);
                if let Some(row) = self.table.as_mut().and_then(|table| table.rows.last_mut()) {
                    row.push(cell);
                }
            }
            TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough => drop(self.styles.pop()),
            TagEnd::Link => {
                self.styles.pop();
                self.end_link();
            }
            TagEnd::Image => self.end_link(),
            _ => {}
        }
    }

    /// Marks a block as final if the source ends with what ends such a block.
    fn end_final_block(&mut self, end: &str) {
        if self.depth == 0 && self.source.ends_with(end) {
            self.stable = self.lines.len();
        }
    }

    fn start_item(&mut self, range: &Range<usize>) {
        let before = self.source.get(..range.start).unwrap_or_default();
        let is_first = self.lists.len() == 1 && self.lines.len() == self.last_block.line;
        // Not as loose as Markdown says, since a later item may still make the whole list loose.
        let has_blank_before = before.trim_end_matches(' ').ends_with("\n\n");
        if has_blank_before && !is_first && !self.lines.last().is_some_and(String::is_empty) {
            self.push_blank();
        }
        if self.depth == 2 {
            self.stable = self.lines.len();
        }
        let marker = match self.lists.last_mut() {
            Some(Some(number)) => {
                *number += 1;
                format!("{}. ", *number - 1)
            }
            _ => "• ".to_owned(),
        };
        let width = marker.chars().count();
        let first = Some(self.screen.paint(FAINT, &marker));
        self.prefixes.push(Prefix { first, rest: " ".repeat(width), width });
        self.needs_blank = false;
    }

    fn end_link(&mut self) {
        let Some((destination, start)) = self.links.pop() else { return };
        let spans = self.spans.get(start..).unwrap_or_default();
        let shown: String = spans.iter().map(|span| span.text.as_str()).collect();
        let is_shown = destination == shown || destination.strip_prefix("mailto:") == Some(&*shown);
        if !is_shown && !destination.is_empty() {
            self.styles.push(FAINT);
            self.add(&format!(" ({destination})"));
            self.styles.pop();
        }
    }

    /// Adds text in the current style.
    fn add(&mut self, text: &str) {
        let style = self.styles.last().copied().unwrap_or_default();
        let mut lines = text.split('\n');
        let mut span = |text: &str| self.spans.push(Span { text: text.to_owned(), style });
        if let Some(first) = lines.next() {
            span(&sanitize_for_terminal(first));
        }
        for line in lines {
            span("\n");
            span(&sanitize_for_terminal(line));
        }
    }

    fn push_style(&mut self, change: fn(Style) -> Style) {
        self.styles.push(change(self.styles.last().copied().unwrap_or_default()));
    }

    /// How many columns a line of the current block has.
    fn width(&self) -> usize {
        let used: usize = self.prefixes.iter().map(|prefix| prefix.width).sum();
        self.screen.width.unwrap_or(MAX_PROSE_WIDTH).saturating_sub(used).max(1)
    }

    fn begin_block(&mut self) {
        if std::mem::take(&mut self.needs_blank) {
            self.push_blank();
        }
    }

    fn push_blank(&mut self) {
        let prefix: String = self.prefixes.iter().map(|prefix| prefix.rest.as_str()).collect();
        self.lines.push(prefix);
    }

    fn push_line(&mut self, text: &str) {
        let mut line = String::new();
        for prefix in &mut self.prefixes {
            line.push_str(&prefix.first.take().unwrap_or_else(|| prefix.rest.clone()));
        }
        line.push_str(text);
        self.lines.push(line);
    }

    /// Writes the text of the current paragraph. Its lines are final up to the first character that may become markup,
    /// if it `may_grow`.
    fn flush_inline(&mut self, may_grow: bool) {
        let spans = std::mem::take(&mut self.spans);
        if spans.is_empty() {
            return;
        }
        let mut safe = 0;
        for span in &spans {
            let plain = span.text.chars().take_while(|c| !MARKUP.contains(c)).count();
            safe += plain;
            if plain < span.text.chars().count() && span.style != CODE {
                break;
            }
        }
        let lines = wrap(&spans, self.width().min(MAX_PROSE_WIDTH));
        for (at, WrappedLine { pieces, end }) in lines.iter().enumerate() {
            self.push_line(&paint_line(self.screen, pieces));
            if may_grow && *end <= safe && at + 1 < lines.len() {
                self.stable = self.lines.len();
            }
        }
    }

    fn end_code(&mut self, is_code: bool) {
        let code = self.code.take().unwrap_or_default();
        let style = if is_code { CODE } else { Style::new() };
        for line in code.lines() {
            let text = sanitize_for_terminal(&line.replace('\t', "    "));
            let indent = if is_code { CODE_INDENT } else { "" };
            let style = if self.is_diff { diff_style(&text) } else { style };
            self.push_line(&format!("{indent}{}", self.screen.paint(style, &text)));
        }
        if self.depth == 0 && is_code {
            // The last line may be incomplete.
            self.stable = self.stable.max(self.lines.len().saturating_sub(1));
        }
        self.needs_blank = true;
    }

    fn end_table(&mut self) {
        let Some(table) = self.table.take() else { return };
        for line in table.lines(self.screen, self.width()) {
            self.push_line(&line);
        }
        self.needs_blank = true;
    }
}
