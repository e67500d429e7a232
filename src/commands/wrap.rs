//! Wraps styled text at words.

use anstyle::Style;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::terminal::OutputTarget;

/// A piece of sanitized text in one style; a line break ends the line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Span {
    pub(crate) text: String,
    pub(crate) style: Style,
}

impl Span {
    /// How many columns it takes.
    pub(crate) fn width(&self) -> usize {
        self.text.width()
    }
}

/// A line of a wrapped text.
#[derive(Debug, Default)]
pub(crate) struct WrappedLine {
    pub(crate) pieces: Vec<Span>,
    /// How many characters of the text precede the end of the line.
    pub(crate) end: usize,
}

impl WrappedLine {
    fn width(&self) -> usize {
        self.pieces.iter().map(Span::width).sum()
    }

    fn push(&mut self, c: char, style: Style) {
        match self.pieces.last_mut() {
            Some(piece) if piece.style == style => piece.text.push(c),
            _ => self.pieces.push(Span { text: c.to_string(), style }),
        }
    }

    fn extend(&mut self, word: Self) {
        for piece in word.pieces {
            piece.text.chars().for_each(|c| self.push(c, piece.style));
        }
        self.end = word.end;
    }
}

/// Breaks a text into lines of at most `width` columns, at spaces and between wide characters; a longer word is broken
/// anywhere. Several spaces count as one.
pub(crate) fn wrap(spans: &[Span], width: usize) -> Vec<WrappedLine> {
    let mut wrapper = Wrapper { width: width.max(1), ..Wrapper::default() };
    for (c, style) in spans.iter().flat_map(|span| span.text.chars().map(|c| (c, span.style))) {
        wrapper.count += 1;
        match c {
            '\n' => {
                wrapper.end_word();
                wrapper.end_line();
            }
            ' ' => {
                wrapper.end_word();
                wrapper.space = Some(style);
            }
            _ => {
                let width = c.width().unwrap_or(0);
                if width == 2 || wrapper.may_break && width > 0 {
                    wrapper.end_word();
                }
                wrapper.may_break |= width == 2;
                wrapper.word.push(c, style);
                wrapper.word.end = wrapper.count;
            }
        }
    }
    wrapper.end_word();
    if !wrapper.line.pieces.is_empty() {
        wrapper.end_line();
    }
    wrapper.lines
}

#[derive(Default)]
struct Wrapper {
    width: usize,
    lines: Vec<WrappedLine>,
    line: WrappedLine,
    word: WrappedLine,
    /// The style of the space before the word.
    space: Option<Style>,
    /// Whether the word ends at a wide character, so that the next one may begin a line.
    may_break: bool,
    count: usize,
}

impl Wrapper {
    fn end_word(&mut self) {
        let word = std::mem::take(&mut self.word);
        self.may_break = false;
        if word.pieces.is_empty() {
            return;
        }
        let space = self.space.take();
        let gap = usize::from(space.is_some() && !self.line.pieces.is_empty());
        if !self.line.pieces.is_empty() && self.line.width() + gap + word.width() > self.width {
            self.end_line();
        } else if let (Some(style), 1) = (space, gap) {
            self.line.push(' ', style);
        }
        if word.width() <= self.width {
            return self.line.extend(word);
        }
        for piece in &word.pieces {
            for c in piece.text.chars() {
                if self.line.width() + c.width().unwrap_or(0) > self.width {
                    self.end_line();
                }
                self.line.push(c, piece.style);
            }
        }
        self.line.end = word.end;
    }

    fn end_line(&mut self) {
        self.space = None;
        self.line.end = self.line.end.max(self.lines.last().map_or(0, |line| line.end));
        self.lines.push(std::mem::take(&mut self.line));
    }
}

/// The line with its styles.
pub(crate) fn paint_line(screen: &OutputTarget, pieces: &[Span]) -> String {
    pieces.iter().map(|piece| screen.paint(piece.style, &piece.text)).collect()
}

/// Wraps sanitized text; every line but the first is indented by `indent` columns.
pub(crate) fn wrap_indented(text: &str, width: Option<usize>, indent: usize) -> String {
    let Some(width) = width else { return text.to_owned() };
    let lines = wrap(&[Span { text: text.to_owned(), style: Style::new() }], width.saturating_sub(indent));
    let lines: Vec<String> =
        lines.iter().map(|line| line.pieces.iter().map(|piece| piece.text.as_str()).collect()).collect();
    lines.join(&format!("\n{}", " ".repeat(indent)))
}
