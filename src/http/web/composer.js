// The message field, the queued turns, and the dialogs that create and close a session.

// The last request for each purpose whose outcome is unknown. If the user sends the same text again, the same body and
// idempotency key are sent, so that a lost response does not duplicate the turn.
const attempts = new Map();

async function sendOnce(path, purpose, text, body) {
  if (attempts.get(purpose)?.text !== text) attempts.set(purpose, { text, body, key: crypto.randomUUID() });
  try {
    const response = await callApi(path, attempts.get(purpose));
    attempts.delete(purpose);
    return response;
  } catch (error) {
    // After an error response it is certain that the request was not executed.
    if (error instanceof ApiError) attempts.delete(purpose);
    throw error;
  }
}

// The unsent text of each session.
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
  setText(byId("send"), isRunning ? "Queue" : "Send");
  show(byId("steer"), isRunning);
  show(byId("interrupt"), isRunning);
}

function composerState(text) {
  setText(byId("composer-state"), text);
}

// Sends the text in the message field; `whenBusy` is the policy while a turn is running.
async function submit(whenBusy) {
  const box = byId("prompt");
  const text = box.value;
  const record = sessions.current;
  if (!text.trim() || record === null || byId("send").disabled) return;
  const buttons = [byId("send"), byId("steer")];
  buttons.forEach((button) => { button.disabled = true; });
  composerState("Sending …");
  try {
    // Input that steers a running turn has no ID in its thread, so an idempotency key could not prevent a duplicate.
    await sendOnce(`${API}/turn`, record.sessionId, text, { sessionId: record.sessionId, input: text, whenBusy });
    if (sessions.chosen !== record.sessionId) drafts.delete(record.sessionId);
    else if (box.value === text) box.value = "";
    composerState("");
    followEnd();
  } catch (error) {
    composerState(messageOf(error));
    announce(messageOf(error));
  } finally {
    buttons.forEach((button) => { button.disabled = false; });
  }
}

const submitDefault = () => submit(sessions.current?.currentTurnId ? "queue" : "refuse");

async function interrupt() {
  const record = sessions.current;
  if (!record?.currentTurnId) return;
  byId("interrupt").disabled = true;
  composerState("Interrupting …");
  try {
    const response = await callApi(`${API}/turn/interrupt`, { body: { sessionId: record.sessionId, turnId: record.currentTurnId } });
    if (response.pending) composerState(response.commandsReason ?? "");
    else composerState(response.commandsEnded === false && response.commandsReason ? `Its commands are still running: ${response.commandsReason}` : "");
  } catch (error) {
    composerState(error.code === "no_turn" ? "" : messageOf(error));
  } finally {
    byId("interrupt").disabled = false;
    byId("prompt").focus();
  }
}

function drawQueue() {
  const queued = conversation ? [...conversation.queuedTurns.values()] : [];
  show(byId("queue"), queued.length > 0);
  drawHeld();
  const ids = new Set(queued.map((turn) => turn.queueId));
  for (const [id, item] of queueItems) {
    if (ids.has(id)) continue;
    // If its button has the focus, move the focus to the message field.
    if (item.contains(document.activeElement)) byId("prompt").focus();
    item.remove();
    queueItems.delete(id);
  }
  for (const turn of queued) {
    if (queueItems.has(turn.queueId)) continue;
    queueItems.set(turn.queueId, queueItem(turn));
    byId("queued").append(queueItems.get(turn.queueId));
  }
}

// Draws why the queue is held, and the button that resumes it.
function drawHeld() {
  const held = sessions.current?.held ?? null;
  show(byId("held"), held !== null);
  if (held === null) return;
  const until = held.until ? ` A turn is tried at ${clock(held.until)}.` : "";
  const next = held.automatic ? " The queue resumes automatically when the cause is gone." : "";
  byId("held-text").textContent = `The queue is held. ${held.reason}${until}${next}`;
}

async function resumeQueue() {
  const record = sessions.current;
  if (!record) return;
  byId("prompt").focus();
  byId("resume-queue").disabled = true;
  try {
    await callApi(`${API}/sessions/${encodeURIComponent(record.sessionId)}/queue/resume`, { body: {} });
    composerState("");
  } catch (error) {
    composerState(messageOf(error));
  } finally {
    byId("resume-queue").disabled = false;
  }
}

