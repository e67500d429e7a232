// The box to write in, the turns that wait, and the dialogs that begin and close a session.

// What was sent last for each purpose and may have been taken; the same is sent again as it was, under the same key, so that
// a lost answer does not say it twice.
const attempts = new Map();

async function sendOnce(path, purpose, text, body) {
  if (attempts.get(purpose)?.text !== text) attempts.set(purpose, { text, body, key: crypto.randomUUID() });
  try {
    const answer = await ask(path, attempts.get(purpose));
    attempts.delete(purpose);
    return answer;
  } catch (error) {
    // A refusal says that it was not taken.
    if (error instanceof Refusal) attempts.delete(purpose);
    throw error;
  }
}

// What was written for each session and not sent yet.
const drafts = new Map();

function swapDraft(from, to) {
  const box = byId("prompt");
  if (from !== null) drafts.set(from, box.value);
  box.value = drafts.get(to) ?? "";
}

function drawComposer() {
  const record = sessions.current;
  show(byId("composer"), record !== null && record.status !== "closed");
  if (record === null) return;
  const isRunning = record.currentTurnId !== null;
  say(byId("send"), isRunning ? "Queue" : "Send");
  show(byId("steer"), isRunning);
  show(byId("interrupt"), isRunning);
}

function composerState(text) {
  say(byId("composer-state"), text);
}

// Sends what is written; `whenBusy` says what becomes of it while a turn is under way.
async function submit(whenBusy) {
  const box = byId("prompt");
  const text = box.value;
  const record = sessions.current;
  if (!text.trim() || record === null || byId("send").disabled) return;
  const buttons = [byId("send"), byId("steer")];
  buttons.forEach((button) => { button.disabled = true; });
  composerState("Sending …");
  try {
    // A word to the turn under way has no name in its thread, so a key could not keep it from being said twice.
    await sendOnce(`${API}/turn`, record.sessionId, text, { sessionId: record.sessionId, input: text, whenBusy });
    if (sessions.chosen !== record.sessionId) drafts.delete(record.sessionId);
    else if (box.value === text) box.value = "";
    composerState("");
    stickToEnd();
  } catch (error) {
    composerState(reason(error));
    announce(reason(error));
  } finally {
    buttons.forEach((button) => { button.disabled = false; });
  }
}

const submitUsual = () => submit(sessions.current?.currentTurnId ? "queue" : "refuse");

async function interrupt() {
  const record = sessions.current;
  if (!record?.currentTurnId) return;
  byId("interrupt").disabled = true;
  composerState("Interrupting …");
  try {
    const answer = await ask(`${API}/turn/interrupt`, { body: { sessionId: record.sessionId, turnId: record.currentTurnId } });
    if (answer.pending) composerState(answer.commandsReason ?? "");
    else composerState(answer.commandsEnded === false && answer.commandsReason ? `Its commands go on: ${answer.commandsReason}` : "");
  } catch (error) {
    composerState(error.code === "no_turn" ? "" : reason(error));
  } finally {
    byId("interrupt").disabled = false;
    byId("prompt").focus();
  }
}

function drawQueue() {
  const waiting = conversation ? [...conversation.waitingTurns.values()] : [];
  show(byId("queue"), waiting.length > 0);
  drawHeld();
  const names = new Set(waiting.map((turn) => turn.queueId));
  for (const [name, item] of queueItems) {
    if (names.has(name)) continue;
    // Whoever was at its button goes on writing.
    if (item.contains(document.activeElement)) byId("prompt").focus();
    item.remove();
    queueItems.delete(name);
  }
  for (const turn of waiting) {
    if (queueItems.has(turn.queueId)) continue;
    queueItems.set(turn.queueId, queueItem(turn));
    byId("queued").append(queueItems.get(turn.queueId));
  }
}

// Why the turns that wait do not begin, and the button that has them tried again.
function drawHeld() {
  const held = sessions.current?.held ?? null;
  show(byId("held"), held !== null);
  if (held === null) return;
  const until = held.until ? ` It ends at ${clock(held.until)} as far as Codex told.` : "";
  const next = held.automatic ? " The turns go on by themselves when that is over." : "";
  byId("held-words").textContent = `The queue is held. ${held.reason}${until}${next}`;
}

