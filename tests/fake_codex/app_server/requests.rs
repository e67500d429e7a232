//! Requests to the client, and how a turn handles the responses.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::control::{Control, Response, Turn};
use super::items;
use super::script::Ask;
use super::turn::{Stop, TurnRunner};
use super::wire::locked;

/// The requests without a response; their IDs begin at 0 in every process.
#[derive(Default)]
pub(super) struct Requests {
    next: AtomicI64,
    open: Mutex<HashMap<i64, Arc<Turn>>>,
}

impl Requests {
    /// A new request of `turn`.
    pub(super) fn open(&self, turn: &Arc<Turn>) -> i64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        locked(&self.open).insert(id, Arc::clone(turn));
        id
    }

    /// Delivers a response to the turn that waits for it, and drops any other.
    pub(super) fn deliver(&self, id: i64, response: Response) {
        let turn = locked(&self.open).remove(&id);
        if let Some(turn) = turn {
            turn.deliver(id, response);
        }
    }

    fn close(&self, id: i64) {
        locked(&self.open).remove(&id);
    }
}

/// The outcome of an item that needed an approval.
#[derive(Clone, Copy, PartialEq)]
enum Outcome {
    Completed,
    Declined,
    /// Declined, and the turn is interrupted.
    Cancelled,
    Failed,
}

impl Outcome {
    fn status(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Declined | Self::Cancelled => "declined",
            Self::Failed => "failed",
        }
    }
}

const APPROVAL_COMMAND: &str = "touch approved";

fn colour_question() -> Value {
    json!({
        "id": "colour",
        "header": "Colour",
        "question": "Which colour?",
        "isOther": false,
        "isSecret": false,
        "options": [
            { "label": "red", "description": "The first one" },
            { "label": "blue", "description": "The other one" },
        ],
    })
}

fn secret_question() -> Value {
    json!({
        "id": "word",
        "header": "Word",
        "question": "What is the secret word?",
        "isOther": false,
        "isSecret": true,
        "options": null,
    })
}

impl TurnRunner {
    /// Sends a request to the client and waits for the response.
    pub(super) fn ask(&mut self, ask: Ask) -> Result<(), Stop> {
        match ask {
            Ask::Command => self.ask_command(),
            Ask::File => self.ask_file(),
            Ask::Permissions => {
                let params = json!({
                    "environmentId": "local",
                    "cwd": self.cwd(),
                    "reason": "The fake app-server asks for the network.",
                    "permissions": { "network": { "enabled": true }, "fileSystem": null },
                });
                self.request_without_item("item/permissions/requestApproval", "waitingOnApproval", params)
            }
            Ask::Input => self.ask_questions(&[colour_question()]),
            Ask::Questions => self.ask_questions(&[colour_question(), secret_question()]),
            Ask::Confirmation => self.ask_elicitation("May the wall be painted?", json!({})),
            Ask::Form => self.ask_elicitation(
                "How is the wall to be painted?",
                json!({
                    "painter": { "type": "string", "title": "Painter", "description": "Who paints" },
                    "coats": { "type": "integer", "minimum": 1 },
                    "colour": { "type": "string", "enum": ["red", "blue"], "enumNames": ["Red", "Blue"] },
                    "finish": { "type": "string", "oneOf": [{ "const": "m", "title": "Matt" }] },
                    "wash": { "type": "boolean", "default": true },
                }),
            ),
            Ask::Unknown => {
                self.request_without_item("item/unheardOf/request", "waitingOnApproval", json!({}))
            }
        }
    }

    fn ask_questions(&mut self, questions: &[Value]) -> Result<(), Stop> {
        let params = json!({ "questions": questions, "autoResolutionMs": null });
        self.request_without_item("item/tool/requestUserInput", "waitingOnUserInput", params)
    }

    fn ask_elicitation(&mut self, message: &str, properties: Value) -> Result<(), Stop> {
        let params = json!({
            "serverName": "paint",
            "mode": "form",
            "message": message,
            "requestedSchema": { "type": "object", "properties": properties, "required": ["painter"] },
            "_meta": null,
        });
        self.request_without_item("mcpServer/elicitation/request", "waitingOnApproval", params)
    }

