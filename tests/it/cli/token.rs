//! A daemon that needs a token.

use std::fs;

use super::CliUser;
use crate::support::daemon::Daemon;
use crate::support::scratch;

#[tokio::test]
async fn client_commands_send_token() {
    let folder = scratch::directory("test");
    let path = folder.path().join("token");
    let text = path.to_str().unwrap();
    let made = CliUser::at("http://127.0.0.1:1").run(&["token", "--auth-token-file", text]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let daemon = Daemon::builder().arg("--auth-token-file").arg(&path).start().await;
    let user = CliUser::beside(&daemon);

    for words in [["sessions"].as_slice(), &["requests"], &["follow"], &["ask", "hello"], &["close", "x"]] {
        let refused = user.run(words).await;
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""), "{words:?}: {refused:?}");
        assert!(refused.stderr.contains("--auth-token-file"), "{words:?}: {}", refused.stderr);
    }
    let asked = user.run(&["ask", "text=hello", "--auth-token-file", text]).await;
    assert_eq!((asked.code, asked.stdout.as_str()), (Some(0), "hello\n"), "{asked:?}");
    let mut with_variable = user.command(&["sessions"]);
    with_variable.env("BAA_CODEXD_AUTH_TOKEN_FILE", &path);
    let listed = crate::api::run(with_variable).await;
    assert_eq!(listed.code, Some(0), "{listed:?}");
    assert!(listed.stdout.contains("session-"), "{}", listed.stdout);

    fs::remove_file(&path).unwrap();
    let gone = user.run(&["sessions", "--auth-token-file", text]).await;
    assert_eq!(gone.code, Some(1));
    assert!(gone.stderr.contains("The token file cannot be used"), "{}", gone.stderr);
}
