// Connects the modules: frames, the address, the keyboard, and the events of the stream.

// How long one frame may process events, in milliseconds; the rest of a frame is for layout and input.
const FRAME_WORK_MS = 6;
// A page in the background gets no animation frames, but events must not accumulate.
const HIDDEN_FRAME_DELAY_MS = 250;
const HIDDEN_FRAME_WORK_MS = 100;
const NEAR_END_PX = 80;
// The threads of Codex are searched when the user has stopped typing for this long.
const SEARCH_DELAY_MS = 300;

const due = new Set();
let isScheduled = false;
let isAtEnd = true;
let lastTop = 0;
let searchTimer = null;

// Runs a task once, in the next frame.
function runInNextFrame(task) {
  due.add(task);
  schedule();
}

function schedule() {
  if (isScheduled) return;
  isScheduled = true;
  if (document.hidden) setTimeout(frame, HIDDEN_FRAME_DELAY_MS);
  else requestAnimationFrame(frame);
}

function frame() {
  isScheduled = false;
  const tasks = [...due];
  due.clear();
  for (const task of tasks) task();
  flushTexts();
  if (isAtEnd) scrollToEnd();
}

function processEvents() {
  if (conversation?.processUntil(performance.now() + (document.hidden ? HIDDEN_FRAME_WORK_MS : FRAME_WORK_MS))) runInNextFrame(processEvents);
}

function scrollToEnd() {
  const pane = byId("conversation");
  pane.scrollTop = pane.scrollHeight;
}

function followEnd() {
  isAtEnd = true;
  show(byId("to-end"), false);
  schedule();
}

// New content does not move the view of a user who has scrolled up. New content, and text whose height becomes known
// late, move the end down but do not scroll; so only scrolling up shows that the user wants to stay.
function onScroll() {
  const pane = byId("conversation");
  const isNear = pane.scrollHeight - pane.scrollTop - pane.clientHeight < NEAR_END_PX;
  if (isNear) isAtEnd = true;
  else if (pane.scrollTop < lastTop) isAtEnd = false;
  lastTop = pane.scrollTop;
  show(byId("to-end"), !isAtEnd);
}

const stream = new Stream({
  hello(hello, isFresh, through) {
    stream.path = hello.service.eventStreamPath;
    sessions.replace(hello.snapshot.sessionRegistry.sessions, through);
    health.setStatus(hello.service, hello.snapshot);
    requests.read();
    if (conversation?.hasFailed) notice("");
    if (isFresh || conversation?.hasFailed) openSessionInAddress(true);
  },
  event(event) {
    countEvent();
    sessions.receive(event);
    requests.receive(event);
    health.receive(event);
    const record = conversation && sessions.get(conversation.sessionId);
    if (record && sessions.isAbout(event, record)) {
      conversation.receive(event);
      runInNextFrame(processEvents);
    }
  },
  gap(gap) {
    health.isHistoryRead = false;
    if (!byId("health").hidden) readRestarts();
    notice(`Events are missing: ${gap.message ?? gap.reason} The page has read everything again.`);
  },
  state: showConnection,
  message(message) {
    if (message.type === "status") health.setStatus(message.service, message.snapshot);
  },
});

// The URL has the selected session, and may have a turn of it, as `#SESSION/TURN`, so that a reload shows them again.
function placeInAddress() {
  try {
    const [sessionId, turnId = null] = location.hash.slice(1).split("/").map(decodeURIComponent);
    return { sessionId, turnId };
  } catch {
    // The user may have typed it.
    return { sessionId: location.hash.slice(1), turnId: null };
  }
}

function openSession(sessionId) {
  if (placeInAddress().sessionId !== sessionId) history.pushState(null, "", `#${encodeURIComponent(sessionId)}`);
  openSessionInAddress(false);
}

