// The message field, the queued turns, and the dialog that creates a session.

const DRAFTS_NAME = "codexd.drafts";
const SENT_NAME = "codexd.sent";
const ENTER_NAME = "codexd.enterSends";
const MAX_SENT_TEXTS = 50;
const IMAGE_TYPES = ["image/png", "image/jpeg", "image/gif", "image/webp"];
// Below the limit of a body, which has the other fields too.
const MAX_IMAGE_CHARS = 15_000_000;

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

// The unsent text of each session. It survives a reload of the tab; attached images do not, as they may be too large.
const drafts = new Map(stored(DRAFTS_NAME));
// The images attached to the message of each session, as `data:` URLs.
const images = new Map();
// The messages that were sent in each session from this tab, for the arrow key.
const sentTexts = new Map(stored(SENT_NAME));
// The settings that the user has chosen for the next turn of each session.
const choices = new Map();

function stored(name) {
  try {
    return JSON.parse(sessionStorage.getItem(name)) ?? [];
  } catch {
    return [];
  }
}

function store(name, map) {
  try {
    sessionStorage.setItem(name, JSON.stringify([...map]));
  } catch {
    // The storage is full; the texts stay in this page.
  }
}

function saveDraft(sessionId, text) {
  if (text) drafts.set(sessionId, text);
  else drafts.delete(sessionId);
  store(DRAFTS_NAME, drafts);
}

// Puts a text into the message field, as if the user had typed it.
function setPrompt(text) {
  byId("prompt").value = text;
  saveDraft(sessions.chosen, text);
}

function showDraft(sessionId) {
  byId("prompt").value = drafts.get(sessionId) ?? "";
  recalled = null;
  drawImages();
}

function rememberSent(sessionId, text) {
  const texts = (sentTexts.get(sessionId) ?? []).filter((one) => one !== text);
  sentTexts.set(sessionId, [...texts, text].slice(-MAX_SENT_TEXTS));
  store(SENT_NAME, sentTexts);
}

// How far back the message field shows a sent message; null if it shows what the user typed.
let recalled = null;

// Shows the message before or after the recalled one; returns whether there was one.
function recall(step) {
  const texts = sentTexts.get(sessions.chosen) ?? [];
  const box = byId("prompt");
  const isRecalled = recalled !== null && box.value === texts.at(-recalled);
  if (!isRecalled && (box.value || step < 0)) return false;
  const next = (isRecalled ? recalled : 0) + step;
  if (next > texts.length) return true;
  recalled = next || null;
  setPrompt(next ? texts.at(-next) : "");
  return true;
}

// Without a touch screen, Enter sends by default; a touch keyboard has no Shift+Enter.
const doesEnterSend = () => (localStorage.getItem(ENTER_NAME) ?? (matchMedia("(pointer: coarse)").matches ? "no" : "yes")) === "yes";

function drawEnter() {
  byId("enter-sends").checked = doesEnterSend();
  byId("send").title = doesEnterSend() ? "Enter" : "Ctrl Enter";
  setText(byId("enter-text"), doesEnterSend() ? "The same as Ctrl Enter; Shift Enter begins a line" : "Begins a line");
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

// Sends the message; `whenBusy` is the policy while a turn is running, `notBefore` the earliest start.
async function submit(whenBusy, notBefore) {
  const box = byId("prompt");
  const text = box.value;
  const record = sessions.current;
  const attached = images.get(sessions.chosen) ?? [];
  if ((!text.trim() && attached.length === 0) || record === null || byId("send").disabled) return;
  const buttons = [byId("send"), byId("steer")];
  buttons.forEach((button) => { button.disabled = true; });
  composerState("Sending …");
  try {
    const words = text.trim() ? [{ type: "text", text, text_elements: [] }] : [];
    const input = attached.length > 0 ? [...words, ...attached.map((url) => ({ type: "image", url }))] : text;
    const settings = whenBusy === "steer" ? {} : settingsOfTurn(choices.get(record.sessionId) ?? {});
    const body = { sessionId: record.sessionId, input, whenBusy, ...settings, ...(notBefore && { notBefore }) };
    // Input that steers a running turn has no ID in its thread, so an idempotency key could not prevent a duplicate.
    await sendOnce(`${API}/turn`, record.sessionId, [text, notBefore, ...attached].join("\n"), body);
    images.delete(record.sessionId);
    rememberSent(record.sessionId, text);
    if (sessions.chosen !== record.sessionId) saveDraft(record.sessionId, "");
    else if (box.value === text) setPrompt("");
    recalled = null;
    composerState("");
    followEnd();
  } catch (error) {
    composerState(messageOf(error));
    announce(messageOf(error));
  } finally {
    buttons.forEach((button) => { button.disabled = false; });
    drawImages();
  }
}

const submitDefault = () => submit(sessions.current?.currentTurnId ? "queue" : "refuse");

function openLaterDialog() {
  const inAnHour = new Date(Date.now() + 3_600_000 - new Date().getTimezoneOffset() * 60_000);
  openAction({
    title: "Send later",
    text: "The turn waits in the queue and starts at this time at the earliest.",
    label: "Not before",
    type: "datetime-local",
    value: inAnHour.toISOString().slice(0, 16),
    submit: "Send later",
    action: async (value) => {
      const time = new Date(value);
      if (Number.isNaN(time.getTime())) throw new IncompleteAnswer("The time is incomplete.");
      if (!byId("prompt").value.trim() && !images.has(sessions.chosen)) throw new IncompleteAnswer("Write a message first.");
      await submit("queue", time.toISOString());
    },
  });
}

// Attaches image files to the message of the selected session.
async function attachImages(files) {
  const sessionId = sessions.chosen;
  if (sessionId === null) return;
  for (const file of files) {
    if (!IMAGE_TYPES.includes(file.type)) {
      composerState(`${file.name} is not an image that Codex takes: PNG, JPEG, GIF or WebP.`);
      continue;
    }
    const url = await new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result);
      reader.onerror = () => reject(reader.error);
      reader.readAsDataURL(file);
    }).catch(() => null);
    const attached = images.get(sessionId) ?? [];
    const isTooLarge = [...attached, url ?? ""].reduce((sum, one) => sum + one.length, 0) > MAX_IMAGE_CHARS;
    if (url === null || isTooLarge) composerState(`${file.name} ${url === null ? "cannot be read" : "is too large: the images of a message have at most 11 MB"}.`);
    else images.set(sessionId, [...attached, url]);
  }
  drawImages();
}

