//! The items of a turn other than messages: reasoning, plans, diffs and commands.

use serde_json::json;

use super::control::Control;
use super::items;
use super::script::SpawnKind;
use super::turn::{Stop, TurnRunner};

const DIFF: &str = "diff --git a/approved.txt b/approved.txt\nnew file mode 100644\n--- /dev/null\n\
                    +++ b/approved.txt\n@@ -0,0 +1 @@\n+hello\n";

impl TurnRunner {
    /// Sends a reasoning summary in one part.
    pub(super) fn reason(&mut self) {
        let id = self.shared.item_id("rs");
        let text = "**Thinking** about the script";
        let mut item = items::reasoning(&id, &[]);
        self.begin_item(&mut item);
        let base = json!({ "threadId": self.thread.id, "turnId": self.turn.id, "itemId": id });
        let mut part = base.clone();
        part["summaryIndex"] = json!(0);
        self.notify("item/reasoning/summaryPartAdded", part);
        let mut delta = base;
        delta["delta"] = json!(text);
        delta["summaryIndex"] = json!(0);
        self.notify("item/reasoning/summaryTextDelta", delta);
        item["summary"] = json!([text]);
        self.complete_item(item);
    }

    /// Sends a plan of two steps.
    pub(super) fn plan(&self) {
        let params = json!({
            "threadId": self.thread.id,
            "turnId": self.turn.id,
            "explanation": "The plan of the script",
            "plan": [
                { "step": "first", "status": "inProgress" },
                { "step": "second", "status": "pending" },
            ],
        });
        self.notify("turn/plan/updated", params);
    }

    /// Sends the diff of the turn.
    pub(super) fn diff(&self) {
        let params = json!({ "threadId": self.thread.id, "turnId": self.turn.id, "diff": DIFF });
        self.notify("turn/diff/updated", params);
    }

    /// Sends a command item without running the command.
    pub(super) fn command(&mut self, text: &str) {
        let id = self.shared.item_id("call");
        let mut item = items::command(&id, text, &self.cwd(), Some("1".to_owned()));
        self.begin_item(&mut item);
        self.command_output(&id, "done\n");
        items::command_ended(&mut item, "completed", Some("done\n"), Some(0));
        self.complete_item(item);
    }

    /// Runs a command and sends its item.
    pub(super) fn spawn(&mut self, seconds: &str, how: SpawnKind) -> Result<(), Stop> {
        let id = self.shared.item_id("call");
        let text = format!("sleep {seconds}");
        let process = match self.shared.processes.start(seconds, how, &self.thread.id, &self.turn) {
            Ok(process) => process,
            Err(error) => {
                let mut item = items::command(&id, &text, &self.cwd(), None);
                self.begin_item(&mut item);
                items::command_ended(&mut item, "failed", Some(&format!("{error}\n")), None);
                self.complete_item(item);
                return Ok(());
            }
        };
        let pid = process.pid.to_string();
        let output = format!("process {pid}\n");
        let mut item = items::command(&id, &text, &self.cwd(), Some(pid));
        self.begin_item(&mut item);
        self.command_output(&id, &output);
        let code = if how == SpawnKind::Foreground {
            // An interrupt ends the turn, not the command: Codex leaves it running as well.
            if !self.turn.wait_until(|| process.exit_code().is_some()) {
                return Err(Stop::Control(Control::Interrupt));
            }
            process.exit_code().unwrap_or(-1)
        } else {
            0
        };
        let status = if code == 0 { "completed" } else { "failed" };
        items::command_ended(&mut item, status, Some(&output), Some(code));
        self.complete_item(item);
        Ok(())
    }

    fn command_output(&self, id: &str, output: &str) {
        let params =
            json!({ "threadId": self.thread.id, "turnId": self.turn.id, "itemId": id, "delta": output });
        self.notify("item/commandExecution/outputDelta", params);
    }
}
