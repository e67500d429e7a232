//! Queues that are held, in `ask`, `sessions` and `resume-queue`.

use std::process::Stdio;

use serde_json::json;

use super::user_with_session;
use crate::api::{SESSIONS, TURN, start_turn, text, wait_for_event_type};
use crate::duplex::delete;
use crate::support::http::post;
use crate::support::wait::wait_until_async;

#[tokio::test]
async fn ask_reports_why_queue_is_held() {
    let (daemon, user, session_id) = user_with_session().await;
    let running = start_turn(&daemon, &session_id, "hang").await;
    let rejected = json!({
        "sessionId": session_id, "input": "wrong", "whenBusy": "queue", "sandboxPolicy": { "type": "weird" },
    });
    let rejected = text(&post(&daemon, TURN, &rejected).await.data(202)["queueId"]);
    let steered = json!({ "sessionId": session_id, "input": "text=end", "expectedTurnId": running });
    post(&daemon, TURN, &steered).await.data(202);
    wait_for_event_type(&daemon, "session.held").await;
    let listed = user.run(&["sessions"]).await.stdout;
    assert!(listed.contains(" held "), "{listed}");

    let path = format!("{SESSIONS}/{session_id}/queue/{rejected}");
    let arguments = ["ask", "--session", &session_id, "--when-busy", "queue", "text=answered"];
    // Stderr is a file, so that the test can read it while the command waits.
    let stderr_path = user.directory().join("stderr");
    let mut command = user.command(&arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(std::fs::File::create(&stderr_path).unwrap());
    let mut command = tokio::process::Command::from(command);
    let asking = command.kill_on_drop(true).spawn().unwrap().wait_with_output();
    let resuming = async {
        wait_until_async("the reason of the hold on stderr", async || {
            let stderr = std::fs::read_to_string(&stderr_path).unwrap();
            (stderr.contains("the queue is held") && stderr.ends_with('\n')).then_some(())
        })
        .await;
        let resumed = user.run(&["resume-queue", &session_id]).await;
        assert_eq!((resumed.code, resumed.stderr.as_str()), (Some(0), ""));
        assert!(resumed.stdout.contains("2 turns are queued"), "{}", resumed.stdout);
        // The app-server rejected the turn again; after its removal the other turn starts.
        wait_until_async("the removal of the rejected turn", async || {
            (delete(&daemon, &path).await.status == 200).then_some(())
        })
        .await;
    };
    let (asked, ()) = tokio::join!(asking, resuming);
    let (asked, stderr) = (asked.unwrap(), std::fs::read_to_string(&stderr_path).unwrap());
    assert_eq!(
        (asked.status.code(), asked.stdout.as_slice()),
        (Some(0), b"answered\n".as_slice()),
        "{stderr}"
    );
    for part in ["the queue is held", "weird", "resume-queue"] {
        assert!(stderr.contains(part), "no {part:?} in {stderr}");
    }
    let empty_queue = user.run(&["resume-queue", &session_id]).await;
    assert!(empty_queue.stdout.contains("is empty"), "{}", empty_queue.stdout);
}