    fn ask_command(&mut self) -> Result<(), Stop> {
        let id = self.shared.item_id("call");
        let cwd = self.cwd();
        self.set_flags(&["waitingOnApproval"]);
        let mut item = items::command(&id, APPROVAL_COMMAND, &cwd, None);
        self.begin_item(&mut item);
        let arguments: Vec<&str> = APPROVAL_COMMAND.split(' ').collect();
        let params = json!({
            "kind": "command",
            "threadId": self.thread.id,
            "turnId": self.turn.id,
            "itemId": id,
            "startedAtMs": item["startedAtMs"],
            "environmentId": "local",
            "command": items::shell_line(APPROVAL_COMMAND),
            "cwd": cwd,
            "commandActions": [{ "type": "unknown", "command": APPROVAL_COMMAND }],
            "proposedExecpolicyAmendment": arguments,
            "availableDecisions": [
                "accept",
                { "acceptWithExecpolicyAmendment": { "execpolicy_amendment": arguments } },
                "cancel",
            ],
        });
        let response = self.request("item/commandExecution/requestApproval", &params)?;
        let outcome = self.outcome(&response);
        if outcome == Outcome::Completed {
            self.set_flags(&[]);
            item["processId"] = json!("1");
            item["source"] = json!("unifiedExecStartup");
            items::command_ended(&mut item, "completed", Some("done\n"), Some(0));
            self.complete_item(item);
            Ok(())
        } else {
            items::command_ended(&mut item, outcome.status(), None, None);
            self.complete_rejected_item(item, outcome)
        }
    }

    fn ask_file(&mut self) -> Result<(), Stop> {
        let id = self.shared.item_id("call");
        let mut item = items::file_change(&id, &format!("{}/approved.txt", self.cwd()));
        self.begin_item(&mut item);
        self.set_flags(&["waitingOnApproval"]);
        let params = json!({
            "threadId": self.thread.id,
            "turnId": self.turn.id,
            "itemId": id,
            "startedAtMs": item["startedAtMs"],
            "reason": null,
            "grantRoot": null,
        });
        let response = self.request("item/fileChange/requestApproval", &params)?;
        let outcome = self.outcome(&response);
        item["status"] = json!(outcome.status());
        if outcome == Outcome::Completed {
            self.set_flags(&[]);
            self.complete_item(item);
            self.diff();
            Ok(())
        } else {
            self.complete_rejected_item(item, outcome)
        }
    }

    /// Sends a request without an item; the turn continues after any response.
    fn request_without_item(&mut self, method: &str, flag: &'static str, more: Value) -> Result<(), Stop> {
        let mut params = json!({
            "threadId": self.thread.id,
            "turnId": self.turn.id,
            "itemId": self.shared.item_id("call"),
            "startedAtMs": super::wire::now_ms(),
        });
        if let (Value::Object(params), Value::Object(more)) = (&mut params, more) {
            params.extend(more);
        }
        self.set_flags(&[flag]);
        self.request(method, &params)?;
        self.set_flags(&[]);
        Ok(())
    }

    /// Completes a rejected item. The status changes back after that; for an accepted item it changes before.
    fn complete_rejected_item(&mut self, item: Value, outcome: Outcome) -> Result<(), Stop> {
        self.complete_item(item);
        self.set_flags(&[]);
        if outcome == Outcome::Cancelled { Err(Stop::Control(Control::Interrupt)) } else { Ok(()) }
    }

    fn request(&self, method: &str, params: &Value) -> Result<Response, Stop> {
        let id = self.shared.requests.open(&self.turn);
        self.shared.wire.message(&json!({ "method": method, "id": id, "params": params }));
        let Some(response) = self.turn.wait_for_response(id) else {
            self.shared.requests.close(id);
            return Err(Stop::InterruptedRequest(id));
        };
        self.send_request_resolved(id);
        Ok(response)
    }

    fn outcome(&self, response: &Response) -> Outcome {
        let result = match response {
            Response::Result(result) => result,
            Response::Error(error) => {
                self.shared.log(&format!("request failed with client error: {error}"));
                return Outcome::Failed;
            }
        };
        match result.get("decision") {
            Some(Value::Object(decision)) if !decision.is_empty() => Outcome::Completed,
            Some(Value::String(decision)) => match decision.as_str() {
                "accept" | "acceptForSession" => Outcome::Completed,
                "cancel" => Outcome::Cancelled,
                "decline" => Outcome::Declined,
                other => {
                    self.shared.log(&format!("unknown decision {other:?}, handled as decline"));
                    Outcome::Declined
                }
            },
            _ => {
                self.shared.log("response to an approval without a decision, handled as decline");
                Outcome::Declined
            }
        }
    }
}
