//! The models that the app-server offers.

use serde_json::{Map, Value};

use crate::codex::protocol::methods;
use crate::codex::protocol::responses::ModelPage;
use crate::daemon::app_server::calls::call;
use crate::daemon::error::DaemonError;
use crate::daemon::sessions::Sessions;

impl Sessions {
    /// The models that the app-server offers, in its form.
    pub async fn models(&self) -> Result<Vec<Value>, DaemonError> {
        let sessions = self.clone();
        self.core
            .run(async move {
                let client = sessions.core.wait_for_client().await?;
                let mut models = Vec::new();
                let mut params = Map::new();
                loop {
                    let page: ModelPage = call(&client, methods::MODEL_LIST, &params).await?;
                    models.extend(page.data);
                    match page.next_cursor {
                        Some(cursor) => params.insert("cursor".to_owned(), cursor.into()),
                        None => return Ok(models),
                    };
                }
            })
            .await
    }
}
