//! What notifications tell about the name of a thread, its settings, whether it is archived, and its messages.

use serde::Deserialize;

use super::items;
use crate::ids::ThreadId;

/// The thread and the new name in the parameters of [`super::notifications::THREAD_NAME_UPDATED`].
pub fn new_name(params: &str) -> Option<(ThreadId, String)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Named {
        thread_id: ThreadId,
        thread_name: Option<String>,
    }
    let Named { thread_id, thread_name } = serde_json::from_str(params).ok()?;
    Some((thread_id, thread_name?))
}

/// The settings of a thread that its sessions show.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ThreadSettings {
    /// The model.
    pub model: String,
    /// The reasoning effort; `None` for that of the model.
    #[serde(default)]
    pub effort: Option<String>,
    /// The service tier; `None` for that of the account.
    #[serde(default)]
    pub service_tier: Option<String>,
}

/// The thread and its settings in the parameters of [`super::notifications::THREAD_SETTINGS_UPDATED`].
pub fn new_settings(params: &str) -> Option<(ThreadId, ThreadSettings)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Updated {
        thread_id: ThreadId,
        thread_settings: ThreadSettings,
    }
    let Updated { thread_id, thread_settings } = serde_json::from_str(params).ok()?;
    Some((thread_id, thread_settings))
}

/// The thread in parameters that name one.
pub fn thread_of(params: &str) -> Option<ThreadId> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct OfThread {
        thread_id: ThreadId,
    }
    serde_json::from_str::<OfThread>(params).ok().map(|of| of.thread_id)
}

/// The thread and the text in the parameters of [`super::notifications::ITEM_COMPLETED`], for a message of the user.
pub fn user_message(params: &str) -> Option<(ThreadId, String)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Completed {
        thread_id: ThreadId,
        item: Message,
    }
    #[derive(Deserialize)]
    struct Message {
        r#type: String,
        #[serde(default)]
        content: Vec<Part>,
    }
    #[derive(Deserialize)]
    struct Part {
        #[serde(default)]
        text: Option<String>,
    }
    // Most items are of other types.
    if !params.contains(items::USER_MESSAGE) {
        return None;
    }
    let Completed { thread_id, item } = serde_json::from_str(params).ok()?;
    let texts: Vec<_> = item.content.into_iter().filter_map(|part| part.text).collect();
    (item.r#type == items::USER_MESSAGE).then(|| (thread_id, texts.join(" ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn user_message_is_the_text_of_its_parts() {
        let params =
            |item: serde_json::Value| json!({ "threadId": "t", "turnId": "u", "item": item }).to_string();
        let content = json!([{ "type": "image", "url": "data:" }, { "type": "text", "text": "What is" }, { "type": "text", "text": "it?" }]);
        let message = params(json!({ "type": "userMessage", "id": "i", "content": content }));
        assert_eq!(user_message(&message), Some(("t".into(), "What is it?".to_owned())));
        let other = params(json!({ "type": "agentMessage", "id": "i", "text": "userMessage" }));
        assert_eq!(user_message(&other), None);
        assert_eq!(new_name(r#"{"threadId":"t","threadName":"n"}"#), Some(("t".into(), "n".to_owned())));
        assert_eq!(new_name(r#"{"threadId":"t","threadName":null}"#), None);
        let settings = |settings: serde_json::Value| {
            new_settings(&json!({ "threadId": "t", "threadSettings": settings }).to_string())
        };
        let (thread_id, all) =
            settings(json!({ "model": "m", "effort": "high", "serviceTier": "flex", "cwd": "/" })).unwrap();
        assert_eq!((thread_id.as_str(), all.model.as_str()), ("t", "m"));
        assert_eq!((all.effort.as_deref(), all.service_tier.as_deref()), (Some("high"), Some("flex")));
        let (_, usual) = settings(json!({ "model": "m", "effort": null })).unwrap();
        assert_eq!((usual.effort, usual.service_tier), (None, None));
    }
}
