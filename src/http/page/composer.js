// The box to write in, the turns that wait, and the dialogs that begin and close a session.

// A message that may have been taken keeps its key, so that sending it again after a lost connection says it once.
let attempt = { text: null, key: null };

function keyFor(text) {
  if (attempt.text !== text) attempt = { text, key: crypto.randomUUID() };
  return attempt.key;
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
    const key = keyFor(`${record.sessionId} ${whenBusy} ${text}`);
    await ask(`${API}/turn`, { body: { sessionId: record.sessionId, input: text, whenBusy }, key });
    attempt = { text: null, key: null };
    if (box.value === text) box.value = "";
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
    composerState(answer.commandsEnded === false && answer.commandsReason ? `Its commands go on: ${answer.commandsReason}` : "");
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
  const first = byId("first").value;
  const button = byId("session-create");
  button.disabled = true;
  try {
    const { session } = await ask(`${API}/sessions`, { body, key: keyFor(JSON.stringify(body)) });
    attempt = { text: null, key: null };
    byId("session-dialog").close();
    byId("first").value = "";
    if (!sessions.get(session.sessionId)) sessions.records.set(session.sessionId, session);
    goTo(session.sessionId);
    byId("prompt").value = first;
    if (first.trim()) await submit("refuse");
    byId("prompt").focus();
  } catch (error) {
    say(byId("session-problem"), reason(error));
    show(byId("session-problem"), true);
  } finally {
    button.disabled = false;
  }
}

function openCloseDialog() {
  const record = sessions.current;
  if (record === null) return;
  const isRunning = record.currentTurnId !== null;
  say(byId("close-words"), `It takes no more turns then, and stays readable.${isRunning ? " Its turn that is under way is interrupted." : ""}`);
  show(byId("close-problem"), false);
  byId("close-dialog").showModal();
}

async function closeSession() {
  const record = sessions.current;
  try {
    const query = record.currentTurnId ? "?interrupt=true" : "";
    await ask(`${API}/sessions/${encodeURIComponent(record.sessionId)}${query}`, { method: "DELETE" });
    byId("close-dialog").close();
  } catch (error) {
    say(byId("close-problem"), reason(error));
    show(byId("close-problem"), true);
  }
}
