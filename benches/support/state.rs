//! State directories with much in them.

use std::path::Path;

use serde_json::json;

use crate::daemon::Daemon;

/// Writes `count` sessions into the registry of a stopped daemon.
pub(crate) fn sessions(directory: &Path, count: usize) {
    let state = directory.join("state/codexd");
    std::fs::create_dir_all(&state).unwrap();
    let session = |number: usize| {
        json!({
            "sessionId": format!("session-{number:08}"), "purpose": "duplex", "threadId": format!("thread-{number:08}"),
            "status": "active", "endpoint": "stdio://codex-app-server", "childPid": 1,
            "createdAt": "2026-01-02T03:04:05.678Z", "updatedAt": "2026-01-02T03:04:05.678Z", "cwd": "/work/project",
            "model": "a-model", "modelProvider": "a-provider", "serviceTier": null, "reasoningEffort": "medium",
            "currentTurnId": null, "lastTurnId": null, "lastTurnStatus": null, "metadata": {"owner": "a benchmark"},
        })
    };
    let sessions: Vec<_> = (0..count).map(session).collect();
    let registry = json!({ "formatVersion": 1, "throughSeq": 0, "updatedAt": null, "sessions": sessions });
    std::fs::write(state.join("session-registry.json"), registry.to_string()).unwrap();
    let daemon = json!({ "formatVersion": 1, "throughSeq": 0 });
    std::fs::write(state.join("daemon-state.json"), daemon.to_string()).unwrap();
}

/// Fills the log of a stopped daemon and marks all of it as applied in the records.
pub(crate) fn full_log(directory: &Path) {
    const SEGMENTS: u64 = 16;
    let logs = directory.join("logs/codexd");
    std::fs::create_dir_all(&logs).unwrap();
    let mut seq = 1;
    for number in 0..SEGMENTS {
        let first = seq;
        let mut text = String::with_capacity(33 << 20);
        while text.len() < (32 << 20) - 512 {
            text.push_str(&format!(
                "{{\"seq\":{seq},\"createdAt\":\"2026-01-02T03:04:05.678Z\",\"level\":\"info\",\
                 \"type\":\"app-server.turn.message.delta\",\"message\":\"App-server emitted delta for turn u: alpha\",\
                 \"detail\":{{\"delta\":\"alpha-0 ....\",\"itemId\":\"i\",\"threadId\":\"t\",\"turnId\":\"u\"}}}}\n"
            ));
            seq += 1;
        }
        let name = if number + 1 == SEGMENTS {
            "events.jsonl".to_owned()
        } else {
            format!("events-{first:020}.jsonl")
        };
        std::fs::write(logs.join(name), text).unwrap();
    }
    let state = directory.join("state/codexd");
    std::fs::create_dir_all(&state).unwrap();
    let through = seq - 1;
    let registry = state.join("session-registry.json");
    let sessions = std::fs::read(&registry).ok().map_or(json!([]), |text| {
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()["sessions"].take()
    });
    let file = json!({ "formatVersion": 1, "throughSeq": through, "updatedAt": null, "sessions": sessions });
    std::fs::write(registry, file.to_string()).unwrap();
    let daemon = json!({ "formatVersion": 1, "throughSeq": through });
    std::fs::write(state.join("daemon-state.json"), daemon.to_string()).unwrap();
}

/// Stops the daemon; returns its directory.
pub(crate) fn stop(mut daemon: Daemon) -> tempfile::TempDir {
    daemon.directory.take().unwrap()
}
