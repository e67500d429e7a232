//! Finds sessions and requests by what people type.
//!
//! A session is named by its ID, the ID of its thread, the beginning of its ID with or without `session-`, its title, the
//! beginning of its title, or `last`; active sessions are preferred. A request is named by its ID or the beginning of
//! it. What is unknown passes through, so that the error is the daemon's.

use std::path::Path;

use serde_json::Value;

use super::api::{REQUESTS_PATH, list};
use super::failure::Failure;
use super::terminal::sanitize_for_terminal;
use crate::commands::context::CommandContext;

/// The name of the most recently used session of a directory.
pub(crate) const LAST: &str = "last";
/// A beginning of an ID or a title has at least this many characters, so that a typing error names nothing.
const MIN_PREFIX_CHARS: usize = 4;
/// How many of several sessions with a name are shown.
const MAX_SHOWN: usize = 5;

/// Finds a session; `last` is the session of `directory` that was updated last of those that can be used.
pub(crate) async fn find_session(
    context: &CommandContext,
    named: &str,
    directory: &Path,
) -> Result<String, Failure> {
    let named = named.trim();
    if named.is_empty() {
        return Err(Failure::usage("Name a session: by its ID, the beginning of it, its title, or last."));
    }
    let answer = context.client.get("/v1/codexd/sessions?order=newest").await?;
    let sessions = list(&answer, "sessions");
    let found = if named == LAST {
        let is_usable = |session: &&Value| is_active(session) && session["archived"] != true;
        let active = sessions.iter().filter(is_usable).filter(|session| is_in(session, directory));
        let last = active.max_by_key(|session| session["updatedAt"].as_str().unwrap_or_default().to_owned());
        last.map(|session| vec![session]).ok_or_else(|| {
            Failure::new(format!(
                "No active session uses {}; \"{}\" lists all of them.",
                directory.display(),
                context.command_line("sessions")
            ))
        })?
    } else {
        matching(sessions, named)
    };
    match found.as_slice() {
        [] => Ok(named.to_owned()),
        [session] => Ok(id(session).to_owned()),
        several => {
            let lines = several.iter().take(MAX_SHOWN).map(|session| {
                let title = session["title"].as_str().unwrap_or("-");
                format!("\n{}  {}", id(session), sanitize_for_terminal(title))
            });
            let lines: String = lines.collect();
            Err(Failure::usage(format!(
                "{} sessions are named {named:?}; name one of them:{lines}",
                several.len()
            )))
        }
    }
}

/// The sessions with a name: those that match in the most exact way.
fn matching<'a>(sessions: &'a [Value], named: &str) -> Vec<&'a Value> {
    let lower = named.to_lowercase();
    let title = |session: &Value| session["title"].as_str().unwrap_or_default().to_lowercase();
    let is_long = named.chars().count() >= MIN_PREFIX_CHARS;
    let has_prefix = |session: &Value| {
        let id = id(session);
        id.starts_with(named) || id.split_once('-').is_some_and(|(_, rest)| rest.starts_with(named))
    };
    let ways: [&dyn Fn(&Value) -> bool; 5] = [
        &|session| id(session) == named,
        &|session| session["threadId"] == named,
        &|session| is_long && has_prefix(session),
        &|session| title(session) == lower,
        &|session| is_long && title(session).starts_with(&lower),
    ];
    for matches in ways {
        for is_wanted in [is_active, |_: &Value| true] {
            let found: Vec<_> =
                sessions.iter().filter(|session| is_wanted(session) && matches(session)).collect();
            if !found.is_empty() {
                return found;
            }
        }
    }
    Vec::new()
}

/// Finds a request.
pub(crate) async fn find_request(context: &CommandContext, named: &str) -> Result<String, Failure> {
    let named = named.trim();
    let answer = context.client.get(REQUESTS_PATH).await?;
    let ids = list(&answer, "requests").iter().filter_map(|request| request["requestId"].as_str());
    let has_prefix = |id: &&str| {
        id.starts_with(named) || id.split_once('-').is_some_and(|(_, rest)| rest.starts_with(named))
    };
    let is_long = named.chars().count() >= MIN_PREFIX_CHARS;
    let found: Vec<_> = ids.filter(|id| *id == named || is_long && has_prefix(id)).collect();
    match found.as_slice() {
        [id] => Ok((*id).to_owned()),
        several if several.len() > 1 && !several.contains(&named) => Err(Failure::usage(format!(
            "{} requests begin with {named:?}; name one of them: {}.",
            several.len(),
            several.join(", ")
        ))),
        _ => Ok(named.to_owned()),
    }
}

fn id(session: &Value) -> &str {
    session["sessionId"].as_str().unwrap_or_default()
}

fn is_active(session: &Value) -> bool {
    session["status"] == "active"
}

fn is_in(session: &Value, directory: &Path) -> bool {
    let cwd = Path::new(session["cwd"].as_str().unwrap_or_default());
    cwd == directory || cwd.canonicalize().is_ok_and(|cwd| cwd == directory)
}

/// Returns the canonical path of the named directory, or of the current one.
pub(crate) fn current_or_named_directory(named: Option<&str>) -> Result<std::path::PathBuf, Failure> {
    let named = named.unwrap_or(".");
    let found = Path::new(named).canonicalize();
    found.map_err(|error| Failure::usage(format!("The directory {named} cannot be used: {error}.")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sessions_match_by_id_prefix_or_title() {
        let session = |id: &str, thread: &str, status: &str, title: &str| json!({ "sessionId": id, "threadId": thread, "status": status, "title": title });
        let sessions = [
            session("session-abcd1-x", "t-1", "active", "Fix the build"),
            session("session-abcd2-y", "t-2", "active", "Fix the tests"),
            session("session-abce3-z", "t-3", "closed", "Fix the build"),
        ];
        for (named, expected) in [
            ("session-abcd2-y", &["session-abcd2-y"][..]),
            ("t-3", &["session-abce3-z"]),
            ("abcd1", &["session-abcd1-x"]),
            ("session-abcd1", &["session-abcd1-x"]),
            ("abce", &["session-abce3-z"]),
            // An active session is preferred to a closed one.
            ("fix the build", &["session-abcd1-x"]),
            ("FIX THE T", &["session-abcd2-y"]),
            ("abcd", &["session-abcd1-x", "session-abcd2-y"]),
            ("Fix the", &["session-abcd1-x", "session-abcd2-y"]),
            // Too short, or in the middle.
            ("abc", &[]),
            ("Fix", &[]),
            ("the build", &[]),
        ] {
            let found: Vec<_> = matching(&sessions, named).into_iter().map(id).collect();
            assert_eq!(found, expected, "{named}");
        }
    }
}