function openSessionInAddress(isReload, scale = 1) {
  const { sessionId: id, turnId } = placeInAddress();
  const record = sessions.get(id);
  document.body.dataset.view = record ? "conversation" : "sessions";
  if (!isReload && record && conversation?.sessionId === id) return showTurn(turnId);
  // A notice about the previous conversation is obsolete; a notice about a gap is about this one.
  if (!isReload) notice("");
  const chosen = record ? id : null;
  const isOther = chosen !== sessions.chosen;
  sessions.chosen = chosen;
  if (isOther) showDraft(chosen);
  toggleMenu(false);
  show(byId("welcome"), !record);
  setText(byId("welcome"), id && !record ? "The session does not exist." : "Select a session or create a new one.");
  conversation = null;
  byId("turns").replaceChildren();
  composerState("");
  if (record) {
    conversation = new Conversation(id, scale);
    conversation.read().then(() => runInNextFrame(processEvents)).then(() => showTurn(turnId));
    readModels();
  } else {
    show(byId("left-out"), false);
    drawQueue();
  }
  drawSessions();
  drawSettings();
  drawRequests();
  followEnd();
}

// Scrolls to a turn. Its events may still be waiting for a frame.
function showTurn(turnId) {
  if (turnId === null || conversation === null) return;
  const section = conversation.turns.get(turnId)?.section;
  if (conversation.at < conversation.queue.length) return runInNextFrame(() => showTurn(turnId));
  if (!section) return notice("The turn of this address is not among those that are shown.");
  isAtEnd = false;
  section.scrollIntoView();
  show(byId("to-end"), true);
}

function showEarlier() {
  if (!conversation) return;
  openSessionInAddress(true, conversation.scale * RANGE_GROWTH);
  // A user who wants earlier events must not be scrolled to the end.
  isAtEnd = false;
}

// Opens the session before or after the selected one in the list.
function openAdjacentSession(step) {
  const listed = listedSessions();
  const at = listed.findIndex(({ record }) => record.sessionId === sessions.chosen);
  const next = listed[at < 0 ? 0 : at + step];
  if (next) openSession(next.record.sessionId);
}

const isField = (target) => target instanceof HTMLElement && target.matches("input, textarea, select");

const SHORTCUTS = {
  KeyN: openSessionDialog,
  KeyM: () => byId("prompt").focus(),
  KeyR: goToNextRequest,
  ArrowUp: () => openAdjacentSession(-1),
  ArrowDown: () => openAdjacentSession(1),
};

function onKey(event) {
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Escape" && !event.isComposing) return onEscape(event);
  if (event.altKey && !event.ctrlKey && !event.metaKey && SHORTCUTS[event.code]) {
    event.preventDefault();
    SHORTCUTS[event.code]();
  } else if (!isField(event.target) && !event.ctrlKey && !event.metaKey) {
    if (event.key === "?") byId("help-dialog").showModal();
    else if (event.key === "/") byId("search").focus();
    else return;
    event.preventDefault();
  }
}

// Closes the menu, or interrupts the running turn: from the message or the conversation, not from another field.
function onEscape(event) {
  if (!byId("menu").hidden) {
    toggleMenu(false);
    byId("show-menu").focus();
    return;
  }
  const { target } = event;
  const isInPane = target === document.body || (target.closest("#pane") !== null && target.closest(".request") === null);
  const isElsewhere = !isInPane || (isField(target) && target.id !== "prompt");
  if (!event.repeat && !isElsewhere && !byId("interrupt").disabled) interrupt();
}

function onPromptKey(event) {
  if (event.isComposing) return;
  const step = { ArrowUp: 1, ArrowDown: -1 }[event.key];
  if (step && !event.altKey && !event.shiftKey && recall(step)) return event.preventDefault();
  const isSending = event.ctrlKey || event.metaKey || (doesEnterSend() && !event.shiftKey && !event.altKey);
  if (event.key !== "Enter" || !isSending) return;
  event.preventDefault();
  if (event.repeat) return;
  if (event.shiftKey && sessions.current?.currentTurnId) submit("steer");
  else submitDefault();
}

const imagesOf = (data) => [...(data?.files ?? [])].filter((file) => file.type.startsWith("image/"));

// Takes the images of a paste or a drop.
function takeImages(event, data) {
  if (imagesOf(data).length === 0 || byId("composer").hidden) return;
  event.preventDefault();
  attachImages(imagesOf(data));
}

