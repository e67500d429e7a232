//! The client methods of the app-server that clients of codexd may call, and the reason for each.
//!
//! Stateless; used by `daemon/calls.rs`. A test compares the table with the methods of the installed Codex, so that a new
//! release is noticed.

use serde_json::{Value, json};

/// Who may call a method through codexd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// No client: codexd calls it, and this route does what it is for.
    Owned {
        /// The route to use instead.
        instead: &'static str,
    },
    /// Every client, unless all calls are turned off: it reads, or does what a person does to a thread or a login.
    Safe,
    /// Only where all calls are allowed.
    Restricted,
}

/// Methods for which the same holds.
pub struct Group {
    /// Who may call them.
    pub access: Access,
    /// Why, as the end of a sentence that begins with the method.
    pub reason: &'static str,
    /// The methods.
    pub methods: &'static [&'static str],
}

/// Compacts the history of a thread, in a turn of its own that the response does not name.
pub const COMPACT: &str = "thread/compact/start";
/// Reviews changes, in a turn of its own that the response names.
pub const REVIEW: &str = "review/start";
/// Removes a turn and those after it from the history of a thread (0.171.0).
pub const REVERT: &str = "thread/revert";
/// Sets the goal of a thread.
pub const GOAL_SET: &str = "thread/goal/set";
/// Reads the goal of a thread.
pub const GOAL_GET: &str = "thread/goal/get";
/// Removes the goal of a thread.
pub const GOAL_CLEAR: &str = "thread/goal/clear";
/// Starts a login.
pub const LOGIN_START: &str = "account/login/start";
/// Cancels a login.
pub const LOGIN_CANCEL: &str = "account/login/cancel";
/// Logs out.
pub const LOGOUT: &str = "account/logout";
/// Notification: a login succeeded or failed.
pub const LOGIN_COMPLETED: &str = "account/login/completed";

/// The parameters of [`LOGIN_START`] for a login on another device, with a code.
pub fn device_code_login() -> Value {
    json!({ "type": "chatgptDeviceCode" })
}

/// The parameters of [`REVIEW`]: these instructions, a branch to compare with, a commit, or the changes that are not
/// committed.
pub fn review_params(instructions: Option<&str>, base: Option<&str>, commit: Option<&str>) -> Value {
    let target = match (instructions, base, commit) {
        (Some(instructions), _, _) => json!({ "type": "custom", "instructions": instructions }),
        (_, Some(branch), _) => json!({ "type": "baseBranch", "branch": branch }),
        (_, _, Some(sha)) => json!({ "type": "commit", "sha": sha }),
        _ => json!({ "type": "uncommittedChanges" }),
    };
    json!({ "target": target })
}

