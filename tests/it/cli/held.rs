//! Queues that are held, in `ask`, `sessions` and `resume-queue`.

use std::process::Stdio;

use serde_json::json;

use super::stage;
use crate::api::{SESSIONS, TURN, logged_type, text, turn};
use crate::duplex::delete;
use crate::support::http::post;
use crate::support::wait::wait_until_async;

#[tokio::test]
async fn ask_reports_why_queue_is_held() {
    let (daemon, user, session_id) = stage().await;
    let running = turn(&daemon, &session_id, "hang").await;
    let wrong = json!({
        "sessionId": session_id, "input": "wrong", "whenBusy": "queue", "sandboxPolicy": { "type": "weird" },
    });
    let wrong = text(&post(&daemon, TURN, &wrong).await.data(202)["queueId"]);
    let end = json!({ "sessionId": session_id, "input": "text=end", "expectedTurnId": running });
    post(&daemon, TURN, &end).await.data(202);
    logged_type(&daemon, "session.held").await;
    let listed = user.run(&["sessions"]).await.stdout;
    assert!(listed.contains(" held "), "{listed}");

    let path = format!("{SESSIONS}/{session_id}/queue/{wrong}");
    let words = ["ask", "--session", &session_id, "--when-busy", "queue", "text=answered"];
    // Its stderr is a file, so that it can be read while it waits.
    let told = user.folder().join("stderr");
    let mut command = user.command(&words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(std::fs::File::create(&told).unwrap());
    let mut command = tokio::process::Command::from(command);
    let asking = command.kill_on_drop(true).spawn().unwrap().wait_with_output();
    let helping = async {
        wait_until_async("why the queue is held", async || {
            let told = std::fs::read_to_string(&told).unwrap();
            (told.contains("the queue is held") && told.ends_with('\n')).then_some(())
        })
        .await;
        let resumed = user.run(&["resume-queue", &session_id]).await;
        assert_eq!((resumed.code, resumed.stderr.as_str()), (Some(0), ""));
        assert!(resumed.stdout.contains("2 turns are queued"), "{}", resumed.stdout);
        // It was refused again; without it the other one begins.
        wait_until_async("the end of the wrong turn", async || {
            (delete(&daemon, &path).await.status == 200).then_some(())
        })
        .await;
    };
    let (asked, ()) = tokio::join!(asking, helping);
    let (asked, told) = (asked.unwrap(), std::fs::read_to_string(&told).unwrap());
    assert_eq!((asked.status.code(), asked.stdout.as_slice()), (Some(0), b"answered\n".as_slice()), "{told}");
    for part in ["the queue is held", "weird", "resume-queue"] {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    let nothing = user.run(&["resume-queue", &session_id]).await;
    assert!(nothing.stdout.contains("is empty"), "{}", nothing.stdout);
}
