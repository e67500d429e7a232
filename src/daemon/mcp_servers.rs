//! MCP servers that did not start, by thread.
//!
//! Codex starts them for each thread that it loads and reports the outcome, so the table holds those of one generation;
//! it is not stored on disk.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use schemars::JsonSchema;
use serde::Serialize;

use crate::codex::protocol::notifications::McpServerStatus;
use crate::codex::redact;
use crate::ids::ThreadId;

/// The most threads in the table.
const MAX_THREADS: usize = 1000;

/// An MCP server that did not start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailedMcpServer {
    /// Its name in the configuration of Codex.
    pub name: String,
    /// Why, as Codex reports it.
    pub error: String,
}

/// Why servers of a thread did not start, by their names.
type Errors = BTreeMap<String, String>;

/// The failed servers of this generation.
#[derive(Debug, Default)]
pub(super) struct FailedMcpServers {
    known: Mutex<(u64, HashMap<ThreadId, Errors>)>,
}

impl FailedMcpServers {
    /// Stores the parameters of a startup status; returns the thread and the server when it failed.
    pub(super) fn handle_status(&self, generation: u64, params: &str) -> Option<(ThreadId, FailedMcpServer)> {
        let status = McpServerStatus::read(params)?;
        let is_failed = status.is_failed();
        let McpServerStatus { thread_id, name, error, .. } = status;
        let thread_id = thread_id?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != generation {
            *known = (generation, HashMap::new());
        }
        let threads = &mut known.1;
        if !is_failed {
            if let Some(servers) = threads.get_mut(&thread_id) {
                servers.remove(&name);
            }
            return None;
        }
        let error = redact(error.as_deref().unwrap_or("no reason given"));
        if threads.len() < MAX_THREADS || threads.contains_key(&thread_id) {
            threads.entry(thread_id.clone()).or_default().insert(name.clone(), error.clone());
        }
        Some((thread_id, FailedMcpServer { name, error }))
    }

    /// Those of a thread, by their names.
    pub(super) fn of(&self, thread_id: Option<&ThreadId>) -> Vec<FailedMcpServer> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let servers = thread_id.and_then(|thread_id| known.1.get(thread_id)).into_iter().flatten();
        let server =
            |(name, error): (&String, &String)| FailedMcpServer { name: name.clone(), error: error.clone() };
        servers.map(server).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn failed_mcp_server_that_starts_later_is_removed() {
        let servers = FailedMcpServers::default();
        let handle = |generation, name: &str, status: &str, error: Option<&str>| {
            let params = json!({ "threadId": "t", "name": name, "status": status, "error": error });
            servers.handle_status(generation, &params.to_string())
        };
        assert_eq!(handle(1, "a", "starting", None), None);
        let failed = FailedMcpServer { name: "a".to_owned(), error: "no key sk-***".to_owned() };
        assert_eq!(
            handle(1, "a", "failed", Some("no key sk-abcdefghijk")),
            Some(("t".into(), failed.clone()))
        );
        assert_eq!(
            (servers.of(Some(&"t".into())), servers.of(Some(&"u".into()))),
            (vec![failed], Vec::new())
        );
        assert_eq!(handle(1, "a", "ready", None), None);
        assert_eq!(servers.of(Some(&"t".into())), []);
        handle(1, "a", "failed", None);
        handle(2, "b", "starting", None);
        assert_eq!(servers.of(Some(&"t".into())), []);
    }
}
