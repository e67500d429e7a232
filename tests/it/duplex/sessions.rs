//! Forking, listing and closing sessions; the model list.

use serde_json::{Value, json};

use super::{delete, finished_turn, session_with};
use crate::api::{
    SESSIONS, create_session, new_session, request_turn, session_record, start_daemon, start_turn, text,
    wait_for_event_type, wait_until_idle,
};
use crate::support::daemon::Daemon;
use crate::support::http::{get, post};

#[tokio::test]
async fn closed_session_rejects_turns_and_stays_readable() {
    let mut daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "text=kept").await;
    let turn = finished_turn(&daemon, &session_id, &turn_id).await;
    let path = format!("{SESSIONS}/{session_id}");
    let closed = delete(&daemon, &path).await.data(200)["session"].clone();
    assert_eq!((&closed["status"], &closed["sessionId"]), (&json!("closed"), &json!(session_id)));
    assert_eq!(wait_for_event_type(&daemon, "session.closed").await["detail"]["sessionId"], session_id);
    // Closing the session again changes nothing.
    assert_eq!(delete(&daemon, &path).await.data(200)["session"], closed);
    let refused = request_turn(&daemon, &session_id, "hello").await;
    let reason = text(&closed["closedReason"]);
    assert!(reason.contains("DELETE"), "{reason}");
    assert!(refused.error(409, "session_not_active").contains(&reason), "{}", refused.text);
    assert_eq!(refused.json["details"]["closedReason"], reason);
    assert_eq!(finished_turn(&daemon, &session_id, &turn_id).await["text"], turn["text"]);
    let events = daemon.events_on_disk();
    assert_eq!(events.iter().filter(|event| event["type"] == "session.closed").count(), 1);

    daemon.stop().await;
    let daemon = Daemon::builder().state_from(&daemon).start().await;
    assert_eq!(session_record(&daemon, &session_id).await["status"], "closed");
    request_turn(&daemon, &session_id, "hello").await.error(409, "session_not_active");
    delete(&daemon, &format!("{SESSIONS}/nope")).await.error(404, "not_found");
}

#[tokio::test]
async fn busy_session_closes_only_together_with_its_turn() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "hang").await;
    let path = format!("{SESSIONS}/{session_id}");
    for query in ["", "?interrupt=false"] {
        let refused = delete(&daemon, &format!("{path}{query}")).await;
        refused.error(409, "turn_in_progress");
        assert_eq!(refused.json["details"]["turnId"], turn_id);
    }
    let refused = delete(&daemon, &format!("{path}?interrupt=1")).await;
    refused.error(400, "bad_request");
    assert_eq!(refused.json["message"], "interrupt must be true or false.");
    assert_eq!(session_record(&daemon, &session_id).await["status"], "active");
    let closed = delete(&daemon, &format!("{path}?interrupt=true")).await.data(200)["session"].clone();
    assert_eq!(
        (&closed["status"], &closed["currentTurnId"], &closed["lastTurnStatus"]),
        (&json!("closed"), &Value::Null, &json!("interrupted"))
    );
}

#[tokio::test]
async fn fork_copies_history_and_then_diverges() {
    let daemon = start_daemon().await;
    let source = create_session(&daemon, json!({ "metadata": { "owner": "source" } })).await;
    let source_id = text(&source["sessionId"]);
    let turn_id = start_turn(&daemon, &source_id, "text=first").await;
    wait_until_idle(&daemon, &source_id).await;
    let fork =
        create_session(&daemon, json!({ "forkFrom": source_id, "metadata": { "owner": "fork" } })).await;
    let fork_id = text(&fork["sessionId"]);
    assert_ne!(fork["threadId"], source["threadId"]);
    assert_eq!(
        (&fork["lastTurnStatus"], &fork["metadata"]),
        (&json!("completed"), &json!({ "owner": "fork" }))
    );
    let copied = get(&daemon, &format!("{SESSIONS}/{fork_id}/turns/{}", text(&fork["lastTurnId"]))).await;
    assert_eq!(copied.data(200)["turn"]["text"], "first");
    let own = start_turn(&daemon, &fork_id, "text=second").await;
    assert_eq!(finished_turn(&daemon, &fork_id, &own).await["text"], "second");
    assert_eq!(
        session_record(&daemon, &source_id).await["lastTurnId"],
        turn_id,
        "the turn of the fork changed the source"
    );

    for (body, status, code) in [
        (json!({ "forkFrom": "nope" }), 404, "not_found"),
        (json!({ "forkFrom": 1 }), 400, "bad_request"),
        (json!({ "forkFrom": source_id, "threadId": source["threadId"] }), 400, "bad_request"),
    ] {
        post(&daemon, SESSIONS, &body).await.error(status, code);
    }
}

