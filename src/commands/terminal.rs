//! Terminal output: colors, widths, tables, and sanitizing of text.
//!
//! Everything that comes from Codex, the daemon or a file passes [`sanitize_for_terminal`] or
//! [`sanitize_lines_for_terminal`] before a terminal gets it, so that it cannot move the cursor, set the title or hide
//! text.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use anstyle::{AnsiColor, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::config::no_color;

/// The width of a terminal that does not report one, in columns.
const DEFAULT_WIDTH: usize = 80;
/// The height of such a terminal, in lines.
const DEFAULT_ROWS: usize = 24;

/// Titles and prompts.
pub(crate) const STRONG: Style = Style::new().bold();
/// Secondary information.
pub(crate) const FAINT: Style = Style::new().dimmed();
/// What went well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Errors.
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
/// Requests that wait for the user.
pub(crate) const WAITING: Style = AnsiColor::Yellow.on_default().bold();

/// The properties of an output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutputTarget {
    /// Whether it is a terminal.
    pub(crate) is_terminal: bool,
    has_colors: bool,
    /// The width of a line in columns; `None` if unlimited.
    pub(crate) width: Option<usize>,
    /// How many lines it shows.
    pub(crate) rows: usize,
}

impl OutputTarget {
    /// Inspects an output; `no_color` is the user's preference.
    pub(crate) fn of(output: &(impl AsFd + IsTerminal), no_color: bool) -> Self {
        let is_terminal = output.is_terminal();
        let size = if is_terminal { rustix::termios::tcgetwinsize(output).ok() } else { None };
        let or_default = |size: Option<u16>, default| match usize::from(size.unwrap_or(0)) {
            0 => default,
            size => size,
        };
        Self {
            is_terminal,
            has_colors: is_terminal && !no_color,
            width: is_terminal.then(|| or_default(size.map(|size| size.ws_col), DEFAULT_WIDTH)),
            rows: or_default(size.map(|size| size.ws_row), DEFAULT_ROWS),
        }
    }

    /// stdout, with the user's preference of colors.
    pub(crate) fn stdout() -> Self {
        Self::of(&std::io::stdout(), no_color())
    }

    /// A terminal of this width.
    #[cfg(test)]
    pub(crate) fn terminal(width: usize, has_colors: bool) -> Self {
        Self { is_terminal: true, has_colors, width: Some(width), rows: DEFAULT_ROWS }
    }

    /// The same output for text that is indented by some columns.
    pub(crate) fn indented(&self, columns: usize) -> Self {
        Self { width: self.width.map(|width| width.saturating_sub(columns)), ..*self }
    }

    /// Whether text can have styles.
    pub(crate) fn has_colors(&self) -> bool {
        self.has_colors
    }

    /// The text in this style, if the output has colors.
    pub(crate) fn paint(&self, style: Style, text: &str) -> String {
        let is_styled = self.has_colors && style != Style::new();
        if is_styled { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    /// The text as one sanitized line, truncated to the width.
    pub(crate) fn line(&self, text: &str) -> String {
        let text = sanitize_for_terminal(text);
        match self.width {
            Some(width) => truncate_end(&text, width),
            None => text,
        }
    }
}

/// The text on one line, without characters that control a terminal or that disguise the text.
pub(crate) fn sanitize_for_terminal(text: &str) -> String {
    text.chars().map(|c| if is_line_break(c) { ' ' } else { visible(c) }).collect()
}

/// The same, but line breaks and tabs are kept.
pub(crate) fn sanitize_lines_for_terminal(text: &str) -> String {
    text.chars().map(|c| if c == '\n' || c == '\t' { c } else { visible(c) }).collect()
}

/// The same, with every line but the first indented by two columns.
pub(crate) fn sanitize_and_indent(text: &str) -> String {
    sanitize_lines_for_terminal(text).replace('\n', "\n  ")
}

fn is_line_break(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}')
}

/// A visible substitute for a control character; any other character is unchanged.
fn visible(c: char) -> char {
    match c {
        // Unicode has a block of pictures for these, in the same order.
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'),
        '\u{7f}' => '\u{2421}',
        // The second set of control characters, and those that change the direction of text.
        '\u{80}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => '\u{fffd}',
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        // Invisible characters, except those that join emoji.
        '\u{ad}'
        | '\u{34f}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{180e}'
        | '\u{200b}'
        | '\u{2060}'..='\u{2064}' => '\u{fffd}',
        '\u{2800}'
        | '\u{3164}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}' => '\u{fffd}',
        other => other,
    }
}

/// How many columns a text takes.
pub(crate) fn display_width(text: &str) -> usize {
    text.width()
}

/// The start of the text, truncated to `width` columns, with an ellipsis.
pub(crate) fn truncate_end(text: &str, width: usize) -> String {
    if display_width(text) <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        kept.push(c);
    }
    if width > 0 {
        kept.push('…');
    }
    kept
}

/// The end of the text, truncated to `width` columns, with an ellipsis; for paths, which differ at their ends.
fn truncate_start(text: &str, width: usize) -> String {
    if display_width(text) <= width {
        return text.to_owned();
    }
    let mut used = 1;
    let fits = |c: &char| {
        used += c.width().unwrap_or(0);
        used <= width
    };
    let kept: Vec<char> = text.chars().rev().take_while(fits).collect();
    let ellipsis = if width > 0 { "…" } else { "" };
    ellipsis.chars().chain(kept.into_iter().rev()).collect()
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    pub(crate) overflow: Overflow,
}

