//! Parses the output of `ps` on macOS.

use super::info::{PROGRAM_VARIABLE, ProcessInfo, pid_of};

/// The columns, in this order; the command comes last because only it contains spaces.
pub(crate) const PS_COLUMNS: &str = "pid=,ppid=,pgid=,stat=,lstart=,command=";

/// Parses a listing of [`PS_COLUMNS`], where `ps` appends the environment to the command if it may show it. `mark`
/// (`NAME=value`) is searched there.
pub(crate) fn parse(text: &str, mark: &str) -> Vec<ProcessInfo> {
    text.lines().filter_map(|line| parse_line(line, mark)).collect()
}

fn parse_line(line: &str, mark: &str) -> Option<ProcessInfo> {
    let mut fields = line.split_whitespace();
    let pid = fields.next()?.parse().ok().and_then(pid_of)?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let has_ended = fields.next()?.starts_with('Z');
    // For example "Thu Nov 20 05:54:56 2026".
    let start_time: Vec<_> = fields.by_ref().take(5).collect();
    let (mut is_marked, mut is_program) = (false, false);
    for field in fields {
        is_marked |= field == mark;
        is_program |= field.strip_prefix(PROGRAM_VARIABLE).is_some_and(|rest| rest.starts_with('='));
    }
    (start_time.len() == 5).then(|| ProcessInfo {
        pid,
        parent,
        group,
        start_time: start_time.join(" "),
        has_ended,
        is_marked,
        is_program,
    })
}