// The element of each queued turn. Elements are kept while the turn is queued, so that a focused one keeps the focus.
const queueItems = new Map();

function queueItem(turn) {
  const text = textOf(turn.input);
  const sessionId = sessions.current.sessionId;
  const remove = make("button", { type: "button", "aria-label": `Remove from the queue: ${text}`, text: "Remove" });
  remove.onclick = async () => {
    // A disabled button loses the focus.
    byId("prompt").focus();
    remove.disabled = true;
    const path = `${API}/sessions/${encodeURIComponent(sessionId)}/queue/${encodeURIComponent(turn.queueId)}`;
    try {
      await callApi(path, { method: "DELETE" });
      composerState("");
    } catch (error) {
      composerState(messageOf(error));
      remove.disabled = false;
    }
  };
  if (!turn.notBefore) return make("li", {}, make("span", { text }), remove);
  const start = make("button", { type: "button", "aria-label": `Start now: ${text}`, text: "Start now" });
  start.onclick = async () => {
    byId("prompt").focus();
    start.disabled = true;
    const path = `${API}/sessions/${encodeURIComponent(sessionId)}/queue/resume`;
    try {
      await callApi(path, { body: { queueId: turn.queueId } });
      composerState("");
    } catch (error) {
      composerState(messageOf(error));
      start.disabled = false;
    }
  };
  const time = make("time", { datetime: turn.notBefore, text: `not before ${clock(turn.notBefore)}` });
  return make("li", {}, make("span", { text }), time, start, remove);
}

// Draws a queued turn anew: its time has changed.
function redrawQueued(queueId) {
  queueItems.get(queueId)?.remove();
  queueItems.delete(queueId);
  drawQueue();
}

function fillOptions(list, values) {
  byId(list).replaceChildren(...[...new Set(values)].filter(Boolean).map((value) => make("option", { value })));
}

async function openSessionDialog() {
  const records = [...sessions.records.values()];
  show(byId("session-problem"), false);
  fillOptions("directories", records.map((record) => record.cwd));
  fillOptions("models", records.map((record) => record.model));
  if (!byId("cwd").value) byId("cwd").value = sessions.current?.cwd ?? "";
  byId("session-dialog").showModal();
  byId("cwd").focus();
  try {
    const { models } = await callApi(`${API}/models`);
    fillOptions("models", [...models.map((model) => model.model ?? model.id), ...records.map((record) => record.model)]);
  } catch {
    // The field also accepts names that are not in the list.
  }
}

async function createSession() {
  const fields = { cwd: "cwd", model: "model", approvalPolicy: "approval", sandbox: "sandbox" };
  const body = {};
  for (const [field, id] of Object.entries(fields)) if (byId(id).value.trim()) body[field] = byId(id).value.trim();
  if (byId("trust").checked) body.trust = true;
  const first = byId("first").value;
  const button = byId("session-create");
  button.disabled = true;
  try {
    const { session } = await sendOnce(`${API}/sessions`, "session", JSON.stringify(body), body);
    byId("session-dialog").close();
    byId("first").value = "";
    if (!sessions.get(session.sessionId)) sessions.records.set(session.sessionId, session);
    openSession(session.sessionId);
    if (first.trim()) {
      byId("prompt").value = first;
      await submit("refuse");
    }
    byId("prompt").focus();
  } catch (error) {
    setText(byId("session-problem"), messageOf(error));
    show(byId("session-problem"), true);
  } finally {
    button.disabled = false;
  }
}

// The session that the close dialog is about. The Back button of the browser may select another one meanwhile.
let closingId = null;

function openCloseDialog() {
  const record = sessions.current;
  if (record === null) return;
  closingId = record.sessionId;
  const isRunning = record.currentTurnId !== null;
  setText(byId("close-text"), `It then accepts no more turns and stays readable.${isRunning ? " The running turn is interrupted." : ""}`);
  show(byId("close-problem"), false);
  byId("close-dialog").showModal();
}

async function closeSession() {
  const record = sessions.get(closingId);
  if (record === null) return byId("close-dialog").close();
  try {
    const query = record.currentTurnId ? "?interrupt=true" : "";
    await callApi(`${API}/sessions/${encodeURIComponent(record.sessionId)}${query}`, { method: "DELETE" });
    byId("close-dialog").close();
  } catch (error) {
    setText(byId("close-problem"), messageOf(error));
    show(byId("close-problem"), true);
  }
}