/// What happens to a column when the table is too wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overflow {
    /// The column keeps its width.
    Keep,
    /// Cells are truncated at the end.
    TruncateEnd,
    /// Cells are truncated at the start.
    TruncateStart,
}

/// A truncated column is never narrower than this.
const MIN_COLUMN_WIDTH: usize = 8;

/// Formats a table with titles. If it is too wide, the widest columns are truncated.
pub(crate) fn table(screen: &OutputTarget, columns: &[Column], rows: &[Vec<String>]) -> String {
    table_with_gap(2, screen, columns, rows)
}

/// The same with `gap` columns of space between two cells.
pub(crate) fn table_with_gap(
    gap: usize,
    screen: &OutputTarget,
    columns: &[Column],
    rows: &[Vec<String>],
) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| sanitize_for_terminal(cell)).collect()).collect();
    let widest = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| display_width(cell)).max();
    let mut widths: Vec<usize> = (0..)
        .zip(columns)
        .map(|(at, column)| display_width(column.title).max(widest(at).unwrap_or(0)))
        .collect();
    if let Some(limit) = screen.width {
        let gaps = gap * columns.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > limit {
            let gives =
                |at: &usize| columns[*at].overflow != Overflow::Keep && widths[*at] > MIN_COLUMN_WIDTH;
            let Some(at) = (0..widths.len()).filter(gives).max_by_key(|at| widths[*at]) else { break };
            widths[at] -= 1;
        }
    }
    let render = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for ((cell, width), column) in cells.zip(&widths).zip(columns) {
            let cell = if column.overflow == Overflow::TruncateStart {
                truncate_start(cell, *width)
            } else {
                truncate_end(cell, *width)
            };
            line.push_str(&cell);
            line.push_str(&" ".repeat(width.saturating_sub(display_width(&cell)) + gap));
        }
        screen.width.map_or_else(|| line.trim_end().to_owned(), |limit| truncate_end(line.trim_end(), limit))
    };
    let title = render(&mut columns.iter().map(|column| column.title));
    let mut lines = vec![screen.paint(STRONG, &title)];
    lines.extend(rows.iter().map(|row| render(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(width: usize) -> OutputTarget {
        OutputTarget::terminal(width, false)
    }

    #[test]
    fn sanitize_replaces_control_characters() {
        let text = "a\u{1b}]0;title\u{7}\rb\u{9b}2J\u{202e}c\u{7f}\nd\te";
        assert_eq!(sanitize_for_terminal(text), "a␛]0;title␇ b\u{fffd}2J\u{fffd}c␡ d e");
        assert_eq!(sanitize_lines_for_terminal(text), "a␛]0;title␇␍b\u{fffd}2J\u{fffd}c␡\nd\te");
        for c in (0..=0x10_ffff).filter_map(char::from_u32) {
            let line = sanitize_for_terminal(&c.to_string());
            assert!(!line.contains(char::is_control), "{c:?} gives {line:?}");
            let lines = sanitize_lines_for_terminal(&c.to_string());
            assert!(!lines.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "{c:?}: {lines:?}");
        }
        assert_eq!(sanitize_for_terminal("Grüße, 世界 👋 👩‍👧 ❤️"), "Grüße, 世界 👋 👩‍👧 ❤️");
        assert_eq!(sanitize_for_terminal("a\u{200b}b\u{e0041}c\u{3164}"), "a\u{fffd}b\u{fffd}c\u{fffd}");
    }

    #[test]
    fn truncate_keeps_text_within_width() {
        assert_eq!(truncate_end("abc", 3), "abc");
        assert_eq!(truncate_end("abcd", 3), "ab…");
        assert_eq!(truncate_end("世界世界", 5), "世界…");
        assert_eq!(truncate_start("/home/me/project", 8), "…project");
        for width in 0..12 {
            for text in ["世界世界世界", "e\u{301}e\u{301}e\u{301}e\u{301}", "👋👋👋", "plain text here"]
            {
                assert!(display_width(&truncate_end(text, width)) <= width, "{text} in {width}");
                assert!(display_width(&truncate_start(text, width)) <= width, "{text} in {width}");
            }
        }
    }

    #[test]
    fn table_fits_terminal_and_aligns_columns() {
        let columns = [
            Column { title: "ID", overflow: Overflow::Keep },
            Column { title: "DIRECTORY", overflow: Overflow::TruncateStart },
            Column { title: "STATE", overflow: Overflow::Keep },
        ];
        let rows = [
            vec!["one".to_owned(), "/home/me/世界/project".to_owned(), "idle".to_owned()],
            vec!["two\u{1b}[2J".to_owned(), "/a".to_owned(), "busy".to_owned()],
        ];
        let wide = table(&OutputTarget { width: None, ..screen(0) }, &columns, &rows);
        assert!(wide.contains("/home/me/世界/project") && !wide.contains('\u{1b}'), "{wide}");
        let narrow = table(&screen(28), &columns, &rows);
        let place = |line: &str, text: &str| display_width(line.split(text).next().unwrap());
        let lines: Vec<&str> = narrow.lines().collect();
        assert!(lines.iter().all(|line| display_width(line) <= 28), "{narrow}");
        assert!(lines[1].contains("…") && lines[1].contains("project"), "{narrow}");
        assert_eq!(place(lines[0], "STATE"), place(lines[1], "idle"), "{narrow}");
        assert_eq!(place(lines[0], "STATE"), place(lines[2], "busy"), "{narrow}");
        assert!(table(&screen(5), &columns, &rows).lines().all(|line| display_width(line) <= 5));
    }
}
