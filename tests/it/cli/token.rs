//! The client commands with a daemon that requires a token.

use std::fs;

use super::CliUser;
use crate::support::daemon::Daemon;
use crate::support::scratch;

#[tokio::test]
async fn client_commands_send_token() {
    let directory = scratch::directory("test");
    let path = directory.path().join("token");
    let path_text = path.to_str().unwrap();
    let created = CliUser::at("http://127.0.0.1:1").run(&["token", "--auth-token-file", path_text]).await;
    assert_eq!(created.code, Some(0), "{created:?}");
    let daemon = Daemon::builder().arg("--auth-token-file").arg(&path).start().await;
    let user = CliUser::of(&daemon);

    for arguments in [["sessions"].as_slice(), &["requests"], &["follow"], &["ask", "hello"], &["close", "x"]]
    {
        let refused = user.run(arguments).await;
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""), "{arguments:?}: {refused:?}");
        assert!(refused.stderr.contains("--auth-token-file"), "{arguments:?}: {}", refused.stderr);
    }
    let asked = user.run(&["ask", "text=hello", "--auth-token-file", path_text]).await;
    assert_eq!((asked.code, asked.stdout.as_str()), (Some(0), "hello\n"), "{asked:?}");
    let mut with_variable = user.command(&["sessions"]);
    with_variable.env("BAA_CODEXD_AUTH_TOKEN_FILE", &path);
    let listed = crate::api::run_command(with_variable).await;
    assert_eq!(listed.code, Some(0), "{listed:?}");
    assert!(listed.stdout.contains("session-"), "{}", listed.stdout);

    fs::remove_file(&path).unwrap();
    let missing = user.run(&["sessions", "--auth-token-file", path_text]).await;
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("The token file cannot be used"), "{}", missing.stderr);
}
