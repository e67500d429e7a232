//! The tables of a message.

use pulldown_cmark::Alignment;

use crate::commands::terminal::{FAINT, OutputTarget};
use crate::commands::wrap::{Span, WrappedLine, paint_line, wrap};

/// A column of a table is never narrower than this.
const MIN_CELL_WIDTH: usize = 3;
/// A table; each cell is a text.
#[derive(Default)]
pub(super) struct Table {
    pub(super) alignments: Vec<Alignment>,
    pub(super) rows: Vec<Vec<Vec<Span>>>,
}

impl Table {
    /// Its lines, with the first row as titles.
    pub(super) fn lines(&self, screen: &OutputTarget, width: usize) -> Vec<String> {
        let Self { alignments, rows } = self;
        let mut lines = Vec::new();
        let widths = column_widths(rows, alignments.len(), width);
        for (at, row) in rows.iter().enumerate() {
            let cells: Vec<Vec<WrappedLine>> = widths
                .iter()
                .enumerate()
                .map(|(at, width)| wrap(row.get(at).map_or(&[], Vec::as_slice), *width))
                .collect();
            let height = cells.iter().map(Vec::len).max().unwrap_or(0);
            for line in 0..height {
                let mut text = String::new();
                for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                    let pieces = cell.get(line).map_or(&[][..], |line| &line.pieces);
                    let pieces: Vec<Span> = pieces
                        .iter()
                        .map(|piece| Span {
                            style: if at == 0 { piece.style.bold() } else { piece.style },
                            ..piece.clone()
                        })
                        .collect();
                    let free = width.saturating_sub(pieces.iter().map(Span::width).sum());
                    let left = match alignments.get(column) {
                        Some(Alignment::Right) => free,
                        Some(Alignment::Center) => free / 2,
                        _ => 0,
                    };
                    let gap = if column == 0 { "" } else { "  " };
                    text.push_str(&format!("{gap}{}", " ".repeat(left)));
                    text.push_str(&paint_line(screen, &pieces));
                    text.push_str(&" ".repeat(free - left));
                }
                lines.push(text.trim_end().to_owned());
            }
            if at == 0 {
                let rule: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
                lines.push(screen.paint(FAINT, &rule.join("  ")));
            }
        }
        lines
    }
}

/// The widths of the columns of a table: the widest ones give way until the table fits.
fn column_widths(rows: &[Vec<Vec<Span>>], count: usize, width: usize) -> Vec<usize> {
    let widest = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.iter().map(Span::width).sum::<usize>()).max().unwrap_or(0)
    };
    let mut widths: Vec<usize> = (0..count).map(|column| widest(column).max(MIN_CELL_WIDTH)).collect();
    while widths.iter().sum::<usize>() + 2 * count.saturating_sub(1) > width {
        let Some(widest) = widths.iter_mut().filter(|width| **width > MIN_CELL_WIDTH).max() else { break };
        *widest -= 1;
    }
    widths
}
