//! The client commands with a daemon that requires a token.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::{CliUser, command};
use crate::api::run_command;
use crate::support::daemon::Daemon;
use crate::support::http::Target;
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

#[tokio::test]
async fn client_commands_find_token_of_the_state_directory() {
    let user = CliUser::at("http://127.0.0.1:1");
    let created = user.document(&["token", "--json"]).await;
    let path = PathBuf::from(created["path"].as_str().unwrap());
    let daemon = Daemon::builder().arg("--auth-token-file").arg(&path).start().await;
    let run = async |arguments: &[&str]| {
        let ended = run_command(command(daemon.base_url(), user.directory(), arguments)).await;
        assert!(!ended.stderr.contains("Bearer"), "the words of HTTP: {ended:?}");
        ended
    };
    let asked = run(&["ask", "text=hello"]).await;
    assert_eq!((asked.code, asked.stdout.as_str()), (Some(0), "hello\n"), "{asked:?}");
    for arguments in [["status"].as_slice(), &["sessions"]] {
        assert_eq!(run(arguments).await.code, Some(0), "{arguments:?}");
    }
    let doctor = run(&["doctor", "--state-dir", path.parent().unwrap().to_str().unwrap()]).await;
    let shown = doctor.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(shown.contains("token ok The daemon needs the token in"), "{shown}");

    // A person is told which file was looked for, and why it is no use.
    let elsewhere = path.with_extension("kept");
    fs::copy(&path, &elsewhere).unwrap();
    let daemon = Daemon::builder().arg("--auth-token-file").arg(&elsewhere).start().await;
    let refusal = async || {
        let refused = run_command(command(daemon.base_url(), user.directory(), &["sessions"])).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        refused.stderr
    };
    fs::remove_file(&path).unwrap();
    let missing = refusal().await;
    assert!(
        missing.contains("auth-token does not exist: name the file it was started with by --auth-token-file")
    );
    assert_eq!(user.run(&["token"]).await.code, Some(0));
    let rejected = refusal().await;
    assert!(
        rejected.contains(&format!("rejects the token in {}; name the file", path.display())),
        "{rejected}"
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let unusable = refusal().await;
    assert!(unusable.contains("the usual file cannot be used") && unusable.contains("0644"), "{unusable}");
}

#[tokio::test]
async fn token_of_the_state_directory_is_sent_only_if_needed() {
    let user = CliUser::at("http://127.0.0.1:1");
    assert_eq!(user.run(&["token"]).await.code, Some(0));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let length = connection.read(&mut request).unwrap();
        let body = r#"{"ok":true,"data":{"sessions":[]}}"#;
        write!(connection, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        String::from_utf8_lossy(&request[..length]).to_lowercase()
    });
    let listed = run_command(command(&base, user.directory(), &["sessions"])).await;
    let request = server.join().unwrap();
    assert!(request.starts_with("get /") && !request.contains("authorization"), "{request}\n{listed:?}");
}