async function resumeQueue() {
  const record = sessions.current;
  if (!record) return;
  byId("prompt").focus();
  byId("resume-queue").disabled = true;
  try {
    await ask(`${API}/sessions/${encodeURIComponent(record.sessionId)}/queue/resume`, { body: {} });
    composerState("");
  } catch (error) {
    composerState(reason(error));
  } finally {
    byId("resume-queue").disabled = false;
  }
}

// One waiting turn each, kept as long as it waits, so that what has the focus keeps it.
const queueItems = new Map();

function queueItem(turn) {
  const text = textOf(turn.input);
  const sessionId = sessions.current.sessionId;
  const withdraw = make("button", { type: "button", "aria-label": `Take back: ${text}`, text: "Take back" });
  withdraw.onclick = async () => {
    // A button that cannot be pressed would lose the focus to nowhere.
    byId("prompt").focus();
    withdraw.disabled = true;
    const path = `${API}/sessions/${encodeURIComponent(sessionId)}/queue/${encodeURIComponent(turn.queueId)}`;
    try {
      await ask(path, { method: "DELETE" });
      composerState("");
    } catch (error) {
      composerState(reason(error));
      withdraw.disabled = false;
    }
  };
  return make("li", {}, make("span", { text }), withdraw);
}

function fillChoices(list, values) {
  byId(list).replaceChildren(...[...new Set(values)].filter(Boolean).map((value) => make("option", { value })));
}

async function openSessionDialog() {
  const records = [...sessions.records.values()];
  show(byId("session-problem"), false);
  fillChoices("folders", records.map((record) => record.cwd));
  fillChoices("models", records.map((record) => record.model));
  if (!byId("cwd").value) byId("cwd").value = sessions.current?.cwd ?? "";
  byId("session-dialog").showModal();
  byId("cwd").focus();
  try {
    const { models } = await ask(`${API}/models`);
    fillChoices("models", [...models.map((model) => model.model ?? model.id), ...records.map((record) => record.model)]);
  } catch {
    // The field takes any name without the list, too.
  }
}

async function createSession() {
  const wishes = { cwd: "cwd", model: "model", approvalPolicy: "approval", sandbox: "sandbox" };
  const body = {};
  for (const [field, id] of Object.entries(wishes)) if (byId(id).value.trim()) body[field] = byId(id).value.trim();
  if (byId("trust").checked) body.trust = true;
  const first = byId("first").value;
  const button = byId("session-create");
  button.disabled = true;
  try {
    const { session } = await sendOnce(`${API}/sessions`, "session", JSON.stringify(body), body);
    byId("session-dialog").close();
    byId("first").value = "";
    if (!sessions.get(session.sessionId)) sessions.records.set(session.sessionId, session);
    goTo(session.sessionId);
    if (first.trim()) {
      byId("prompt").value = first;
      await submit("refuse");
    }
    byId("prompt").focus();
  } catch (error) {
    say(byId("session-problem"), reason(error));
    show(byId("session-problem"), true);
  } finally {
    button.disabled = false;
  }
}

// The session that the dialog asks about: another one may be chosen meanwhile, by the way back in the browser.
let closing = null;

function openCloseDialog() {
  const record = sessions.current;
  if (record === null) return;
  closing = record.sessionId;
  const isRunning = record.currentTurnId !== null;
  say(byId("close-words"), `It takes no more turns then, and stays readable.${isRunning ? " Its turn that is under way is interrupted." : ""}`);
  show(byId("close-problem"), false);
  byId("close-dialog").showModal();
}

async function closeSession() {
  const record = sessions.get(closing);
  if (record === null) return byId("close-dialog").close();
  try {
    const query = record.currentTurnId ? "?interrupt=true" : "";
    await ask(`${API}/sessions/${encodeURIComponent(record.sessionId)}${query}`, { method: "DELETE" });
    byId("close-dialog").close();
  } catch (error) {
    say(byId("close-problem"), reason(error));
    show(byId("close-problem"), true);
  }
}
