//! `codexd ask`: one turn, from the words to its fate.

mod approvals;
#[expect(
    clippy::disallowed_methods,
    reason = "a command is a process of its own, and what blocks it keeps only itself"
)]
mod keyboard;
mod network;
mod printer;
mod trust;
mod turn_follower;

use std::io::{IsTerminal, Read, stdin};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::client::{ClientError, newest};
use super::sessions::{find, folder, path};
use super::status::codex_words;
use super::{Failure, INTERRUPTED, LEFT, output};
use crate::cli::Ask;
use crate::commands::context::Caller;
use keyboard::Keyboard;
use turn_follower::{Conversation, Fate, Turn};

pub(crate) async fn run(caller: &Caller, wanted: Ask) -> Result<ExitCode, Failure> {
    let text = text(&wanted.words)?;
    let mut interrupts = interrupts()?;
    if wanted.session.is_none() {
        see_account(caller).await?;
    }
    let Some((session_id, keyboard)) = session(caller, &wanted, &mut interrupts).await? else {
        caller.note("Left; nothing was begun.");
        return Ok(ExitCode::from(LEFT));
    };
    // Whatever happens to the turn comes after this.
    let cursor = newest(&caller.client).await?;
    if *interrupts.borrow() {
        return Ok(stopped_before(caller, &wanted, &session_id).await);
    }
    let turn = match submit_unless(caller, &wanted, &session_id, &text, interrupts.clone()).await? {
        Some(turn) => turn,
        None => return Ok(stopped_before(caller, &wanted, &session_id).await),
    };
    if !caller.json {
        output::complain(&caller.stderr.line(&format!("session {session_id}")));
    }
    let mut conversation = Conversation::new(caller, &session_id, turn, cursor, keyboard);
    conversation.give_up_after(wanted.network_timeout);
    conversation.look_for_mcp_servers().await?;
    if wanted.when_busy.as_deref() == Some("steer") {
        conversation.look_for_requests().await?;
    }
    conversation.look_at_queue().await?;
    let fate = conversation.until_its_end(interrupts).await?;
    if caller.json {
        say(caller, &session_id, conversation.turn_id()).await?;
    }
    Ok(match fate {
        Fate::Completed => ExitCode::SUCCESS,
        Fate::Interrupted => {
            caller.note("The turn was interrupted.");
            ExitCode::from(INTERRUPTED)
        }
        Fate::Withdrawn => {
            caller.note("The waiting turn was taken back; it never began.");
            ExitCode::from(INTERRUPTED)
        }
        Fate::Failed(reason) => {
            caller.note(&match reason {
                Some(reason) => format!("The turn failed: {reason}"),
                None => "The turn failed.".to_owned(),
            });
            if let Some(codex) = codex(caller).await.filter(|codex| codex["state"] != "ready") {
                caller.note(&codex_words(&codex));
            }
            ExitCode::FAILURE
        }
    })
}

/// How long an account that was given just now may take to be known.
const ACCOUNT: Duration = Duration::from_secs(3);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How Codex is, as far as the daemon says it.
async fn codex(caller: &Caller) -> Option<Value> {
    let answer = caller.client.get("/healthz").await;
    answer.ok().map(|mut health| health["service"]["codex"].take()).filter(Value::is_object)
}

