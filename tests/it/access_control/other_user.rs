//! Other users of the same machine: they can reach the port, and that is all that they can.
//!
//! A thread that gives up what root may do is another user to the kernel, and can do to its connections what no
//! ready-made program does; one test asks a program of its own.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Gid, Signal, Uid};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::raw_connection::{HANDSHAKE, Wire, WireAnswer, head};
use crate::api::{SESSIONS, ready, request_bytes, run, session, start};
use crate::files::prepared;
use crate::support::daemon::{Daemon, codexd};
use crate::support::fake_codex::fake_codex;
use crate::support::http::{Target, get};
use crate::support::scratch;
use crate::support::skip::skip;

/// Nobody, on the systems these tests run on; any other user would do.
const NOBODY: u32 = 65534;
/// Yet another one.
const SOMEBODY: u32 = 65533;

/// Whether this process can be another user; prints what is skipped when it cannot.
///
/// Panics instead where `CODEXD_TEST_USERS` is `required`.
fn can_change_users(what: &str) -> bool {
    let setpriv = || Command::new("setpriv").arg("--version").stdout(Stdio::null()).status();
    let why = if !rustix::process::geteuid().is_root() {
        "only root can be another user"
    } else if !setpriv().is_ok_and(|status| status.success()) {
        "there is no setpriv, which is part of util-linux"
    } else {
        return true;
    };
    skip("CODEXD_TEST_USERS", what, why);
    false
}

/// Does this as another user, in a thread that is nobody else any more.
async fn as_user<T: Send + 'static>(uid: u32, work: impl AsyncFnOnce() -> T + Send + 'static) -> T {
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

/// What is answered to these bytes of another user, whose connection has to be closed after it.
async fn answer_to(uid: u32, base: &str, bytes: String) -> WireAnswer {
    let base = base.to_owned();
    as_user(uid, async move || {
        let mut wire = Wire::connect(base.as_str()).await;
        wire.send(bytes).await;
        let answer = wire.answer().await;
        assert_eq!(wire.rest().await, "");
        answer
    })
    .await
}

/// Asserts that a user is refused whatever it asks.
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
        // Who asks comes before what is asked.
        "GET / HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\nHost: localhost\n\n\r\n\r\n".to_owned(),
    ];
    for bytes in requests {
        let answer = answer_to(uid, base, bytes.clone()).await;
        answer.assert_error(403, "forbidden");
        assert!(answer.run("connection: close"), "{bytes:?}: {answer:?}");
    }
}

#[tokio::test]
async fn another_user_is_refused_whatever_it_asks() {
    if !can_change_users("access_control::other_user::another_user_is_refused_whatever_it_asks") {
        return;
    }
    let daemon = start().await;
    ready(&daemon).await;
    assert_refused(NOBODY, &daemon).await;
    assert_eq!(get(&daemon, SESSIONS).await.data(200)["sessions"], json!([]));
}

#[tokio::test]
async fn a_program_of_another_user_is_refused() {
    if !can_change_users("access_control::other_user::a_program_of_another_user_is_refused") {
        return;
    }
    let daemon = start().await;
    let (_, port) = daemon.authority().rsplit_once(':').unwrap();
    let script = r#"exec 3<>"/dev/tcp/127.0.0.1/$0" && printf 'GET /healthz HTTP/1.1\r\nHost: localhost:%s\r\nConnection: close\r\n\r\n' "$0" >&3 && cat <&3"#;
    for (user, status) in [("65534", "HTTP/1.1 403 "), ("0", "HTTP/1.1 200 ")] {
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
        command.args(["bash", "-c", script, port]).current_dir("/");
        let ended = run(command).await;
        assert!(ended.stdout.starts_with(status), "{user}: {ended:?}");
    }
}

/// How a peer leaves that does not wait for its answer.
#[derive(Clone, Copy, Debug)]
enum Leave {
    Close,
    Reset,
}

