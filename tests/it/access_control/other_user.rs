//! Other users of the same machine: they can connect to the port, and the daemon refuses all of their requests.
//!
//! A thread of the test that drops root privileges is another user to the kernel, and has full control of its
//! connections; one test runs a separate program.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Gid, Signal, Uid};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::raw_connection::{HANDSHAKE, RawConnection, RawResponse, head};
use crate::api::{SESSIONS, new_session, request_bytes, run_command, start_daemon, wait_until_ready};
use crate::files::prepared;
use crate::support::daemon::{Daemon, codexd};
use crate::support::fake_codex::fake_codex;
use crate::support::http::{Target, get};
use crate::support::scratch;
use crate::support::skip::skip;

/// The user ID of `nobody` on the systems that these tests run on; any unprivileged user would do.
const OTHER_USER: u32 = 65534;
/// A user ID that is neither root nor the daemon's.
const THIRD_USER: u32 = 65533;

/// Whether this process can change its user; prints what is skipped when it cannot.
///
/// Panics instead where `CODEXD_TEST_USERS` is `required`.
fn can_change_users(operation: &str) -> bool {
    let setpriv = || Command::new("setpriv").arg("--version").stdout(Stdio::null()).status();
    let why = if !rustix::process::geteuid().is_root() {
        "only root can change its user"
    } else if !setpriv().is_ok_and(|status| status.success()) {
        "there is no setpriv, which is part of util-linux"
    } else {
        return true;
    };
    skip("CODEXD_TEST_USERS", operation, why);
    false
}

/// Runs this as another user, in a new thread that changes its user and groups.
async fn run_as_user<T: Send + 'static>(uid: u32, work: impl AsyncFnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_res_gid(group, group, group).unwrap();
        rustix::thread::set_thread_res_uid(user, user, user).unwrap();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work())
    });
    let joined = tokio::task::spawn_blocking(|| thread.join()).await.unwrap();
    joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Sends these bytes as another user; returns the response, after which the daemon must close the connection.
async fn response_to_user(uid: u32, base: &str, bytes: String) -> RawResponse {
    let base = base.to_owned();
    run_as_user(uid, async move || {
        let mut connection = RawConnection::connect(base.as_str()).await;
        connection.send(bytes).await;
        let response = connection.response().await;
        assert_eq!(connection.read_to_end().await, "");
        response
    })
    .await
}

#[tokio::test]
async fn user_of_allow_uid_needs_the_token_and_others_are_refused() {
    if !can_change_users("requests of a user that --allow-uid names") {
        return;
    }
    let file = super::tokens::TokenFile::new();
    let builder = file.of(Daemon::builder()).arg("--allow-uid").arg(OTHER_USER.to_string());
    let daemon = builder.start().await;
    super::tokens::wait_until_ready(&daemon).await;
    let bearer = format!("{}\r\nconnection: close\r\n", super::tokens::bearer(super::tokens::TOKEN));
    for (uid, lines, expected) in [
        (OTHER_USER, bearer.as_str(), 200),
        (OTHER_USER, "connection: close\r\n", 401),
        (THIRD_USER, bearer.as_str(), 403),
    ] {
        let bytes = head(&daemon, "GET /v1/codexd/status", lines);
        let response = response_to_user(uid, daemon.base_url(), bytes).await;
        assert_eq!(response.status, expected, "user {uid} {lines:?}");
    }
    assert_refused(THIRD_USER, &daemon).await;
}

/// Asserts that every request of this user is refused.
async fn assert_refused(uid: u32, daemon: &Daemon) {
    let base = daemon.base_url();
    let requests = [
        head(daemon, "GET /healthz", ""),
        head(daemon, "OPTIONS /v1/codexd/sessions", ""),
        head(daemon, "GET /v1/codexd/status", ""),
        head(daemon, "GET /nowhere", ""),
        head(daemon, "GET /v1/codexd/events", "Accept: text/event-stream\r\n"),
        head(daemon, "GET /v1/codexd/events", HANDSHAKE),
        request_bytes(daemon, SESSIONS, &json!({})),
        // The user is checked before the request is parsed.
        "GET / HTTP/1.1\r\nHost: foreign.example\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\nHost: localhost\n\n\r\n\r\n".to_owned(),
    ];
    for bytes in requests {
        let response = response_to_user(uid, base, bytes.clone()).await;
        response.assert_error(403, "forbidden");
        assert!(response.has_line("connection: close"), "{bytes:?}: {response:?}");
    }
}

#[tokio::test]
async fn every_request_of_another_user_is_forbidden() {
    if !can_change_users("access_control::other_user::every_request_of_another_user_is_forbidden") {
        return;
    }
    let daemon = start_daemon().await;
    wait_until_ready(&daemon).await;
    assert_refused(OTHER_USER, &daemon).await;
    assert_eq!(get(&daemon, SESSIONS).await.data(200)["sessions"], json!([]));
}

