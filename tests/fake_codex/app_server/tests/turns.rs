//! Tests of turns: message order, steers, interrupts and faults.

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::json;

use super::{Client, Ending, Stopped, summaries, summary, text, turn_params};

#[test]
fn turn_has_the_recorded_order_of_messages() {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    client.request("turn/start", &turn_params(&thread, "hello deltas=2 chars=9"));
    let messages = client.all_until("turn/completed");
    assert_eq!(
        summaries(&messages),
        [
            "warning",
            "response",
            "thread/status/changed active",
            "turn/started",
            "item/started userMessage",
            "item/completed userMessage",
            "item/started agentMessage",
            "item/agentMessage/delta alpha-0 .",
            "item/agentMessage/delta beta-1 ..",
            "item/completed agentMessage",
            "thread/tokenUsage/updated",
            "account/rateLimits/updated",
            "thread/status/changed idle",
            "turn/completed completed",
        ]
    );
    assert_eq!(messages[1]["result"]["turn"]["status"], "inProgress");
    assert!(messages.iter().skip(2).all(|message| message["emittedAtMs"].is_u64()));
    let turn = &messages[13]["params"]["turn"];
    assert_eq!(turn["items"][0]["text"], "alpha-0 .beta-1 ..");
    assert_eq!(turn["itemsView"], "summary");
}

#[test]
fn items_of_a_turn_have_a_fixed_order() {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    let directives = "diff plan reasoning retry command=ls text=a\"b";
    client.request("turn/start", &turn_params(&thread, directives));
    let summaries = summaries(&client.all_until("turn/completed"));
    assert_eq!(
        summaries[6..18],
        [
            "error true",
            "item/started reasoning",
            "item/reasoning/summaryPartAdded",
            "item/reasoning/summaryTextDelta",
            "item/completed reasoning",
            "turn/plan/updated",
            "turn/diff/updated",
            "item/started commandExecution inProgress",
            "item/commandExecution/outputDelta",
            "item/completed commandExecution completed",
            "item/started agentMessage",
            "item/agentMessage/delta a\"b",
        ]
    );
}

#[test]
fn deltas_arrive_complete_and_in_order() {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    client.turn(&thread, "deltas=20000 chars=20");
    for index in 0..20000 {
        let delta = client.until_method("item/agentMessage/delta");
        let delta = text(&delta["params"]["delta"]);
        assert!(delta.contains(&format!("-{index} ")), "{delta} at {index}");
    }
    client.until_method("turn/completed");
}

#[test]
fn failed_turn_sets_the_status_system_error() {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    client.turn(&thread, "retry fail");
    let messages = client.all_until("turn/completed");
    assert_eq!(
        summaries(&messages)[4..],
        ["error true", "thread/status/changed systemError", "error false", "turn/completed failed"]
    );
    assert_eq!(messages[7]["params"]["turn"]["error"]["codexErrorInfo"], "internalServerError");
    let read = client.call("thread/read", &json!({ "threadId": thread })).unwrap();
    assert_eq!(read["thread"]["status"]["type"], "systemError");
    client.turn(&thread, "again");
    assert_eq!(summary(&client.until_method("turn/completed")), "turn/completed completed");
}

#[test]
fn steer_drops_the_message_and_runs_its_own_script() {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    let turn = client.turn(&thread, "deltas=2 delay=600000");
    client.until_method("item/agentMessage/delta");
    let mut params = turn_params(&thread, "text=steered");
    params["expectedTurnId"] = json!(turn);
    client.request("turn/steer", &params);
    let messages = client.all_until("turn/completed");
    assert_eq!(messages[0]["result"]["turnId"], turn);
    assert_eq!(
        summaries(&messages)[1..6],
        [
            "item/started userMessage",
            "item/completed userMessage",
            "item/started agentMessage",
            "item/agentMessage/delta steered",
            "item/completed agentMessage",
        ]
    );
    assert_eq!(messages.last().unwrap()["params"]["turn"]["id"], turn);
}

#[test]
fn turn_start_on_a_busy_thread_steers() {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    let turn = client.turn(&thread, "hang");
    assert_eq!(client.turn(&thread, "text=second"), turn);
    assert_eq!(client.until_method("turn/completed")["params"]["turn"]["items"][0]["text"], "second");
}

