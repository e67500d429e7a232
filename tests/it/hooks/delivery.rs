//! What hooks get, and when.

use std::fs;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};

use super::{HOOKS, Sink, add_hook, cursor, hooks, logged, numbers, wait_for_file, wait_until_counted};
use crate::api::{
    new_session, start_daemon, start_turn, text, wait_for_event_type, wait_until_idle, wait_until_ready,
};
use crate::support::daemon::Daemon;
use crate::support::http::{post, request};
use crate::support::wait::wait_until_async;

const TURN_TYPES: [&str; 2] = ["turn.accepted", "app-server.turn.completed"];

async fn run_turn(daemon: &Daemon, session_id: &str, prompt: &str) {
    start_turn(daemon, session_id, prompt).await;
    wait_until_idle(daemon, session_id).await;
}

#[tokio::test]
async fn hook_gets_the_selected_events_in_order_and_continues_after_a_restart() {
    let mut daemon = start_daemon().await;
    let (session_id, sink) = (new_session(&daemon).await, Sink::new());
    run_turn(&daemon, &session_id, "before").await;
    let hook = add_hook(&daemon, json!({ "on": TURN_TYPES, "command": sink.command() })).await;
    let from = cursor(&hook);
    run_turn(&daemon, &session_id, "deltas=5").await;
    sink.wait_for(2).await;
    wait_until_counted(&daemon, 2).await;
    assert!(daemon.stop().await.status.success());
    daemon = Daemon::builder().state_from(&daemon).start().await;
    run_turn(&daemon, &session_id, "again").await;
    let deliveries = sink.wait_for(4).await;
    assert_eq!(numbers(&deliveries), logged(&daemon, &TURN_TYPES, from));
    for delivery in &deliveries {
        let id = delivery["id"].as_str().unwrap();
        assert!(id.ends_with(&format!("-{}", delivery["seq"])), "{delivery}");
        assert_eq!(delivery["hook"], "test");
    }
    let mut ids: Vec<_> = deliveries.iter().map(|delivery| text(&delivery["id"])).collect();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

#[tokio::test]
async fn deltas_need_the_full_name_of_their_type() {
    let daemon = start_daemon().await;
    let (session_id, by_prefix, in_full) = (new_session(&daemon).await, Sink::new(), Sink::new());
    let delta = "app-server.turn.message.delta";
    let prefix = json!({ "name": "prefix", "on": ["app-server.turn"], "command": by_prefix.command() });
    let full = json!({ "name": "full", "on": [delta], "command": in_full.command() });
    let from = cursor(&add_hook(&daemon, prefix).await);
    add_hook(&daemon, full).await;
    run_turn(&daemon, &session_id, "deltas=3").await;
    let expected = logged(&daemon, &[delta], from);
    assert_eq!(numbers(&in_full.wait_for(expected.len()).await), expected);
    let expected = logged(&daemon, &["app-server.turn.started", "app-server.turn.completed"], from);
    assert_eq!(numbers(&by_prefix.wait_for(expected.len()).await), expected);
}

#[tokio::test]
async fn events_are_reduced_unless_the_hook_asks_for_their_detail() {
    let daemon = start_daemon().await;
    let (session_id, reduced, whole) = (new_session(&daemon).await, Sink::new(), Sink::new());
    let types =
        json!(["turn", "app-server.turn", "app-server.turn.message.delta", "app-server.notification"]);
    add_hook(&daemon, json!({ "name": "reduced", "on": types, "command": reduced.command() })).await;
    let detail = json!({ "name": "whole", "on": types, "command": whole.command(), "detail": true });
    add_hook(&daemon, detail).await;
    run_turn(&daemon, &session_id, "text=CANARY").await;
    let is_end = |delivery: &Value| delivery["type"] == "app-server.turn.completed";
    let all = |sink: &Sink| Some(sink.deliveries()).filter(|deliveries| deliveries.iter().any(is_end));
    let with_detail = crate::support::wait::wait_until("the end of the turn", || all(&whole)).await;
    let without = crate::support::wait::wait_until("the end of the turn", || all(&reduced)).await;
    assert_eq!(numbers(&with_detail), numbers(&without));
    let log = daemon.events_on_disk();
    for delivery in &with_detail {
        let event = log.iter().find(|event| event["seq"] == delivery["seq"]).unwrap();
        assert_eq!((&delivery["message"], &delivery["detail"]), (&event["message"], &event["detail"]));
    }
    assert!(json!(with_detail).to_string().contains("CANARY"), "the test proves nothing: {with_detail:#?}");
    assert!(!json!(without).to_string().contains("CANARY"), "{without:#?}");
    let delta = without.iter().find(|delivery| delivery["type"] == "app-server.turn.message.delta").unwrap();
    assert!(delta["detail"]["threadId"].is_string(), "{delta}");
    assert_eq!(delta["detail"].get("delta"), None);
}

#[tokio::test]
async fn hook_of_a_session_gets_no_events_of_others() {
    let daemon = start_daemon().await;
    let (ours, other, sink) = (new_session(&daemon).await, new_session(&daemon).await, Sink::new());
    let hook = json!({ "on": ["turn.accepted"], "sessionId": ours, "command": sink.command() });
    add_hook(&daemon, hook).await;
    for session_id in [&other, &ours, &other, &ours] {
        run_turn(&daemon, session_id, "hello").await;
    }
    let deliveries = sink.wait_for(2).await;
    assert!(
        deliveries.iter().all(|delivery| delivery["detail"]["sessionId"] == ours.as_str()),
        "{deliveries:?}"
    );
}

#[tokio::test]
async fn failed_delivery_is_repeated_with_its_id_and_its_streak_is_told_once() {
    let daemon = start_daemon().await;
    let (session_id, sink) = (new_session(&daemon).await, Sink::new());
    let script = "test -e \"$1/works\" || { echo no such luck >&2; exit 3; }";
    add_hook(&daemon, json!({ "on": ["turn.accepted"], "command": sink.command_before(script) })).await;
    run_turn(&daemon, &session_id, "first").await;
    run_turn(&daemon, &session_id, "second").await;
    let failing = wait_for_event_type(&daemon, "hook.failing").await;
    let error = "it exited with code 3: no such luck";
    assert_eq!((&failing["detail"]["attempts"], &failing["detail"]["error"]), (&json!(3), &json!(error)));
    assert_eq!((&failing["level"], &failing["detail"]["name"]), (&json!("warn"), &json!("test")));
    let hook = hooks(&daemon).await.remove(0);
    assert_eq!(
        (&hook["failing"], &hook["error"], &hook["state"]),
        (&json!(true), &json!(error), &json!("retrying"))
    );
    assert!(hook["retryAt"].is_string() && hook["failures"].as_u64() >= Some(3), "{hook}");
    fs::write(sink.path("works"), "").unwrap();
    // A test that succeeds makes the next attempt at once.
    let path = format!("{HOOKS}/{}/test", text(&hook["hookId"]));
    let tested = post(&daemon, &path, &json!({})).await.data(200).clone();
    assert_eq!((&tested["succeeded"], &tested["error"]), (&json!(true), &Value::Null));
    wait_for_event_type(&daemon, "hook.recovered").await;
    let mut deliveries = sink.wait_for(6).await;
    deliveries.retain(|delivery| delivery["type"] != "test");
    let accepted = logged(&daemon, &["turn.accepted"], 0);
    let ids: Vec<_> = deliveries.iter().map(|delivery| &delivery["id"]).collect();
    assert!(ids[..ids.len() - 1].iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(numbers(&deliveries[deliveries.len() - 2..]), accepted);
    let told = |name: &str| logged(&daemon, &[name], 0).len();
    assert_eq!((told("hook.failing"), told("hook.recovered")), (1, 1));
}

#[tokio::test]
async fn slow_hook_delays_neither_turns_nor_other_hooks() {
    let daemon = start_daemon().await;
    let (session_id, slow, fast) = (new_session(&daemon).await, Sink::new(), Sink::new());
    let hang = slow.command_before(": > \"$1/begun\"; exec sleep 300");
    add_hook(&daemon, json!({ "name": "slow", "on": ["turn.accepted"], "command": hang })).await;
    add_hook(&daemon, json!({ "name": "fast", "on": ["turn.accepted"], "command": fast.command() })).await;
    start_turn(&daemon, &session_id, "hello").await;
    wait_for_file(&slow.path("begun")).await;
    wait_until_idle(&daemon, &session_id).await;
    let began = Instant::now();
    for _ in 0..5 {
        run_turn(&daemon, &session_id, "deltas=100").await;
    }
    fast.wait_for(6).await;
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    assert_eq!(slow.deliveries().len(), 1, "more than one delivery at a time");
}

#[tokio::test]
async fn delivery_over_its_time_is_ended_with_its_descendants() {
    let daemon = start_daemon().await;
    let (session_id, sink) = (new_session(&daemon).await, Sink::new());
    // A descendant in a process session of its own that ignores SIGTERM and has lost its parent.
    let script =
        "(setsid sh -c 'trap \"\" TERM; while :; do sleep 300; done' &) ; : > \"$1/begun\"; sleep 300";
    let hook =
        json!({ "on": ["turn.accepted"], "command": sink.command_before(script), "timeoutSeconds": 1 });
    add_hook(&daemon, hook).await;
    start_turn(&daemon, &session_id, "hello").await;
    wait_for_file(&sink.path("begun")).await;
    wait_until_async("the end of the attempt", async || {
        let hook = hooks(&daemon).await.remove(0);
        (hook["error"] == "it did not exit within 1 s").then_some(())
    })
    .await;
    let path = format!("{HOOKS}/{}", text(&hooks(&daemon).await[0]["hookId"]));
    request(&daemon, Method::DELETE, &path, &[], "").await.data(200);
    #[cfg(target_os = "linux")]
    {
        let left: Vec<_> =
            daemon.survivors().into_iter().filter(|(_, line)| line.contains("sleep")).collect();
        assert_eq!(left, [], "processes of the hook");
    }
}

#[tokio::test]
async fn restart_of_the_app_server_spares_the_program_of_a_hook() {
    let daemon = start_daemon().await;
    wait_until_ready(&daemon).await;
    let sink = Sink::new();
    // The orphan is a descendant of the daemon without a parent of its own.
    let script = "(setsid sh -c 'while ! test -e \"$0/go\"; do sleep 0.02; done; : > \"$0/orphan\"' \"$1\" &)
                  : > \"$1/begun\"; while ! test -e \"$1/orphan\"; do sleep 0.02; done";
    let on = json!(["app-server.restarting"]);
    add_hook(&daemon, json!({ "on": on, "command": sink.command_before(script) })).await;
    post(&daemon, "/v1/codexd/app-server/restart", &json!({})).await.data(202);
    wait_for_file(&sink.path("begun")).await;
    wait_until_async("the next generation", async || {
        let events = daemon.events_on_disk();
        (events.iter().filter(|event| event["type"] == "app-server.connected").count() == 2).then_some(())
    })
    .await;
    fs::write(sink.path("go"), "").unwrap();
    wait_until_async("the delivery", async || (hooks(&daemon).await[0]["delivered"] == 1).then_some(()))
        .await;
    assert_eq!(sink.deliveries().len(), 1, "the program was ended and run again");
}