#[tokio::test]
async fn program_of_another_user_is_forbidden() {
    if !can_change_users("access_control::other_user::program_of_another_user_is_forbidden") {
        return;
    }
    let daemon = start_daemon().await;
    let (_, port) = daemon.authority().rsplit_once(':').unwrap();
    let script = r#"exec 3<>"/dev/tcp/127.0.0.1/$0" && printf 'GET /healthz HTTP/1.1\r\nHost: localhost:%s\r\nConnection: close\r\n\r\n' "$0" >&3 && cat <&3"#;
    for (user, status) in [("65534", "HTTP/1.1 403 "), ("0", "HTTP/1.1 200 ")] {
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
        command.args(["bash", "-c", script, port]).current_dir("/");
        let ended = run_command(command).await;
        assert!(ended.stdout.starts_with(status), "{user}: {ended:?}");
    }
}

/// How a client closes its connection before the response.
#[derive(Clone, Copy, Debug)]
enum CloseMode {
    Close,
    Reset,
}

#[tokio::test]
async fn request_of_another_user_that_closes_early_has_no_effect() {
    if !can_change_users(
        "access_control::other_user::request_of_another_user_that_closes_early_has_no_effect",
    ) {
        return;
    }
    let mut daemon = start_daemon().await;
    wait_until_ready(&daemon).await;
    // The owner of a closed connection cannot be determined any more.
    for mode in [CloseMode::Close, CloseMode::Reset] {
        daemon.signal(Signal::STOP);
        let bytes = request_bytes(&daemon, SESSIONS, &json!({ "purpose": "worker" }));
        let authority = daemon.authority().to_owned();
        run_as_user(OTHER_USER, async move || {
            for _ in 0..20 {
                let stream = TcpStream::connect(&authority).await.unwrap();
                stream.writable().await.unwrap();
                assert_eq!(stream.try_write(bytes.as_bytes()).unwrap(), bytes.len());
                if matches!(mode, CloseMode::Reset) {
                    stream.set_zero_linger().unwrap();
                }
            }
        })
        .await;
        daemon.signal(Signal::CONT);
        // These requests come after those of the other user, and have been processed when they return.
        new_session(&daemon).await;
        wait_until_ready(&daemon).await;
    }
    let clients = run_as_user(OTHER_USER, {
        let (base, bytes) = (daemon.base_url().to_owned(), request_bytes(&daemon, SESSIONS, &json!({})));
        async move || {
            for _ in 0..100 {
                let stream = TcpStream::connect(base.authority()).await.unwrap();
                let _ = stream.try_write(bytes.as_bytes());
            }
        }
    });
    clients.await;
    new_session(&daemon).await;
    let sessions = get(&daemon, SESSIONS).await.data(200)["sessions"].as_array().unwrap().len();
    assert_eq!(sessions, 3, "the sessions of this test and no others");
    daemon.stop().await;
    let created = daemon.events_on_disk().iter().filter(|event| event["type"] == "session.created").count();
    assert_eq!(created, 3);
}

/// A directory that every user can enter: under the target directory, or in the machine's temporary directory where the
/// clone is in a directory that other users cannot enter, such as root's home.
///
/// No Codex works in it, so that nothing in the directories above can disturb the test.
fn public_directory(name: &str) -> TempDir {
    let is_open = |path: &Path| fs::metadata(path).unwrap().mode() & 0o001 != 0;
    let under_target = scratch::directory(name);
    let directory = if under_target.path().ancestors().skip(1).all(is_open) {
        under_target
    } else {
        tempfile::Builder::new().prefix(&format!("codexd-{name}-")).tempdir().unwrap()
    };
    set_mode(directory.path(), 0o755);
    directory
}

