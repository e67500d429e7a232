//! The decisions that a client may take about a request of the app-server, and the reply that each becomes.

use serde_json::{Value, json};

use super::server_requests::{MODE_URL, ServerRequestKind};

/// Yes, this once.
pub const ACCEPT: &str = "accept";
/// Yes, and do not ask again in this thread.
pub const ACCEPT_FOR_SESSION: &str = "acceptForSession";
/// No; the turn continues.
pub const DECLINE: &str = "decline";
/// No, and the turn ends.
pub const CANCEL: &str = "cancel";
/// An object: yes, and do not ask again about commands that begin with these arguments.
pub const ACCEPT_WITH_POLICY: &str = "acceptWithExecpolicyAmendment";
/// In the object of [`ACCEPT_WITH_POLICY`]: the arguments.
const POLICY_ARGUMENTS: &str = "execpolicy_amendment";

/// Every decision that is a string.
pub const ALL: &[&str] = &[ACCEPT, ACCEPT_FOR_SESSION, DECLINE, CANCEL];

fn values<const N: usize>(names: [&str; N]) -> Vec<Value> {
    names.map(Value::from).to_vec()
}

/// The decisions that may be taken about a request.
///
/// The app-server offers some; it accepts [`DECLINE`] also when it does not offer it (measured on 0.169.0).
pub fn offered(method: &str, params: &Value) -> Vec<Value> {
    let all = || values([ACCEPT, ACCEPT_FOR_SESSION, DECLINE, CANCEL]);
    match ServerRequestKind::of(method) {
        Some(ServerRequestKind::Command) => match params["availableDecisions"].as_array() {
            Some(offered) => {
                let mut offered = offered.clone();
                if !offered.contains(&DECLINE.into()) {
                    offered.push(DECLINE.into());
                }
                offered
            }
            None => all(),
        },
        Some(
            ServerRequestKind::FileChange | ServerRequestKind::LegacyCommand | ServerRequestKind::LegacyPatch,
        ) => all(),
        Some(ServerRequestKind::Permissions) => values([ACCEPT, ACCEPT_FOR_SESSION, DECLINE]),
        Some(ServerRequestKind::UserInput) => values([DECLINE]),
        Some(ServerRequestKind::Elicitation) if is_yes_or_no(params) => values([ACCEPT, DECLINE, CANCEL]),
        Some(ServerRequestKind::Elicitation) => values([DECLINE, CANCEL]),
        None => Vec::new(),
    }
}

/// Whether a question of an MCP server is answered by yes or no: it has a form without fields, or an address to visit.
fn is_yes_or_no(params: &Value) -> bool {
    let fields = params["requestedSchema"]["properties"].as_object();
    params["mode"] == MODE_URL || fields.is_some_and(|fields| fields.is_empty())
}

/// The result that carries a decision, in the form that the app-server expects for the method.
pub fn reply(method: &str, params: &Value, decision: &Value) -> Value {
    match (ServerRequestKind::of(method), decision.as_str()) {
        (Some(ServerRequestKind::Permissions), Some(ACCEPT)) => {
            json!({ "permissions": params["permissions"], "scope": "turn" })
        }
        (Some(ServerRequestKind::Permissions), Some(ACCEPT_FOR_SESSION)) => {
            json!({ "permissions": params["permissions"], "scope": "session" })
        }
        // What is left out is denied.
        (Some(ServerRequestKind::Permissions), _) => json!({ "permissions": {}, "scope": "turn" }),
        (Some(ServerRequestKind::UserInput), _) => json!({ "answers": {} }),
        // The content of an accepted form is what was filled in (Model Context Protocol, elicitation).
        (Some(ServerRequestKind::Elicitation), Some(ACCEPT)) if params["mode"] != MODE_URL => {
            json!({ "action": ACCEPT, "content": {}, "_meta": null })
        }
        (Some(ServerRequestKind::Elicitation), _) => {
            json!({ "action": decision, "content": null, "_meta": null })
        }
        (Some(ServerRequestKind::LegacyCommand | ServerRequestKind::LegacyPatch), name) => {
            json!({ "decision": match name {
                Some(ACCEPT) => json!("approved"),
                Some(ACCEPT_FOR_SESSION) => json!("approved_for_session"),
                Some(CANCEL) => json!("abort"),
                _ => json!({ "denied": { "rejection": "declined" } }),
            }})
        }
        _ => json!({ "decision": decision }),
    }
}

/// The first arguments of the commands that an [`ACCEPT_WITH_POLICY`] decision allows; `None` for another decision.
pub fn policy_arguments(decision: &Value) -> Option<&Value> {
    Some(&decision[ACCEPT_WITH_POLICY][POLICY_ARGUMENTS]).filter(|arguments| arguments.is_array())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codex::protocol::server_requests as requests;

    #[test]
    fn offered_decisions_are_those_of_codex_and_decline() {
        let command = requests::COMMAND_APPROVAL;
        let amendment = json!({"acceptWithExecpolicyAmendment": {"execpolicy_amendment": ["ls"]}});
        let available = json!({"availableDecisions": ["accept", amendment, "cancel"]});
        assert_eq!(
            offered(command, &available),
            [json!("accept"), amendment.clone(), json!("cancel"), json!("decline")]
        );
        assert_eq!(offered(command, &json!({})).len(), 4);
        assert!(offered("attestation/generate", &json!({})).is_empty());
        assert_eq!(reply(command, &available, &amendment), json!({"decision": amendment}));
        assert_eq!(policy_arguments(&amendment), Some(&json!(["ls"])));
    }

    #[test]
    fn reply_declines_each_kind_of_request_in_its_own_form() {
        let decline = |method| reply(method, &json!({"permissions": {"network": {}}}), &"decline".into());
        assert_eq!(decline("item/fileChange/requestApproval"), json!({"decision": "decline"}));
        assert_eq!(decline("item/permissions/requestApproval"), json!({"permissions": {}, "scope": "turn"}));
        assert_eq!(decline("item/tool/requestUserInput"), json!({"answers": {}}));
        assert_eq!(decline("mcpServer/elicitation/request")["action"], "decline");
        assert!(decline("execCommandApproval")["decision"]["denied"].is_object());
    }
}
