//! What a terminal is shown: colours where they are wanted, text that fits, and nothing that it would obey.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use anstyle::{AnsiColor, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How wide a terminal is that does not say it.
const USUAL_WIDTH: usize = 80;

/// For what people should see first.
pub(crate) const STRONG: Style = Style::new().bold();
/// For what stands beside the answer.
pub(crate) const FAINT: Style = Style::new().dimmed();
/// For what went wrong.
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
/// For what waits for somebody.
pub(crate) const WAITING: Style = AnsiColor::Yellow.on_default().bold();

/// What is on the other side of an output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    /// Whether it is a terminal.
    pub(crate) is_terminal: bool,
    has_colours: bool,
    /// How many columns a line may have; `None` for as many as it needs.
    pub(crate) width: Option<usize>,
}

impl Screen {
    /// Looks at an output; `no_colours` is the wish of the person.
    pub(crate) fn of(output: &(impl AsFd + IsTerminal), no_colours: bool) -> Self {
        let is_terminal = output.is_terminal();
        let width = is_terminal.then(|| {
            let size = rustix::termios::tcgetwinsize(output).map_or(0, |size| usize::from(size.ws_col));
            if size == 0 { USUAL_WIDTH } else { size }
        });
        Self { is_terminal, has_colours: is_terminal && !no_colours, width }
    }

    /// The text in this style, where there are colours.
    pub(crate) fn paint(&self, style: Style, text: &str) -> String {
        if self.has_colours { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    /// The text as one harmless line that fits.
    pub(crate) fn line(&self, text: &str) -> String {
        let text = harmless(text);
        match self.width {
            Some(width) => cut(&text, width),
            None => text,
        }
    }
}

/// The text on one line, with nothing in it that a terminal obeys or that makes it look like another text.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().map(|c| if is_break(c) { ' ' } else { shown(c) }).collect()
}

/// The same with its line breaks and tabs.
pub(crate) fn harmless_lines(text: &str) -> String {
    text.chars().map(|c| if c == '\n' || c == '\t' { c } else { shown(c) }).collect()
}

/// The same, with the lines behind the first one indented by two columns.
pub(crate) fn indented(text: &str) -> String {
    harmless_lines(text).replace('\n', "\n  ")
}

fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}')
}

