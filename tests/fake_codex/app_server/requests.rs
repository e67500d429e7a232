//! Requests to the client, and what a turn makes of the answers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::control::{Answer, Call, Turn};
use super::items;
use super::script::Ask;
use super::turn::{Play, Stop};
use super::wire::locked;

/// The requests that wait for an answer; their ids begin at 0 in every process.
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

    /// Hands an answer to the turn that waits for it; one that nobody waits for is dropped.
    pub(super) fn deliver(&self, id: i64, answer: Answer) {
        let turn = locked(&self.open).remove(&id);
        if let Some(turn) = turn {
            turn.deliver(id, answer);
        }
    }

    fn close(&self, id: i64) {
        locked(&self.open).remove(&id);
    }
}

/// What becomes of an item that needed an approval.
#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    Completed,
    Declined,
    /// Declined, and the turn with it.
    Cancelled,
    Failed,
}

impl Verdict {
    fn status(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Declined | Self::Cancelled => "declined",
            Self::Failed => "failed",
        }
    }
}

const COMMAND: &str = "touch approved";

fn colour() -> Value {
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

fn word() -> Value {
    json!({
        "id": "word",
        "header": "Word",
        "question": "What is the secret word?",
        "isOther": false,
        "isSecret": true,
        "options": null,
    })
}

impl Play {
    /// Asks the client and waits for its answer.
    pub(super) fn ask(&mut self, ask: Ask) -> Result<(), Stop> {
        match ask {
            Ask::Command => self.ask_command(),
            Ask::File => self.ask_file(),
            Ask::Permissions => {
                let params = json!({
                    "environmentId": "local",
                    "cwd": self.cwd(),
                    "reason": "The embedded app-server asks for the network.",
                    "permissions": { "network": { "enabled": true }, "fileSystem": null },
                });
                self.ask_plainly("item/permissions/requestApproval", "waitingOnApproval", params)
            }
            Ask::Input => self.ask_questions(&[colour()]),
            Ask::Questions => self.ask_questions(&[colour(), word()]),
            Ask::Leave => self.ask_elicitation("May the wall be painted?", json!({})),
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
            Ask::Unknown => self.ask_plainly("item/unheardOf/request", "waitingOnApproval", json!({})),
        }
    }

    fn ask_questions(&mut self, questions: &[Value]) -> Result<(), Stop> {
        let params = json!({ "questions": questions, "autoResolutionMs": null });
        self.ask_plainly("item/tool/requestUserInput", "waitingOnUserInput", params)
    }

    fn ask_elicitation(&mut self, message: &str, properties: Value) -> Result<(), Stop> {
        let params = json!({
            "serverName": "paint",
            "mode": "form",
            "message": message,
            "requestedSchema": { "type": "object", "properties": properties, "required": ["painter"] },
            "_meta": null,
        });
        self.ask_plainly("mcpServer/elicitation/request", "waitingOnApproval", params)
    }

    fn ask_command(&mut self) -> Result<(), Stop> {
        let id = self.shared.item_id("call");
        let cwd = self.cwd();
        self.set_flags(&["waitingOnApproval"]);
        let mut item = items::command(&id, COMMAND, &cwd, None);
        self.begin_item(&mut item);
        let words: Vec<&str> = COMMAND.split(' ').collect();
        let params = json!({
            "kind": "command",
            "threadId": self.thread.id,
            "turnId": self.turn.id,
            "itemId": id,
            "startedAtMs": item["startedAtMs"],
            "environmentId": "local",
            "command": items::shell_line(COMMAND),
            "cwd": cwd,
            "commandActions": [{ "type": "unknown", "command": COMMAND }],
            "proposedExecpolicyAmendment": words,
            "availableDecisions": [
                "accept",
                { "acceptWithExecpolicyAmendment": { "execpolicy_amendment": words } },
                "cancel",
            ],
        });
        let answer = self.request("item/commandExecution/requestApproval", &params)?;
        let verdict = self.verdict(&answer);
        if verdict == Verdict::Completed {
            self.set_flags(&[]);
            item["processId"] = json!("1");
            item["source"] = json!("unifiedExecStartup");
            items::command_ended(&mut item, "completed", Some("done\n"), Some(0));
            self.complete_item(item);
            Ok(())
        } else {
            items::command_ended(&mut item, verdict.status(), None, None);
            self.turn_down(item, verdict)
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
        let answer = self.request("item/fileChange/requestApproval", &params)?;
        let verdict = self.verdict(&answer);
        item["status"] = json!(verdict.status());
        if verdict == Verdict::Completed {
            self.set_flags(&[]);
            self.complete_item(item);
            self.diff();
            Ok(())
        } else {
            self.turn_down(item, verdict)
        }
    }

    /// A request without an item; the turn goes on after any answer.
    fn ask_plainly(&mut self, method: &str, flag: &'static str, more: Value) -> Result<(), Stop> {
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

    /// A turned down item is completed before the status changes back, an accepted one after it.
    fn turn_down(&mut self, item: Value, verdict: Verdict) -> Result<(), Stop> {
        self.complete_item(item);
        self.set_flags(&[]);
        if verdict == Verdict::Cancelled { Err(Stop::Call(Call::Interrupt)) } else { Ok(()) }
    }

    fn request(&self, method: &str, params: &Value) -> Result<Answer, Stop> {
        let id = self.shared.requests.open(&self.turn);
        self.shared.wire.message(&json!({ "method": method, "id": id, "params": params }));
        let Some(answer) = self.turn.wait_for_answer(id) else {
            self.shared.requests.close(id);
            return Err(Stop::InterruptedRequest(id));
        };
        self.request_resolved(id);
        Ok(answer)
    }

    fn verdict(&self, answer: &Answer) -> Verdict {
        let result = match answer {
            Answer::Result(result) => result,
            Answer::Error(error) => {
                self.shared.log(&format!("request failed with client error: {error}"));
                return Verdict::Failed;
            }
        };
        match result.get("decision") {
            Some(Value::Object(decision)) if !decision.is_empty() => Verdict::Completed,
            Some(Value::String(decision)) => match decision.as_str() {
                "accept" | "acceptForSession" => Verdict::Completed,
                "cancel" => Verdict::Cancelled,
                "decline" => Verdict::Declined,
                other => {
                    self.shared.log(&format!("unknown decision {other:?}, taken for decline"));
                    Verdict::Declined
                }
            },
            _ => {
                self.shared.log("an approval without a decision, taken for decline");
                Verdict::Declined
            }
        }
    }
}