#[tokio::test]
async fn session_can_be_forked_after_restart() {
    let mut daemon = start_daemon().await;
    let source = new_session(&daemon).await;
    start_turn(&daemon, &source, "text=first").await;
    wait_until_idle(&daemon, &source).await;
    daemon.stop().await;
    let daemon = Daemon::builder().state_from(&daemon).start().await;
    let fork = create_session(&daemon, json!({ "forkFrom": source })).await;
    assert_eq!(fork["lastTurnStatus"], "completed");
}

/// Lists the sessions that match this query; returns their IDs.
async fn listed_ids(daemon: &Daemon, query: &str) -> Vec<String> {
    let answer = get(daemon, &format!("{SESSIONS}?{query}")).await;
    let sessions = answer.data(200)["sessions"].as_array().unwrap();
    sessions.iter().map(|session| text(&session["sessionId"])).collect()
}

#[tokio::test]
async fn session_list_filters_by_session_fields() {
    let daemon = start_daemon().await;
    let a = session_with(&daemon, json!({ "metadata": { "owner": "x", "run id": "1&2" } })).await;
    let b = session_with(&daemon, json!({ "metadata": { "owner": "x" }, "purpose": "worker" })).await;
    let c = session_with(&daemon, json!({ "metadata": { "owner": "y" } })).await;
    delete(&daemon, &format!("{SESSIONS}/{b}")).await.data(200);
    for (query, expected) in [
        ("", vec![&a, &b, &c]),
        ("status=active", vec![&a, &c]),
        ("status=closed", vec![&b]),
        ("purpose=worker", vec![&b]),
        ("purpose=duplex&status=closed", vec![]),
        ("metadata.owner=x", vec![&a, &b]),
        ("metadata.owner=x&status=active", vec![&a]),
        ("metadata.run+id=1%262", vec![&a]),
        ("metadata.owner=", vec![]),
        ("order=newest", vec![&c, &b, &a]),
        ("order=oldest&limit=1", vec![&a]),
        ("order=newest&limit=2", vec![&c, &b]),
        (&format!("after={a}"), vec![&b, &c]),
        (&format!("order=newest&after={c}&limit=1"), vec![&b]),
        (&format!("after={b}&status=active"), vec![&c]),
        (&format!("after={c}"), vec![]),
        ("unknown=1", vec![&a, &b, &c]),
    ] {
        assert_eq!(
            listed_ids(&daemon, query).await,
            expected.into_iter().cloned().collect::<Vec<_>>(),
            "{query}"
        );
    }
    for (query, part) in [
        ("status=open", "active and closed"),
        ("purpose=x", "duplex, worker and smoke"),
        ("order=up", "newest and oldest"),
        ("limit=0", "10000"),
        ("limit=10001", "10000"),
        ("limit=x", "10000"),
    ] {
        let answer = get(&daemon, &format!("{SESSIONS}?{query}")).await;
        let message = answer.error(400, "bad_request");
        assert!(message.contains(part) && message.contains(query.split('=').next().unwrap()), "{message}");
    }
    get(&daemon, &format!("{SESSIONS}?after=nope")).await.error(404, "not_found");
}

#[tokio::test]
async fn session_fields_are_validated_before_the_call() {
    let daemon = start_daemon().await;
    for (field, value, part) in [
        ("sandbox", json!("bogus"), "workspace-write"),
        ("sandbox", json!(7), "string"),
        ("approvalPolicy", json!(["never"]), "object"),
        ("personality", json!("weird"), "friendly"),
        ("cwd", json!("relative"), "absolute"),
        ("cwd", json!("/no/such/directory"), "existing directory"),
    ] {
        let answer = post(&daemon, SESSIONS, &json!({ field: value })).await;
        let message = answer.error(400, "bad_request");
        assert!(message.contains(field) && message.contains(part), "{field} = {value}: {message}");
    }
    assert_eq!(get(&daemon, SESSIONS).await.data(200)["sessions"], json!([]));
}
