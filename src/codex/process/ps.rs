//! Reading what `ps` of macOS says.

use super::info::{Seen, pid_of};

/// The columns that are asked for, in this order; the command comes last because only it has spaces of its own.
pub(crate) const COLUMNS: &str = "pid=,ppid=,stat=,lstart=,command=";

/// The processes of a listing of [`COLUMNS`], with the environment behind each command where `ps` may show it, and
/// whether `mark` (`NAME=value`) is among its words.
pub(crate) fn parse(text: &str, mark: &str) -> Vec<Seen> {
    text.lines().filter_map(|line| parse_line(line, mark)).collect()
}

fn parse_line(line: &str, mark: &str) -> Option<Seen> {
    let mut words = line.split_whitespace();
    let pid = words.next()?.parse().ok().and_then(pid_of)?;
    let parent = words.next()?.parse().ok()?;
    let ended = words.next()?.starts_with('Z');
    // Such as "Thu Nov 20 05:54:56 2026".
    let started: Vec<_> = words.by_ref().take(5).collect();
    let marked = words.any(|word| word == mark);
    (started.len() == 5).then(|| Seen { pid, parent, started: started.join(" "), ended, marked })
}
