//! Interrupts a turn: after Ctrl-C, without a network, or with the reader of the answer.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::TurnFollower;
use crate::client::{ClientError, DaemonClient, percent_encode};
use crate::commands::api::session_path;
use crate::commands::ask::outcome::TurnState;
use crate::commands::failure::Failure;

/// How long to wait for a SIGINT after stdout was closed: Ctrl-C may have ended the reader of the pipe first.
const SIGINT_AFTER_CLOSED_STDOUT: Duration = Duration::from_millis(100);

impl TurnFollower<'_> {
    /// Interrupts the turn because the network was unreachable for too long.
    pub(super) fn give_up(&mut self) -> Result<(), Failure> {
        self.printer.start_stderr_line()?;
        self.network.give_up();
        self.interrupt_requested = true;
        self.interrupt();
        Ok(())
    }

    /// Handles a closed stdout. If the reader of the pipe has read enough, the turn continues without this command; if
    /// Ctrl-C ended the reader together with this process, the turn is interrupted.
    pub(super) async fn handle_closed_stdout(
        &mut self,
        interrupts: &mut watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        let interrupt = interrupts.wait_for(|is_wanted| *is_wanted);
        match tokio::time::timeout(SIGINT_AFTER_CLOSED_STDOUT, interrupt).await {
            Ok(Ok(_)) => {}
            _ => {
                let message = "stdout was closed; the turn continues in codexd.".to_owned();
                return Err(Failure { code: 0, message });
            }
        }
        self.request_interrupt()
    }

    /// Interrupts the turn after Ctrl-C.
    pub(super) fn request_interrupt(&mut self) -> Result<(), Failure> {
        self.interrupt_requested = true;
        self.printer.start_stderr_line()?;
        self.context.print_note(match self.turn {
            TurnState::Started(_) => "Interrupting the turn; another Ctrl-C exits at once, and the turn continues.",
            TurnState::Queued(_) => {
                "Withdrawing the queued turn; another Ctrl-C exits at once, and the turn may stay in the queue."
            }
        });
        self.interrupt();
        Ok(())
    }

    /// Interrupts the turn. A queued turn is removed from the queue; if it starts first, it is interrupted.
    pub(super) fn interrupt(&mut self) {
        let client: DaemonClient = self.context.client.clone();
        self.pending_interrupt = Some(match &self.turn {
            TurnState::Started(turn_id) => {
                let body = json!({ "sessionId": self.session_id, "turnId": turn_id });
                tokio::spawn(async move { client.post("/v1/codexd/turn/interrupt", &body).await })
            }
            TurnState::Queued(queue_id) => {
                let path = format!("{}/queue/{}", session_path(&self.session_id), percent_encode(queue_id));
                tokio::spawn(async move { client.delete(&path).await })
            }
        });
    }

    /// Reports the result of the interrupt, unless the events of the turn do.
    pub(super) fn report_interrupt(&mut self, outcome: Result<Value, ClientError>) -> Result<(), Failure> {
        let sentence = match outcome {
            // The turn ends later, and its events report that.
            Ok(answer) if answer["pending"] == true => return Ok(()),
            Ok(answer) => match answer["commandsReason"].as_str() {
                Some(reason) => format!("Commands that the turn left in the background continue: {reason}"),
                None => return Ok(()),
            },
            // The turn ended first.
            Err(error) if error.code() == "no_turn" => return Ok(()),
            // The turn is starting, and is interrupted when it has started.
            Err(error)
                if self.turn_id().is_none() && ["not_found", "turn_in_progress"].contains(&error.code()) =>
            {
                return Ok(());
            }
            Err(error) => format!("Failed to interrupt the turn: {error}"),
        };
        self.printer.start_stderr_line()?;
        self.context.print_note(&sentence);
        Ok(())
    }
}