const fn owned(instead: &'static str, methods: &'static [&'static str]) -> Group {
    Group { access: Access::Owned { instead }, reason: "is called by codexd itself", methods }
}

const fn safe(reason: &'static str, methods: &'static [&'static str]) -> Group {
    Group { access: Access::Safe, reason, methods }
}

const fn restricted(reason: &'static str, methods: &'static [&'static str]) -> Group {
    Group { access: Access::Restricted, reason, methods }
}

/// Every client method of Codex 0.140.0 to 0.171.0, experimental ones included.
pub const GROUPS: &[Group] = &[
    owned("GET /v1/codexd/app-server", &["initialize"]),
    owned("POST /v1/codexd/sessions", &["thread/start", "thread/resume", "thread/fork"]),
    owned("DELETE /v1/codexd/sessions/{session_id}", &["thread/unsubscribe"]),
    owned("POST /v1/codexd/turn", &["turn/start", "turn/steer", "turn/settings/update"]),
    owned("POST /v1/codexd/turn/interrupt", &["turn/interrupt"]),
    safe(
        "reads threads",
        &[
            "thread/attachment/list",
            "thread/attachmentOwner/list",
            "thread/backgroundTerminals/list",
            GOAL_GET,
            "thread/items/list",
            "thread/items/read",
            "thread/list",
            "thread/loaded/list",
            "thread/memory/read",
            "thread/queue/list",
            "thread/read",
            "thread/realtime/list",
            "thread/realtime/listVoices",
            "thread/search",
            "thread/searchOccurrences",
            "thread/timeline/list",
            "thread/turns/items/list",
            "thread/turns/list",
            "threadSection/list",
            "project/list",
            "project/read",
            "memory/status",
        ],
    ),
    safe(
        "reads what Codex offers",
        &[
            "app/installed",
            "app/list",
            "app/read",
            "collaborationMode/list",
            "configRequirements/read",
            "environment/info",
            "environment/status",
            "experimentalFeature/list",
            "externalAgentConfig/detect",
            "externalAgentConfig/import/readHistories",
            "fuzzyFileSearch",
            "hooks/list",
            "mcpServerStatus/list",
            "model/list",
            "modelProvider/capabilities/read",
            "modelProvider/list",
            "permissionProfile/list",
            "plugin/installed",
            "plugin/list",
            "plugin/read",
            "plugin/search",
            "plugin/share/list",
            "plugin/skill/read",
            "remoteControl/client/list",
            "remoteControl/status/read",
            "server/diagnostics",
            "skills/list",
            "userVerification/status",
            "windowsSandbox/readiness",
        ],
    ),
    safe(
        "reads the account",
        &[
            "account/rateLimits/read",
            "account/read",
            "account/securitySetup/read",
            "account/usage/read",
            "account/workspaceMessages/read",
            "accountSession/list",
        ],
    ),
    safe(
        "does to a thread what a person does at the terminal",
        &[
            REVIEW,
            "thread/archive",
            "thread/backgroundTerminals/clean",
            "thread/backgroundTerminals/terminate",
            COMPACT,
            GOAL_CLEAR,
            GOAL_SET,
            "thread/name/set",
            "thread/readState/update",
            REVERT,
            "thread/rollback",
            "thread/section/move",
            "thread/unarchive",
        ],
    ),
    safe("logs a person in or out", &[LOGIN_CANCEL, LOGIN_START, LOGOUT]),
    restricted(
        "runs programs outside the sandbox of a turn",
        &[
            "command/exec",
            "command/exec/resize",
            "command/exec/terminate",
            "command/exec/write",
            "process/kill",
            "process/resizePty",
            "process/spawn",
            "process/writeStdin",
            "thread/shellCommand",
            "windowsSandbox/setupStart",
        ],
    ),
    restricted(
        "reads or changes files of the user",
        &[
            "fs/copy",
            "fs/createDirectory",
            "fs/getMetadata",
            "fs/readDirectory",
            "fs/readFile",
            "fs/remove",
            "fs/unwatch",
            "fs/watch",
            "fs/writeFile",
        ],
    ),
    restricted(
        "uses an MCP server outside a turn",
        &[
            "mcpServer/event/stream/start",
            "mcpServer/event/stream/stop",
            "mcpServer/oauth/login",
            "mcpServer/resource/read",
            "mcpServer/tool/call",
        ],
    ),
    restricted("reads the configuration, which can contain secrets", &["config/read"]),
    restricted(
        "changes the configuration of Codex",
        &[
            "config/batchWrite",
            "config/mcpServer/reload",
            "config/value/write",
            "environment/add",
            "experimentalFeature/enablement/set",
            "externalAgentConfig/import",
            "externalAgentConfig/import/recordHistory",
            "modelProvider/config/write",
            "modelProvider/default/set",
            "skills/config/write",
            "skills/extraRoots/set",
        ],
    ),
    restricted(
        "installs, removes or shares code",
        &[
            "marketplace/add",
            "marketplace/remove",
            "marketplace/upgrade",
            "plugin/install",
            "plugin/reconcile",
            "plugin/share/checkout",
            "plugin/share/delete",
            "plugin/share/save",
            "plugin/share/updateTargets",
            "plugin/uninstall",
        ],
    ),
    restricted(
        "deletes or rewrites what is stored, or changes how it is organized",
        &[
            "memory/reset",
            "project/create",
            "project/delete",
            "project/import",
            "project/move",
            "project/update",
            "rollout/compress",
            "thread/attachment/add",
            "thread/attachment/remove",
            "thread/delete",
            "thread/memoryMode/set",
            "thread/metadata/update",
            "threadSection/create",
            "threadSection/delete",
            "threadSection/update",
        ],
    ),
    restricted(
        "changes what the model sees or may do",
        &[
            "thread/approveGuardianDeniedAction",
            "thread/decrement_elicitation",
            "thread/guardianReview",
            "thread/increment_elicitation",
            "thread/inject_items",
            "thread/prepareApprovedPlan",
            "thread/settings/update",
        ],
    ),
    restricted(
        "starts turns in an order that codexd does not know; queue turns with \"whenBusy\": \"queue\"",
        &[
            "thread/queue/add",
            "thread/queue/delete",
            "thread/queue/reorder",
            "thread/queue/start",
            "thread/queue/update",
        ],
    ),
    restricted(
        "uses the model outside a turn",
        &[
            "thread/prediction/request",
            "thread/realtime/appendAudio",
            "thread/realtime/appendSpeech",
            "thread/realtime/appendText",
            "thread/realtime/start",
            "thread/realtime/stop",
            "thread/sample",
            "thread/sample/cancel",
        ],
    ),
    restricted(
        "answers by notifications, over several calls",
        &[
            "fuzzyFileSearch/sessionStart",
            "fuzzyFileSearch/sessionStop",
            "fuzzyFileSearch/sessionUpdate",
            "thread/search/cancel",
            "thread/search/stream",
            "thread/search/stream/cancel",
        ],
    ),
    restricted(
        "changes the account or how it is paid for",
        &[
            "account/bedrock/checkGovCloudRequirements",
            "account/bedrock/discover",
            "account/bedrock/setup",
            "account/gatewayOAuth/cancel",
            "account/gatewayOAuth/login",
            "account/gatewayOAuth/read",
            "account/gcp/setup",
            "account/rateLimitResetCredit/consume",
            "account/sendAddCreditsNudgeEmail",
            "accountSession/switch",
        ],
    ),
    restricted(
        "opens this machine or its data to others",
        &[
            "feedback/save",
            "feedback/upload",
            "remoteControl/client/revoke",
            "remoteControl/disable",
            "remoteControl/enable",
            "remoteControl/pairing/start",
            "remoteControl/pairing/status",
            "userVerification/cancel",
            "userVerification/delete",
            "userVerification/enroll",
            "userVerification/verify",
        ],
    ),
    restricted("is for tests of Codex", &["mock/experimentalMethod"]),
];

/// The group of a method; `None` for one that no known release has.
pub fn group(method: &str) -> Option<&'static Group> {
    GROUPS.iter().find(|group| group.methods.contains(&method))
}

/// Whether a call begins a turn in the thread that it names.
pub fn begins_turn(method: &str) -> bool {
    [COMPACT, REVIEW].contains(&method)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_is_in_one_group() {
        let mut methods: Vec<_> = GROUPS.iter().flat_map(|group| group.methods).collect();
        let count = methods.len();
        methods.sort_unstable();
        methods.dedup();
        assert_eq!(methods.len(), count);
    }

    #[test]
    fn methods_that_begin_a_turn_are_in_the_table() {
        assert!([COMPACT, REVIEW].iter().all(|method| group(method).is_some()));
    }
}