function on(id, type, action) {
  byId(id).addEventListener(type, action);
}

function onSubmit(id, action) {
  on(id, "submit", (event) => {
    event.preventDefault();
    action();
  });
}

onSubmit("composer", submitDefault);
onSubmit("session-form", createSession);
onSubmit("action-form", runAction);
on("prompt", "keydown", onPromptKey);
on("steer", "click", () => submit("steer"));
on("interrupt", "click", interrupt);
on("resume-queue", "click", resumeQueue);
on("new-session", "click", openSessionDialog);
on("session-cancel", "click", () => byId("session-dialog").close());
on("action-cancel", "click", () => byId("action-dialog").close());
on("show-menu", "click", () => toggleMenu());
on("menu", "keydown", onMenuKey);
for (const [id, action] of Object.entries(MENU_ACTIONS)) {
  on(id, "click", () => {
    toggleMenu(false);
    runMenuAction(action);
  });
}
document.addEventListener("click", (event) => byId("menu").hidden || event.target.closest("#menu, #show-menu") || toggleMenu(false));
on("waiting", "click", goToNextRequest);
on("notify", "click", toggleNotify);
on("send-later", "click", openLaterDialog);
on("attach", "click", () => byId("files").click());
on("files", "change", () => attachImages([...byId("files").files]).then(() => { byId("files").value = ""; }));
on("prompt", "paste", (event) => takeImages(event, event.clipboardData));
on("prompt", "input", () => saveDraft(sessions.chosen, byId("prompt").value));
on("pane", "dragover", (event) => event.dataTransfer.types.includes("Files") && event.preventDefault());
on("pane", "drop", (event) => takeImages(event, event.dataTransfer));
for (const name of ["model", "effort", "sandbox", "approvals"]) on(`turn-${name}`, "change", () => chooseSetting(name));
on("enter-sends", "change", () => {
  localStorage.setItem(ENTER_NAME, byId("enter-sends").checked ? "yes" : "no");
  drawEnter();
});
on("search", "input", () => {
  sessions.shown = SESSIONS_AT_ONCE;
  drawSessions();
  clearTimeout(searchTimer);
  if (byId("threads-pane").open) searchTimer = setTimeout(() => readThreads(true), SEARCH_DELAY_MS);
});
on("show-help", "click", () => byId("help-dialog").showModal());
on("show-changes", "click", openSessionChanges);
on("changes-close", "click", () => byId("changes-dialog").close());
on("help-close", "click", () => byId("help-dialog").close());
on("show-health", "click", () => toggleHealth());
on("restart-codex", "click", restartCodex);
on("show-closed", "change", drawSessions);
on("more-sessions", "click", () => {
  sessions.shown += SESSIONS_AT_ONCE;
  drawSessions();
});
on("threads-pane", "toggle", () => byId("threads-pane").open && readThreads(true));
on("more-threads", "click", () => readThreads(false));
on("to-sessions", "click", () => openSession(""));
// The URL contains the selected session, so the link must not change it.
on("skip", "click", (event) => {
  event.preventDefault();
  byId("conversation").focus();
});
on("to-end", "click", followEnd);
on("earlier", "click", showEarlier);
on("conversation", "scroll", onScroll);
document.addEventListener("keydown", onKey);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  stream.reconnectNow();
  drawActivity();
  // A frame that was requested before the page was hidden runs only now; a timer that was started then may run much later.
  if (due.size > 0) requestAnimationFrame(frame);
});
addEventListener("online", () => stream.reconnectNow());
addEventListener("hashchange", () => openSessionInAddress(false));
// Parts get their final height when they become visible, and the message field changes the height of the pane.
const heights = new ResizeObserver(() => isAtEnd && scrollToEnd());
heights.observe(byId("turns"));
heights.observe(byId("conversation"));
drawNotify();
drawEnter();
// The layout of the first frame: a selected session is shown as soon as it is known.
if (location.hash.length > 1) document.body.dataset.view = "conversation";
setInterval(() => document.hidden || requestStatus(), STATUS_INTERVAL_MS);
stream.connect();