/// All files and directories below `directory`, with itself.
fn all_paths_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![directory.to_owned()];
    let mut index = 0;
    while let Some(path) = found.get(index).cloned() {
        if path.is_dir() {
            found.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        index += 1;
    }
    found
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn another_user_can_neither_read_nor_create_files_of_the_daemon() {
    if !can_change_users(
        "access_control::other_user::another_user_can_neither_read_nor_create_files_of_the_daemon",
    ) {
        return;
    }
    let home = public_directory("token");
    let token = home.path().join("token");
    let made = run_command({
        let mut command = codexd(home.path());
        command.arg("token").arg("--auth-token-file").arg(&token);
        command
    })
    .await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let root = public_directory("test");
    let top = root.path().to_owned();
    let daemon = Daemon::builder().within(root).arg("--auth-token-file").arg(&token).start().await;
    let (state, logs) = (daemon.state_dir(), daemon.logs_dir());
    // The parent directories also deny access, so they are opened here: the directories themselves
    // must protect the files.
    for directory in [&state, &logs] {
        for parent in directory.ancestors().skip(1).take_while(|parent| parent.starts_with(&top)) {
            set_mode(parent, 0o755);
        }
    }
    let mut private_paths = [all_paths_below(&state), all_paths_below(&logs)].concat();
    for name in ["identity.json", "codexd.lock", "events.jsonl", "stderr.log"] {
        assert!(private_paths.iter().any(|path| path.ends_with(name)), "{private_paths:?}");
    }
    private_paths.extend([token, format!("/proc/{}/environ", daemon.pid()).into()]);
    for (pid, _) in daemon.survivors() {
        private_paths.push(format!("/proc/{pid}/environ").into());
    }
    let public = state.parent().unwrap().to_owned();
    let problems = run_as_user(OTHER_USER, async move || {
        let mut problems = Vec::new();
        let mut expect_permission_denied = |operation: String, result: io::Result<()>| {
            if result.as_ref().map_err(io::Error::kind) != Err(io::ErrorKind::PermissionDenied) {
                problems.push(format!("{operation}: {result:?}"));
            }
        };
        // The parent directory is readable, otherwise the checks below would prove nothing.
        fs::read_dir(&public).unwrap();
        for path in private_paths {
            expect_permission_denied(format!("reading {}", path.display()), File::open(&path).map(drop));
        }
        for directory in [&state, &logs] {
            for name in ["daemon-state.json.new", "events.jsonl.new", "created"] {
                let link = directory.join(name);
                expect_permission_denied(format!("creating {}", link.display()), symlink("/tmp", &link));
            }
            let renamed = directory.with_extension("away");
            expect_permission_denied(
                format!("renaming {}", directory.display()),
                fs::rename(directory, renamed),
            );
        }
        problems
    })
    .await;
    assert_eq!(problems, Vec::<String>::new());
}

#[tokio::test]
async fn directory_prepared_by_another_user_is_refused_at_start() {
    if !can_change_users("access_control::other_user::directory_prepared_by_another_user_is_refused_at_start")
    {
        return;
    }
    let public = public_directory("public");
    set_mode(public.path(), 0o1777);
    let (theirs, link, ours) =
        (public.path().join("theirs"), public.path().join("link"), public.path().join("ours"));
    let (target, symlinked_file) = (public.path().join("target"), ours.join("identity.json"));
    fs::create_dir(&target).unwrap();
    fs::write(target.join("file"), "{}").unwrap();
    fs::create_dir(&ours).unwrap();
    set_mode(&ours, 0o777);
    let (to, from) = (target.clone(), [theirs.clone(), link.clone(), symlinked_file.clone()]);
    run_as_user(OTHER_USER, async move || {
        fs::create_dir(&from[0]).unwrap();
        symlink(&to, &from[1]).unwrap();
        symlink(to.join("file"), &from[2]).unwrap();
    })
    .await;
    let cases = [(&theirs, "belongs to user 65534"), (&link, "symlink"), (&ours, "symlink")];
    for flag in ["--state-dir", "--logs-dir"] {
        for (directory, why) in cases {
            if flag == "--logs-dir" && *directory == ours {
                continue;
            }
            let refusal = Daemon::builder().arg(flag).arg(directory).start_refused().await;
            assert_eq!(refusal.status.code(), Some(2), "{flag} {}: {}", directory.display(), refusal.stderr);
            assert!(refusal.stderr.contains(why), "{}", refusal.stderr);
        }
    }
    assert_eq!(
        all_paths_below(&theirs),
        std::slice::from_ref(&theirs),
        "nothing was written into the directory of the other user"
    );
    assert_eq!(all_paths_below(&target), [target.clone(), target.join("file")]);
    assert_eq!(fs::read_to_string(&symlinked_file).unwrap(), "{}");
    assert_eq!(fs::metadata(&theirs).unwrap().uid(), OTHER_USER);
}

#[tokio::test]
async fn root_is_accepted_by_a_daemon_of_another_user() {
    if !can_change_users("access_control::other_user::root_is_accepted_by_a_daemon_of_another_user") {
        return;
    }
    // The build directory may be closed to other users, so the programs are copied.
    let home = public_directory("programs");
    let [program, server, store] = ["codexd", "fake_codex", "store"].map(|name| home.path().join(name));
    fs::copy(env!("CARGO_BIN_EXE_codexd"), &program).unwrap();
    fs::copy(fake_codex(), &server).unwrap();
    fs::create_dir(&store).unwrap();
    std::os::unix::fs::chown(&store, Some(OTHER_USER), Some(OTHER_USER)).unwrap();
    let run_as_nobody = "chown -R 65534:65534 \"$(dirname \"$HOME\")\" \
        && exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$CODEXD_TEST_PROGRAM\" \"$@\"";
    let daemon = prepared(run_as_nobody)
        .within(public_directory("test"))
        .env("CODEXD_TEST_PROGRAM", &program)
        .server(&server, &["app-server", "--store", store.to_str().unwrap()])
        .start()
        .await;
    wait_until_ready(&daemon).await;
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    assert!(status.contains("\nUid:\t65534\t65534\t65534\t65534\n"), "{status}");
    new_session(&daemon).await;
    let base = daemon.base_url().to_owned();
    let own = run_as_user(OTHER_USER, async move || get(base.as_str(), SESSIONS).await.status).await;
    assert_eq!(own, 200, "the user of the daemon is accepted");
    assert_refused(THIRD_USER, &daemon).await;
    assert_eq!(get(&daemon, SESSIONS).await.data(200)["sessions"].as_array().unwrap().len(), 1);
}
