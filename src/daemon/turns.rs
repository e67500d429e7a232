//! Turns: submit and steer.

use std::sync::{Arc, PoisonError};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Daemon, DaemonError, drafts};
use crate::state::{Session, SessionStatus};

/// What a turn is made of; absent values are left to the app-server.
#[derive(Debug, Clone)]
pub struct SubmitTurn {
    /// The session that takes it.
    pub session_id: String,
    /// The items the user says; never empty.
    pub input: Vec<Value>,
    /// The running turn to steer; none starts a new one.
    pub expected_turn_id: Option<String>,
    /// What the app-server is told, by its own names; values that only it can judge are passed on untouched.
    pub settings: Map<String, Value>,
}

/// A turn that the app-server took.
#[derive(Debug, Clone)]
pub struct TurnAccepted {
    /// The session, as it is after the acceptance.
    pub session: Arc<Session>,
    /// The turn.
    pub turn_id: String,
}

impl Daemon {
    /// Starts a turn, or steers the running one; its acceptance is on disk when this returns.
    pub async fn submit_turn(&self, input: SubmitTurn) -> Result<TurnAccepted, DaemonError> {
        let daemon = self.clone();
        self.run(async move { daemon.submit(input).await }).await
    }

    async fn submit(&self, input: SubmitTurn) -> Result<TurnAccepted, DaemonError> {
        if input.input.is_empty() {
            let reason = "turn input must be a non-empty string or a non-empty array of items.";
            return Err(DaemonError::Invalid(reason.to_owned()));
        }
        self.session(&input.session_id)?;
        let lock = self.turn_lock(&input.session_id);
        let _alone = lock.lock().await;
        let session = self.session(&input.session_id)?;
        if session.status != SessionStatus::Active {
            return Err(DaemonError::SessionNotActive(input.session_id));
        }
        let thread_id =
            session.thread_id.clone().ok_or_else(|| DaemonError::NoThread(input.session_id.clone()))?;
        let turn_id = match &input.expected_turn_id {
            Some(turn_id) => self.steer(&input, &thread_id, turn_id).await?,
            None => match &session.current_turn_id {
                // The app-server would take it as a word to the running turn (measured); the caller meant a new one.
                Some(turn_id) => {
                    return Err(DaemonError::TurnInProgress {
                        session_id: input.session_id,
                        turn_id: turn_id.clone(),
                    });
                }
                None => self.begin(&input, &thread_id).await?,
            },
        };
        Ok(TurnAccepted { session: self.session(&input.session_id)?, turn_id })
    }

    async fn begin(&self, input: &SubmitTurn, thread_id: &str) -> Result<String, DaemonError> {
        #[derive(Deserialize)]
        struct Answer {
            turn: Turn,
        }
        #[derive(Deserialize)]
        struct Turn {
            id: String,
        }
        let mut params = input.settings.clone();
        params.insert("threadId".to_owned(), thread_id.into());
        params.insert("input".to_owned(), input.input.clone().into());
        let read = |text: &str| serde_json::from_str(text).map(|Answer { turn }| turn.id);
        self.accept(input, thread_id, "turn/start", params, read).await
    }

    async fn steer(&self, input: &SubmitTurn, thread_id: &str, turn_id: &str) -> Result<String, DaemonError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer {
            turn_id: String,
        }
        let params = json!({ "threadId": thread_id, "expectedTurnId": turn_id, "input": input.input });
        let Value::Object(params) = params else { return Err(DaemonError::ShuttingDown) };
        let read = |text: &str| serde_json::from_str(text).map(|Answer { turn_id }| turn_id);
        self.accept(input, thread_id, "turn/steer", params, read).await
    }

    async fn accept(
        &self,
        input: &SubmitTurn,
        thread_id: &str,
        method: &'static str,
        params: Map<String, Value>,
        read: impl FnOnce(&str) -> serde_json::Result<String> + Send + 'static,
    ) -> Result<String, DaemonError> {
        let client = self.client().await?;
        let (session_id, thread_id) = (input.session_id.clone(), thread_id.to_owned());
        self.call_and_record(&client, method, &params, move |answer| {
            let turn_id = read(answer.get()).map_err(|error| error.to_string())?;
            let accepted = drafts::turn_accepted(&session_id, &thread_id, &turn_id);
            Ok((turn_id, Box::new(move |_: &_| vec![accepted]) as super::recorder::Build))
        })
        .await
    }

    fn turn_lock(&self, session_id: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.shared.turn_locks.lock().unwrap_or_else(PoisonError::into_inner);
        // Locks that nobody holds are as good as new ones, so they need not be kept.
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(session_id.to_owned()).or_default())
    }
}