#[tokio::test]
async fn nothing_comes_of_what_another_user_says_and_leaves() {
    if !can_change_users("access_control::other_user::nothing_comes_of_what_another_user_says_and_leaves") {
        return;
    }
    let mut daemon = start().await;
    ready(&daemon).await;
    // The owner of a connection that is gone cannot be looked up any more.
    for leave in [Leave::Close, Leave::Reset] {
        daemon.signal(Signal::STOP);
        let bytes = request_bytes(&daemon, SESSIONS, &json!({ "purpose": "worker" }));
        let authority = daemon.authority().to_owned();
        as_user(NOBODY, async move || {
            for _ in 0..20 {
                let stream = TcpStream::connect(&authority).await.unwrap();
                stream.writable().await.unwrap();
                assert_eq!(stream.try_write(bytes.as_bytes()).unwrap(), bytes.len());
                if matches!(leave, Leave::Reset) {
                    stream.set_zero_linger().unwrap();
                }
            }
        })
        .await;
        daemon.signal(Signal::CONT);
        // These come after all of that, and have been carried out at the end.
        session(&daemon).await;
        ready(&daemon).await;
    }
    let running = as_user(NOBODY, {
        let (base, bytes) = (daemon.base_url().to_owned(), request_bytes(&daemon, SESSIONS, &json!({})));
        async move || {
            for _ in 0..100 {
                let stream = TcpStream::connect(base.authority()).await.unwrap();
                let _ = stream.try_write(bytes.as_bytes());
            }
        }
    });
    running.await;
    session(&daemon).await;
    let sessions = get(&daemon, SESSIONS).await.data(200)["sessions"].as_array().unwrap().len();
    assert_eq!(sessions, 3, "those of this test are all that there are");
    daemon.stop().await;
    let created = daemon.events_on_disk().iter().filter(|event| event["type"] == "session.created").count();
    assert_eq!(created, 3);
}

/// A directory that every user can reach: under the target directory, or in the machine's temporary directory where the
/// clone is in a directory that others cannot enter, such as root's home.
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