function drawImages() {
  const attached = images.get(sessions.chosen) ?? [];
  const remove = (index) => {
    images.set(sessions.chosen, attached.filter((_, at) => at !== index));
    drawImages();
    byId("prompt").focus();
  };
  byId("images").replaceChildren(
    ...attached.map((url, index) =>
      make("li", {}, make("img", { src: url, alt: `Image ${index + 1}` }), make("button", { type: "button", class: "icon", "aria-label": `Remove image ${index + 1}`, text: "×", onclick: () => remove(index) })),
    ),
  );
  show(byId("images"), attached.length > 0);
}

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
  const until = held.until ? ` A turn is tried at ${minuteTime(held.until)}.` : "";
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
  const { text, urls, lost } = partsOfInput(turn.input);
  const summary = [text, urls.length + lost > 0 ? `[${plural(urls.length + lost, "image")}]` : ""].filter(Boolean).join(" ");
  const sessionId = sessions.current.sessionId;
  const path = `${API}/sessions/${encodeURIComponent(sessionId)}/queue`;
  const run = async (button, request) => {
    // A disabled button loses the focus.
    byId("prompt").focus();
    button.disabled = true;
    try {
      await request();
      composerState("");
      return true;
    } catch (error) {
      composerState(messageOf(error));
      button.disabled = false;
      return false;
    }
  };
  const takeBack = make("button", { type: "button", "aria-label": `Take back: ${summary}`, text: "Take back" });
  takeBack.onclick = async () => {
    if (!(await run(takeBack, () => callApi(`${path}/${encodeURIComponent(turn.queueId)}`, { method: "DELETE" })))) return;
    // The message is edited further; what was typed meanwhile stays below it.
    const draft = sessions.chosen === sessionId ? byId("prompt").value : (drafts.get(sessionId) ?? "");
    saveDraft(sessionId, [text, draft].filter(Boolean).join("\n"));
    if (urls.length > 0) images.set(sessionId, [...urls, ...(images.get(sessionId) ?? [])]);
    if (sessions.chosen === sessionId) showDraft(sessionId);
    if (lost > 0) composerState(`${plural(lost, "image")} must be attached again.`);
  };
  if (!turn.notBefore) return make("li", {}, make("span", { text: summary }), takeBack);
  const start = make("button", { type: "button", "aria-label": `Start now: ${summary}`, text: "Start now" });
  start.onclick = () => run(start, () => callApi(`${path}/resume`, { body: { queueId: turn.queueId } }));
  const time = make("time", { datetime: turn.notBefore, text: `not before ${minuteTime(turn.notBefore)}` });
  return make("li", {}, make("span", { text: summary }), time, start, takeBack);
}

// The text and the images of an input. `lost` is the number of images that the daemon stores outside the record.
function partsOfInput(input) {
  const all = input ?? [];
  const found = all.filter((item) => item.type === "image").map((item) => item.url ?? "");
  const urls = found.filter((url) => url.startsWith("data:"));
  const text = textOf(all.filter((item) => item.type !== "image"));
  return { text, urls, lost: found.length - urls.length };
}

// Redraws a queued turn: its time has changed.
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
  // The field also accepts names that are not in the list.
  const models = await readModels();
  fillOptions("models", [...models.map((model) => model.model ?? model.id), ...records.map((record) => record.model)]);
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
      setPrompt(first);
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
