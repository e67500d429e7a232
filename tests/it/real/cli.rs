//! `codexd ask` and `codexd sessions` with the real app-server.

use super::Stage;
use crate::cli::CliUser;
use crate::support::terminal::Terminal;

#[tokio::test]
async fn ask_prints_items_and_prompts_for_approval() {
    let stage = Stage::start().await;
    let user = CliUser::of(&stage.daemon);
    let workspace = stage.home.workspace();
    let settings = ["--approval-policy", "untrusted", "--cwd", workspace.to_str().unwrap()];
    let arguments =
        [["ask", "mock:shell=[touch asked.txt] mock:text=[It is there.]"].as_slice(), &settings].concat();
    let mut command = user.command(&arguments);
    command.env("NO_COLOR", "1");
    let mut terminal = Terminal::start(command, 120);
    terminal.shows("Your decision (y, n, 1 to ").await;
    let question = terminal.text();
    assert!(question.contains("Codex asks to run touch asked.txt"), "{question}");
    assert!(question.contains("1  yes"), "{question}");
    assert!(!workspace.join("asked.txt").exists(), "the command ran before its approval");
    terminal.type_in("accept\n");
    let (code, shown) = terminal.ended().await;
    assert_eq!(code, Some(0), "{shown}");
    // Between them is the line of progress, if the turn takes long enough.
    for part in ["✓ touch asked.txt\r\n", "It is there.\r\n", "completed in "] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    assert!(workspace.join("asked.txt").exists());

    let answer = user.run(&["ask", "mock:text=[Hello!]", "--cwd", workspace.to_str().unwrap()]).await;
    assert_eq!((answer.code, answer.stdout.as_str()), (Some(0), "Hello!\n"), "{answer:?}");
    let arguments =
        ["ask", "--session", "last", "--cwd", workspace.to_str().unwrap(), "mock:text=[Hello again!]"];
    let again = user.run(&arguments).await;
    assert_eq!((again.code, again.stdout.as_str()), (Some(0), "Hello again!\n"), "{again:?}");
    let listed = user.run(&["sessions"]).await;
    assert_eq!(listed.stdout.lines().count(), 3, "{}", listed.stdout);
    assert!(listed.stdout.contains("mock-model"), "{}", listed.stdout);
}