#[test]
fn interrupt_ends_the_named_turn_only() {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    let turn = client.turn(&thread, "hang-deltas deltas=1");
    client.until_method("item/agentMessage/delta");
    let wrong = json!({ "threadId": thread, "turnId": "x", "expectedTurnId": "x", "input": [] });
    let error = client.call("turn/interrupt", &wrong).unwrap_err();
    assert_eq!(error, format!("expected active turn id x but found {turn}"));
    let error = client.call("turn/steer", &wrong).unwrap_err();
    assert_eq!(error, format!("expected active turn id `x` but found `{turn}`"));
    client.request("turn/interrupt", &json!({ "threadId": thread, "turnId": turn }));
    let summaries = summaries(&client.all_until("turn/completed"));
    assert_eq!(summaries, ["response", "thread/status/changed idle", "turn/completed interrupted"]);
    let params = json!({ "threadId": thread, "turnId": turn, "expectedTurnId": turn, "input": [] });
    assert_eq!(client.call("turn/interrupt", &params).unwrap_err(), "no active turn to interrupt");
    assert_eq!(client.call("turn/steer", &params).unwrap_err(), "no active turn to steer");
}

#[test]
fn turns_of_a_thread_never_overlap() {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    for _ in 0..50 {
        client.request("turn/start", &turn_params(&thread, "deltas=1"));
    }
    // Each request starts a turn or steers one; in both cases no turn begins before the previous one has ended.
    let mut responses = 0;
    let mut open = false;
    while responses < 50 || open {
        let message = client.message();
        match summary(&message).as_str() {
            "response" => responses += 1,
            "turn/started" => assert!(!std::mem::replace(&mut open, true)),
            "turn/completed completed" => assert!(std::mem::replace(&mut open, false)),
            _ => {}
        }
    }
}

#[test]
fn process_ends_after_half_of_the_deltas() {
    let ends = [
        ("crash", Ending::Exit(101)),
        ("crash=3", Ending::Exit(3)),
        ("abort", Ending::Abort),
        ("kill", Ending::Kill),
    ];
    for (directive, ending) in ends {
        let mut client = Client::ready("", None);
        let thread = client.thread();
        client.turn(&thread, &format!("deltas=4 {directive}"));
        assert_eq!(client.endings.recv_timeout(super::MESSAGE_TIMEOUT).unwrap(), ending);
        client.end_input();
        let deltas = client.lines.iter().filter(|line| String::from_utf8_lossy(line).contains("/delta"));
        assert_eq!(deltas.count(), 2, "{directive}");
    }
}

#[test]
fn half_line_has_no_newline() {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    client.turn(&thread, "half-line");
    client.end_input();
    let last = client.lines.iter().last().unwrap();
    assert!(last.starts_with(b"{\"method\":\"item/agentMessage/delta\""));
    assert_ne!(last.last(), Some(&b'\n'));
}

#[test]
fn pipes_are_closed_after_the_deltas() {
    for (directive, ending) in [("close-stdout", Ending::CloseStdout), ("close-stdin", Ending::CloseStdin)] {
        let mut client = Client::ready("", None);
        let thread = client.thread();
        client.turn(&thread, &format!("text=last {directive}"));
        assert_eq!(client.endings.recv_timeout(super::MESSAGE_TIMEOUT).unwrap(), ending);
        assert_eq!(client.until_method("item/agentMessage/delta")["params"]["delta"], "last");
    }
}

#[test]
fn invalid_and_long_lines_come_between_the_deltas() {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    client.turn(&thread, "deltas=2 garbage long-line=100000");
    client.until_method("item/agentMessage/delta");
    let lines: Vec<Vec<u8>> = (0..6).map(|_| client.line()).collect();
    assert!(serde_json::from_slice::<serde_json::Value>(&lines[0]).is_err());
    assert!(std::str::from_utf8(&lines[1]).is_err());
    assert_eq!(lines[2], b"[1,2,3]\n");
    assert!(lines[3].starts_with(b"{"));
    assert_eq!(lines[4], b"\n");
    assert_eq!(lines[5].len(), 100_001);
    assert_eq!(summary(&client.message()), "item/agentMessage/delta beta-1 .....");
}