/// Fails where Codex has no account, before anything is begun that could only fail.
///
/// A session of its own may work with another model than that of the configuration, so this is for new ones.
async fn see_account(caller: &Caller) -> Result<(), Failure> {
    let end = Instant::now() + ACCOUNT;
    while let Some(codex) = codex(caller).await.filter(|codex| codex["state"] == "noAccount") {
        if Instant::now() >= end {
            return Err(Failure::new(codex_words(&codex)));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// What is asked; `-` stands for stdin, and so does nothing.
fn text(words: &[String]) -> Result<String, Failure> {
    if words.is_empty() && stdin().is_terminal() {
        return Err(Failure::settings("There is nothing to ask; say it as codexd ask \"…\", or pipe it in."));
    }
    let mut text = String::new();
    for word in words {
        if word != "-" {
            // What came over stdin is a paragraph of its own.
            text.push_str(if text.is_empty() || text.ends_with('\n') { "" } else { " " });
            text.push_str(word);
        } else {
            text.push_str(if text.is_empty() { "" } else { "\n\n" });
            text.push_str(&input()?);
            text.push_str("\n\n");
        }
    }
    if words.is_empty() {
        text = input()?;
    }
    match text.trim() {
        "" => Err(Failure::settings("There is nothing to ask: the text is empty.")),
        text => Ok(text.to_owned()),
    }
}

fn input() -> Result<String, Failure> {
    let mut text = String::new();
    let read = stdin().read_to_string(&mut text);
    read.map_err(|error| Failure::settings(format!("The text on stdin cannot be read: {error}.")))?;
    Ok(text.trim().to_owned())
}

/// Whether Ctrl-C was typed; at the second time the process ends at once.
fn interrupts() -> Result<watch::Receiver<bool>, Failure> {
    let mut signals = signal(SignalKind::interrupt())
        .map_err(|error| Failure::new(format!("Ctrl-C cannot be waited for: {error}.")))?;
    let (first, told) = watch::channel(false);
    tokio::spawn(async move {
        signals.recv().await;
        first.send_replace(true);
        signals.recv().await;
        keyboard::show_typing();
        output::complain("\ncodexd: Left; what runs in codexd goes on.");
        std::process::exit(LEFT.into());
    });
    Ok(told)
}

/// The session that is meant, or a new one in this directory, and the keyboard if something was asked on it; nothing when
/// Ctrl-C was typed first.
async fn session(
    caller: &Caller,
    wanted: &Ask,
    interrupts: &mut watch::Receiver<bool>,
) -> Result<Option<(String, Option<Keyboard>)>, Failure> {
    let folder = folder(wanted.cwd.as_deref())?;
    if let Some(word) = &wanted.session {
        return Ok(Some((find(caller, word, &folder).await?, None)));
    }
    let mut body = settings(wanted);
    body.insert("cwd".to_owned(), in_json(&folder)?);
    if let Some(sandbox) = &wanted.sandbox {
        body.insert("sandbox".to_owned(), sandbox.as_str().into());
    }
    if let Some(trust) = wanted.trust {
        body.insert("trust".to_owned(), trust.into());
    }
    let Some((created, keyboard)) = trust::create(caller, body, interrupts).await? else { return Ok(None) };
    let session_id = created["session"]["sessionId"].as_str().unwrap_or_default().to_owned();
    if created["session"]["trust"] == "untrusted" {
        say_what_is_left_out(caller, &session_id).await?;
    }
    Ok(Some((session_id, keyboard)))
}

/// Says which `.codex` directories are not used, if there are any.
async fn say_what_is_left_out(caller: &Caller, session_id: &str) -> Result<(), Failure> {
    let view = caller.client.get(&path(session_id)).await?;
    let events = view["recentEvents"].as_array().into_iter().flatten();
    let told = events.rev().find(|event| event["type"] == "session.trust");
    let left_out = told.and_then(|event| event["detail"]["leftOut"].as_array()).into_iter().flatten();
    let left_out: Vec<_> = left_out.filter_map(Value::as_str).collect();
    if !left_out.is_empty() {
        caller.note(&format!(
            "Not used, because the directory is not trusted: {}; --trust uses it.",
            left_out.join(", ")
        ));
    }
    Ok(())
}

/// A path as JSON can hold it, to the byte.
fn in_json(path: &Path) -> Result<Value, Failure> {
    path.to_str().map(Value::from).ok_or_else(|| {
        Failure::settings(format!(
            "The path of the directory {} is not UTF-8, so it cannot be sent to codexd; rename the directory, or use \
             another one.",
            path.display()
        ))
    })
}

/// What both a session and a turn can be told.
fn settings(wanted: &Ask) -> Map<String, Value> {
    let all = [("model", &wanted.model), ("approvalPolicy", &wanted.approval_policy)];
    let given = all.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    given.map(|(name, value)| (name.to_owned(), value.into())).collect()
}

/// Ctrl-C came before there was a turn: the session that was made for it is closed, as nobody else knows of it.
async fn stopped_before(caller: &Caller, wanted: &Ask, session_id: &str) -> ExitCode {
    if wanted.session.is_none() {
        // Without it an idle session stays, which does no harm.
        let _ = caller.client.delete(&path(session_id)).await;
    }
    caller.note("Interrupted before the turn began.");
    ExitCode::from(INTERRUPTED)
}

/// Submits the turn; `None` when it was interrupted before it began.
///
/// In a session of its own Ctrl-C is passed on while the answer is outstanding, because that may take long; in a session
/// that others may use too it could meet their turn, so there it waits until the turn has a name.
async fn submit_unless(
    caller: &Caller,
    wanted: &Ask,
    session_id: &str,
    text: &str,
    mut interrupts: watch::Receiver<bool>,
) -> Result<Option<Turn>, Failure> {
    let submitted = submit(caller, wanted, session_id, text);
    tokio::pin!(submitted);
    tokio::select! {
        submitted = &mut submitted => return submitted,
        Ok(_) = interrupts.wait_for(|is_wanted| *is_wanted), if wanted.session.is_none() => {}
    }
    let (client, body) = (caller.client.clone(), json!({ "sessionId": session_id }));
    // What it brings is told by the answer to the turn, or by its events.
    tokio::spawn(async move { client.post("/v1/codexd/turn/interrupt", &body).await });
    submitted.await
}

async fn submit(
    caller: &Caller,
    wanted: &Ask,
    session_id: &str,
    text: &str,
) -> Result<Option<Turn>, Failure> {
    let mut body = Map::new();
    if wanted.session.is_some() {
        body = settings(wanted);
        // An older session stays in its folder unless another one is named.
        if wanted.cwd.is_some() {
            body.insert("cwd".to_owned(), in_json(&folder(wanted.cwd.as_deref())?)?);
        }
        if let Some(how) = &wanted.when_busy {
            body.insert("whenBusy".to_owned(), how.as_str().into());
        }
    }
    body.insert("sessionId".to_owned(), session_id.into());
    body.insert("input".to_owned(), text.into());
    let submitted = caller.client.post("/v1/codexd/turn", &body.into()).await;
    if submitted.as_ref().is_err_and(|error| error.code() == "turn_interrupted") {
        return Ok(None);
    }
    let accepted = submitted.map_err(|error: ClientError| match error.code() {
        "turn_in_progress" => Failure::new(format!(
            "A turn runs in session {session_id} already; wait for it, or say --when-busy steer or --when-busy queue."
        )),
        _ => error.into(),
    })?;
    let text = |name: &str| accepted[name].as_str().map(str::to_owned);
    match (text("turnId"), text("queueId")) {
        (Some(turn_id), _) => Ok(Some(Turn::Begun(turn_id))),
        (None, Some(queue_id)) => Ok(Some(Turn::Queued(queue_id))),
        (None, None) => Err(Failure::new("codexd took the turn and did not say which one it is.")),
    }
}

/// The session and the turn as they are at the end, for a program.
async fn say(caller: &Caller, session_id: &str, turn_id: Option<&str>) -> Result<(), Failure> {
    let session = caller.client.get(&path(session_id)).await?["session"].take();
    let turn = match turn_id {
        Some(turn_id) => {
            let path = format!("{}/turns/{}", path(session_id), super::client::escaped(turn_id));
            caller.client.get(&path).await?["turn"].take()
        }
        None => Value::Null,
    };
    caller.say(&json!({ "session": session, "turn": turn }), "")
}
