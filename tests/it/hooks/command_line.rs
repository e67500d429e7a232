//! `codexd hooks`: add, list, test and remove.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::api::{run_command, start_daemon};
use crate::cli::CliUser;
use crate::support::wait::wait_until;

#[tokio::test]
async fn hook_is_added_listed_tested_and_removed() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    let program = user.directory().join("notify.sh");
    fs::write(&program, "#!/bin/sh\ncat > \"$0.event\"\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let state = daemon.state_dir().to_str().unwrap().to_owned();
    let run = async |arguments: &[&str]| {
        let mut command = user.command(arguments);
        command.env("BAA_CODEXD_STATE_DIR", &state);
        run_command(command).await
    };

    for (program, problem) in [
        ("./none.sh", "./none.sh does not exist"),
        ("no-such-program-of-any-system", "is not in PATH"),
        (user.directory().to_str().unwrap(), "is not an executable file; type: chmod +x"),
    ] {
        let refused = run(&["hooks", "add", "--on", "request.opened", "--command", program]).await;
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{refused:?}");
        assert!(refused.stderr.contains(problem), "{refused:?}");
    }
    // The path is relative to the directory of the user, not to that of the daemon.
    let added = run(&["hooks", "add", "--on", "request.opened", "--command", "./notify.sh"]).await;
    assert_eq!((added.code, added.stderr.as_str()), (Some(0), ""), "{added:?}");
    assert!(added.stdout.contains("hook notify.sh"), "{added:?}");
    let listed = run(&["hooks", "list", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!(listed["hooks"][0]["program"], program.to_str().unwrap());
    let listed = run(&["hooks", "list"]).await;
    assert!(listed.stdout.contains("notify.sh") && listed.stdout.contains("request.opened"), "{listed:?}");

    let tested = run(&["hooks", "test", "notify.sh"]).await;
    assert_eq!((tested.code, tested.stderr.as_str()), (Some(0), ""), "{tested:?}");
    let event = user.directory().join("notify.sh.event");
    let event =
        wait_until("the event", || fs::read_to_string(&event).ok().filter(|text| !text.is_empty())).await;
    let event: Value = serde_json::from_str(&event).unwrap();
    assert_eq!(event["type"], "test", "{event}");

    fs::write(&program, "#!/bin/sh\necho no display >&2\nexit 1\n").unwrap();
    let failed = run(&["hooks", "test", "notify.sh"]).await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stderr.contains("exited with code 1: no display"), "{failed:?}");

    let removed = run(&["hooks", "remove", "notify.sh"]).await;
    assert_eq!(
        (removed.code, removed.stdout.as_str()),
        (Some(0), "Removed hook notify.sh.\n"),
        "{removed:?}"
    );
    let unknown = run(&["hooks", "remove", "notify.sh"]).await;
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    assert!(unknown.stderr.contains("There is no hook \"notify.sh\""), "{unknown:?}");
}