#[test]
fn thread_read_returns_turns_whose_end_was_not_sent() {
    for directive in ["lose-completion", "lose-everything-after-deltas"] {
        let mut client = Client::ready("", None);
        let thread = client.thread();
        client.turn(&thread, &format!("deltas=1 {directive}"));
        client.until_method("item/agentMessage/delta");
        let params = json!({ "threadId": thread, "includeTurns": true });
        let read = loop {
            let read = client.call("thread/read", &params).unwrap();
            if read["thread"]["status"]["type"] == "idle" {
                break read;
            }
        };
        assert_eq!(read["thread"]["turns"][0]["status"], "completed", "{directive}");
        client.end_input();
        let rest: Vec<Vec<u8>> = client.lines.iter().collect();
        assert!(rest.iter().all(|line| !String::from_utf8_lossy(line).contains("turn/completed")));
    }
}

#[test]
fn response_to_turn_start_can_be_omitted_repeated_or_delayed() {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    client.request("turn/start", &turn_params(&thread, "answer-never"));
    assert!(summaries(&client.all_until("turn/completed")).iter().all(|summary| summary != "response"));

    let id = client.request("turn/start", &turn_params(&thread, "answer-foreign answer-twice"));
    let messages = client.all_until("turn/completed");
    let ids: Vec<_> = messages.iter().filter_map(|message| message.get("id").cloned()).collect();
    assert_eq!(ids, [json!("an unused id"), json!(id), json!(id)]);

    let id = client.request("turn/start", &turn_params(&thread, "hang answer-late=1"));
    assert!(client.response_to(id).is_ok());
}

#[test]
fn overload_rejects_the_next_turns() {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    client.turn(&thread, "overload=2");
    client.until_method("turn/completed");
    for _ in 0..2 {
        let id = client.request("turn/start", &turn_params(&thread, "x"));
        let message = client.message();
        assert_eq!((&message["id"], &message["error"]["code"]), (&json!(id), &json!(-32001)));
        assert_eq!(message["error"]["message"], "Server overloaded; retry later.");
    }
    client.turn(&thread, "x");
}

#[test]
fn turn_can_stop_reading_and_fill_stderr() {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    client.turn(&thread, "stop-reading stderr=TEXT stderr-flood=1000");
    client.until_method("turn/completed");
    assert_eq!(client.stopped.recv_timeout(super::MESSAGE_TIMEOUT).unwrap(), Stopped::StopReading);
    let log = client.log.lock().unwrap();
    assert!(log.starts_with(b"fake app-server ready\nTEXT\n"));
    assert!(log.len() >= 1030);
}

#[test]
fn clean_ends_the_process_of_a_command() {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    client.turn(&thread, "spawn=600");
    client.until_method("item/commandExecution/outputDelta");
    // The item may end before the response.
    client.request("thread/backgroundTerminals/clean", &json!({ "threadId": thread }));
    let item = client.until_method("item/completed")["params"]["item"].clone();
    assert_eq!((&item["status"], &item["exitCode"]), (&json!("failed"), &json!(-1)));
    client.until_method("turn/completed");
}

#[test]
fn command_outlives_an_interrupt_and_ends_with_stdin() {
    for directive in ["spawn=600", "spawn-background=600 hang"] {
        let mut client = Client::ready("", None);
        let thread = client.thread();
        let turn = client.turn(&thread, directive);
        let started = client.until(|message| message["params"]["item"]["type"] == "commandExecution");
        let pid: i32 = text(&started["params"]["item"]["processId"]).parse().unwrap();
        let pid = Pid::from_raw(pid).unwrap();
        client.request("turn/interrupt", &json!({ "threadId": thread, "turnId": turn }));
        assert_eq!(summary(&client.until_method("turn/completed")), "turn/completed interrupted");
        assert!(test_kill_process(pid).is_ok());
        client.end_input();
        while test_kill_process(pid).is_ok() {
            std::thread::yield_now();
        }
    }
}

#[test]
fn double_fork_process_outlives_the_app_server() {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    client.turn(&thread, "spawn-double=600 hang");
    let item = client.until_method("item/completed");
    assert_eq!(summary(&item), "item/completed userMessage");
    let item = client.until_method("item/completed")["params"]["item"].clone();
    assert_eq!(item["status"], "completed");
    let pid = Pid::from_raw(text(&item["processId"]).parse().unwrap()).unwrap();
    client.end_input();
    assert!(test_kill_process(pid).is_ok(), "it outlives the app-server");
    kill_process(pid, Signal::KILL).unwrap();
}
