// Connects the modules: frames, the address, the keyboard, and the events of the stream.

// How long one frame may process events, in milliseconds; the rest of a frame is for layout and input.
const FRAME_WORK_MS = 6;
// A page in the background gets no animation frames, but events must not accumulate.
const HIDDEN_FRAME_DELAY_MS = 250;
const HIDDEN_FRAME_WORK_MS = 100;
const NEAR_END_PX = 80;

const due = new Set();
let isScheduled = false;
let isAtEnd = true;
let lastTop = 0;

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

// The selected session is part of the URL, so that a reload shows it again.
function sessionInAddress() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    // The user may have typed it.
    return location.hash.slice(1);
  }
}

function openSession(sessionId) {
  if (sessionInAddress() !== sessionId) history.pushState(null, "", `#${encodeURIComponent(sessionId)}`);
  openSessionInAddress(false);
}

function openSessionInAddress(isReload, scale = 1) {
  const id = sessionInAddress();
  const record = sessions.get(id);
  document.body.dataset.view = record ? "conversation" : "sessions";
  if (!isReload && record && conversation?.sessionId === id) return;
  // A notice about the previous conversation is obsolete; a notice about a gap is about this one.
  if (!isReload) notice("");
  const chosen = record ? id : null;
  if (chosen !== sessions.chosen) swapDraft(sessions.chosen, chosen);
  sessions.chosen = chosen;
  show(byId("welcome"), !record);
  setText(byId("welcome"), id && !record ? "The session does not exist." : "Select a session or create a new one.");
  conversation = null;
  byId("turns").replaceChildren();
  composerState("");
  if (record) {
    conversation = new Conversation(id, scale);
    conversation.read().then(() => runInNextFrame(processEvents));
  } else {
    show(byId("left-out"), false);
    drawQueue();
  }
  drawSessions();
  drawComposer();
  drawRequests();
  followEnd();
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
  const at = listed.findIndex((record) => record.sessionId === sessions.chosen);
  const next = listed[at < 0 ? 0 : at + step];
  if (next) openSession(next.sessionId);
}

const isField = (target) => target instanceof HTMLElement && target.matches("input, textarea, select");

const SHORTCUTS = {
  KeyN: openSessionDialog,
  KeyM: () => byId("prompt").focus(),
  KeyR: () => byId("requests").querySelector(".request")?.focus(),
  ArrowUp: () => openAdjacentSession(-1),
  ArrowDown: () => openAdjacentSession(1),
};

function onKey(event) {
  if (document.querySelector("dialog[open]")) return;
  if (event.altKey && !event.ctrlKey && !event.metaKey && SHORTCUTS[event.code]) {
    event.preventDefault();
    SHORTCUTS[event.code]();
  } else if (event.key === "?" && !isField(event.target)) {
    event.preventDefault();
    byId("help-dialog").showModal();
  }
}

function onPromptKey(event) {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  if (event.shiftKey && sessions.current?.currentTurnId) submit("steer");
  else submitDefault();
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
onSubmit("close-form", closeSession);
on("prompt", "keydown", onPromptKey);
on("steer", "click", () => submit("steer"));
on("interrupt", "click", interrupt);
on("resume-queue", "click", resumeQueue);
on("new-session", "click", openSessionDialog);
on("session-cancel", "click", () => byId("session-dialog").close());
on("close-session", "click", openCloseDialog);
on("close-cancel", "click", () => byId("close-dialog").close());
on("show-help", "click", () => byId("help-dialog").showModal());
on("help-close", "click", () => byId("help-dialog").close());
on("show-health", "click", toggleHealth);
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
  // A frame that was requested before the page was hidden runs only now; a timer that was started then may run much later.
  if (due.size > 0) requestAnimationFrame(frame);
});
addEventListener("online", () => stream.reconnectNow());
addEventListener("hashchange", () => openSessionInAddress(false));
// Parts get their final height when they become visible, and the message field changes the height of the pane.
const heights = new ResizeObserver(() => isAtEnd && scrollToEnd());
heights.observe(byId("turns"));
heights.observe(byId("conversation"));
setInterval(drawRate, 1_000);
setInterval(() => document.hidden || requestStatus(), STATUS_INTERVAL_MS);
stream.connect();