/// All files and folders below `folder`.
fn all_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    let mut at = 0;
    while let Some(path) = found.get(at).cloned() {
        if path.is_dir() {
            found.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        at += 1;
    }
    found
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn another_user_can_neither_read_nor_plant_anything() {
    if !can_change_users("access_control::other_user::another_user_can_neither_read_nor_plant_anything") {
        return;
    }
    let home = public_directory("token");
    let token = home.path().join("token");
    let made = run({
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
    // What is above the folders of the daemon hides them as well, so it is opened here.
    for folder in [&state, &logs] {
        for above in folder.ancestors().skip(1).take_while(|above| above.starts_with(&top)) {
            set_mode(above, 0o755);
        }
    }
    let mut secret = [all_below(&state), all_below(&logs)].concat();
    for name in ["identity.json", "codexd.lock", "events.jsonl", "stderr.log"] {
        assert!(secret.iter().any(|path| path.ends_with(name)), "{secret:?}");
    }
    secret.extend([token, format!("/proc/{}/environ", daemon.pid()).into()]);
    for (pid, _) in daemon.survivors() {
        secret.push(format!("/proc/{pid}/environ").into());
    }
    let public = state.parent().unwrap().to_owned();
    let problems = as_user(NOBODY, async move || {
        let mut problems = Vec::new();
        let mut must_fail = |what: String, done: io::Result<()>| {
            if done.as_ref().map_err(io::Error::kind) != Err(io::ErrorKind::PermissionDenied) {
                problems.push(format!("{what}: {done:?}"));
            }
        };
        // The way there is open, or this would show nothing.
        fs::read_dir(&public).unwrap();
        for path in secret {
            must_fail(format!("reading {}", path.display()), File::open(&path).map(drop));
        }
        for folder in [&state, &logs] {
            for name in ["daemon-state.json.new", "events.jsonl.new", "planted"] {
                let link = folder.join(name);
                must_fail(format!("planting {}", link.display()), symlink("/tmp", &link));
            }
            let away = folder.with_extension("away");
            must_fail(format!("moving {}", folder.display()), fs::rename(folder, away));
        }
        problems
    })
    .await;
    assert_eq!(problems, Vec::<String>::new());
}

#[tokio::test]
async fn a_folder_that_another_user_has_prepared_is_refused() {
    if !can_change_users("access_control::other_user::a_folder_that_another_user_has_prepared_is_refused") {
        return;
    }
    let public = public_directory("public");
    set_mode(public.path(), 0o1777);
    let (theirs, link, ours) =
        (public.path().join("theirs"), public.path().join("link"), public.path().join("ours"));
    let (target, planted) = (public.path().join("target"), ours.join("identity.json"));
    fs::create_dir(&target).unwrap();
    fs::write(target.join("file"), "{}").unwrap();
    fs::create_dir(&ours).unwrap();
    set_mode(&ours, 0o777);
    let (to, from) = (target.clone(), [theirs.clone(), link.clone(), planted.clone()]);
    as_user(NOBODY, async move || {
        fs::create_dir(&from[0]).unwrap();
        symlink(&to, &from[1]).unwrap();
        symlink(to.join("file"), &from[2]).unwrap();
    })
    .await;
    let told = [(&theirs, "belongs to user 65534"), (&link, "symlink"), (&ours, "symlink")];
    for flag in ["--state-dir", "--logs-dir"] {
        for (folder, why) in told {
            if flag == "--logs-dir" && *folder == ours {
                continue;
            }
            let refusal = Daemon::builder().arg(flag).arg(folder).start_refused().await;
            assert_eq!(refusal.status.code(), Some(2), "{flag} {}: {}", folder.display(), refusal.stderr);
            assert!(refusal.stderr.contains(why), "{}", refusal.stderr);
        }
    }
    assert_eq!(all_below(&theirs), std::slice::from_ref(&theirs), "nothing was written there");
    assert_eq!(all_below(&target), [target.clone(), target.join("file")]);
    assert_eq!(fs::read_to_string(&planted).unwrap(), "{}");
    assert_eq!(fs::metadata(&theirs).unwrap().uid(), NOBODY);
}

#[tokio::test]
async fn root_passes_where_the_daemon_is_not_root() {
    if !can_change_users("access_control::other_user::root_passes_where_the_daemon_is_not_root") {
        return;
    }
    // The programs may be where nobody else can get at them.
    let home = public_directory("nobody");
    let [program, server, store] = ["codexd", "fake_codex", "store"].map(|name| home.path().join(name));
    fs::copy(env!("CARGO_BIN_EXE_codexd"), &program).unwrap();
    fs::copy(fake_codex(), &server).unwrap();
    fs::create_dir(&store).unwrap();
    std::os::unix::fs::chown(&store, Some(NOBODY), Some(NOBODY)).unwrap();
    let become_nobody = "chown -R 65534:65534 \"$(dirname \"$HOME\")\" \
        && exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$CODEXD_TEST_PROGRAM\" \"$@\"";
    let daemon = prepared(become_nobody)
        .within(public_directory("test"))
        .env("CODEXD_TEST_PROGRAM", &program)
        .server(&server, &["app-server", "--store", store.to_str().unwrap()])
        .start()
        .await;
    ready(&daemon).await;
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    assert!(status.contains("\nUid:\t65534\t65534\t65534\t65534\n"), "{status}");
    session(&daemon).await;
    let base = daemon.base_url().to_owned();
    let own = as_user(NOBODY, async move || get(base.as_str(), SESSIONS).await.status).await;
    assert_eq!(own, 200, "its own user is let in");
    assert_refused(SOMEBODY, &daemon).await;
    assert_eq!(get(&daemon, SESSIONS).await.data(200)["sessions"].as_array().unwrap().len(), 1);
}