/// A picture of a character that controls something, and any other one as it is.
fn shown(c: char) -> char {
    match c {
        // Unicode has a block of pictures for these, in the same order.
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'),
        '\u{7f}' => '\u{2421}',
        // The second set of controls, and what turns the direction of the text around it.
        '\u{80}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => '\u{fffd}',
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        // What has no picture, but for what emoji are joined with.
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
pub(crate) fn columns(text: &str) -> usize {
    text.width()
}

/// As much of the text as fits into so many columns, with an ellipsis where something is left out.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
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

/// The end of the text that fits into so many columns; for paths, which differ at their ends.
fn cut_front(text: &str, width: usize) -> String {
    if columns(text) <= width {
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
    pub(crate) room: Room,
}

/// What becomes of a column when the table is too wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// It keeps its width.
    Fixed,
    /// Its cells lose their ends.
    LosesEnd,
    /// Its cells lose their beginnings.
    LosesFront,
}

/// A column that gives room is never narrower than this.
const NARROWEST: usize = 8;

/// Renders a table with its titles; one that is too wide for the screen loses width in its longest columns.
pub(crate) fn table(screen: &Screen, columns_of: &[Column], rows: &[Vec<String>]) -> String {
    table_with_gap(2, screen, columns_of, rows)
}

/// The same with so much space between two columns.
pub(crate) fn table_with_gap(
    gap: usize,
    screen: &Screen,
    columns_of: &[Column],
    rows: &[Vec<String>],
) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| harmless(cell)).collect()).collect();
    let widest = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| columns(cell)).max();
    let mut widths: Vec<usize> = (0..)
        .zip(columns_of)
        .map(|(at, column)| columns(column.title).max(widest(at).unwrap_or(0)))
        .collect();
    if let Some(limit) = screen.width {
        let gaps = gap * columns_of.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > limit {
            let gives = |at: &usize| columns_of[*at].room != Room::Fixed && widths[*at] > NARROWEST;
            let Some(at) = (0..widths.len()).filter(gives).max_by_key(|at| widths[*at]) else { break };
            widths[at] -= 1;
        }
    }
    let render = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for ((cell, width), column) in cells.zip(&widths).zip(columns_of) {
            let cell =
                if column.room == Room::LosesFront { cut_front(cell, *width) } else { cut(cell, *width) };
            line.push_str(&cell);
            line.push_str(&" ".repeat(width.saturating_sub(columns(&cell)) + gap));
        }
        screen.width.map_or_else(|| line.trim_end().to_owned(), |limit| cut(line.trim_end(), limit))
    };
    let title = render(&mut columns_of.iter().map(|column| column.title));
    let mut lines = vec![screen.paint(STRONG, &title)];
    lines.extend(rows.iter().map(|row| render(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(width: usize) -> Screen {
        Screen { is_terminal: true, has_colours: false, width: Some(width) }
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        let text = "a\u{1b}]0;title\u{7}\rb\u{9b}2J\u{202e}c\u{7f}\nd\te";
        assert_eq!(harmless(text), "a␛]0;title␇ b\u{fffd}2J\u{fffd}c␡ d e");
        assert_eq!(harmless_lines(text), "a␛]0;title␇␍b\u{fffd}2J\u{fffd}c␡\nd\te");
        for c in (0..=0x10_ffff).filter_map(char::from_u32) {
            let line = harmless(&c.to_string());
            assert!(!line.contains(char::is_control), "{c:?} gives {line:?}");
            let lines = harmless_lines(&c.to_string());
            assert!(!lines.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "{c:?}: {lines:?}");
        }
        assert_eq!(harmless("Grüße, 世界 👋 👩‍👧 ❤️"), "Grüße, 世界 👋 👩‍👧 ❤️");
        assert_eq!(harmless("a\u{200b}b\u{e0041}c\u{3164}"), "a\u{fffd}b\u{fffd}c\u{fffd}");
    }

    #[test]
    fn a_cut_text_takes_no_more_columns_than_there_are() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("世界世界", 5), "世界…");
        assert_eq!(cut_front("/home/me/project", 8), "…project");
        for width in 0..12 {
            for text in ["世界世界世界", "e\u{301}e\u{301}e\u{301}e\u{301}", "👋👋👋", "plain text here"]
            {
                assert!(columns(&cut(text, width)) <= width, "{text} in {width}");
                assert!(columns(&cut_front(text, width)) <= width, "{text} in {width}");
            }
        }
    }

    #[test]
    fn a_table_fits_the_terminal_and_its_columns_stand_below_each_other() {
        let columns_of = [
            Column { title: "ID", room: Room::Fixed },
            Column { title: "FOLDER", room: Room::LosesFront },
            Column { title: "STATE", room: Room::Fixed },
        ];
        let rows = [
            vec!["one".to_owned(), "/home/me/世界/project".to_owned(), "idle".to_owned()],
            vec!["two\u{1b}[2J".to_owned(), "/a".to_owned(), "busy".to_owned()],
        ];
        let wide = table(&Screen { width: None, ..screen(0) }, &columns_of, &rows);
        assert!(wide.contains("/home/me/世界/project") && !wide.contains('\u{1b}'), "{wide}");
        let narrow = table(&screen(28), &columns_of, &rows);
        let place = |line: &str, word: &str| columns(line.split(word).next().unwrap());
        let lines: Vec<&str> = narrow.lines().collect();
        assert!(lines.iter().all(|line| columns(line) <= 28), "{narrow}");
        assert!(lines[1].contains("…") && lines[1].contains("project"), "{narrow}");
        assert_eq!(place(lines[0], "STATE"), place(lines[1], "idle"), "{narrow}");
        assert_eq!(place(lines[0], "STATE"), place(lines[2], "busy"), "{narrow}");
        assert!(table(&screen(5), &columns_of, &rows).lines().all(|line| columns(line) <= 5));
    }
}
