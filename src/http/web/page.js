// Puts the parts together: frames, the address, the keyboard, and what the stream says.

// How long one frame may work on events, in milliseconds; the rest of a frame is for layout and for the user.
const WORK_PER_FRAME = 6;
// A page in the background gets no frames, but must not let everything pile up.
const HIDDEN_PAUSE = 250;
const HIDDEN_WORK = 100;
const NEAR_END = 80;

const due = new Set();
let isScheduled = false;
let isAtEnd = true;
let lastTop = 0;

// Does this in the next frame, once.
function later(task) {
  due.add(task);
  schedule();
}

function schedule() {
  if (isScheduled) return;
  isScheduled = true;
  if (document.hidden) setTimeout(frame, HIDDEN_PAUSE);
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

function workOff() {
  if (conversation?.work(performance.now() + (document.hidden ? HIDDEN_WORK : WORK_PER_FRAME))) later(workOff);
}

function scrollToEnd() {
  const pane = byId("conversation");
  pane.scrollTop = pane.scrollHeight;
}

function stickToEnd() {
  isAtEnd = true;
  show(byId("to-end"), false);
  schedule();
}

// Whoever scrolls up to read is not moved by what comes. What comes, and texts whose true height shows late, put the end
// further down without moving anything; so only a way up is somebody's wish.
function noteScroll() {
  const pane = byId("conversation");
  const isNear = pane.scrollHeight - pane.scrollTop - pane.clientHeight < NEAR_END;
  if (isNear) isAtEnd = true;
  else if (pane.scrollTop < lastTop) isAtEnd = false;
  lastTop = pane.scrollTop;
  show(byId("to-end"), !isAtEnd);
}

const stream = new Stream({
  hello(hello, isFresh, through) {
    stream.path = hello.service.eventStreamPath;
    sessions.replace(hello.snapshot.sessionRegistry.sessions, through);
    health.learn(hello.service, hello.snapshot);
    requests.read();
    if (conversation?.hasFailed) notice("");
    if (isFresh || conversation?.hasFailed) openChosen(true);
  },
  event(event) {
    sessions.hear(event);
    requests.hear(event);
    health.hear(event);
    const record = conversation && sessions.get(conversation.sessionId);
    if (record && sessions.isAbout(event, record)) {
      conversation.take(event);
      later(workOff);
    }
  },
  gap(gap) {
    health.isHistoryRead = false;
    if (!byId("health").hidden) readRestarts();
    notice(`Events are missing: ${gap.message ?? gap.reason} Everything was read anew.`);
  },
  state: showConnection,
  message(message) {
    if (message.type === "status") health.learn(message.service, message.snapshot);
  },
});

// The chosen session stands in the address, so that a reload shows it again.
function chosenInAddress() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    // Somebody typed it.
    return location.hash.slice(1);
  }
}

function goTo(sessionId) {
  if (chosenInAddress() !== sessionId) history.pushState(null, "", `#${encodeURIComponent(sessionId)}`);
  openChosen(false);
}

function openChosen(isAnew, more = 1) {
  const id = chosenInAddress();
  const record = sessions.get(id);
  document.body.dataset.view = record ? "conversation" : "sessions";
  if (!isAnew && record && conversation?.sessionId === id) return;
  // What was said of the conversation before is over; what a gap says is about this one.
  if (!isAnew) notice("");
  const chosen = record ? id : null;
  if (chosen !== sessions.chosen) swapDraft(sessions.chosen, chosen);
  sessions.chosen = chosen;
  show(byId("welcome"), !record);
  say(byId("welcome"), id && !record ? "There is no such session." : "Choose a session, or begin a new one.");
  conversation = null;
  byId("turns").replaceChildren();
  composerState("");
  if (record) {
    conversation = new Conversation(id, more);
    conversation.read().then(() => later(workOff));
  } else {
    show(byId("left-out"), false);
    drawQueue();
  }
  drawSessions();
  drawComposer();
  drawRequests();
  stickToEnd();
}

function showEarlier() {
  if (!conversation) return;
  openChosen(true, conversation.more * FURTHER);
  // Whoever asks for the beginning does not want to be at the end.
  isAtEnd = false;
}

// The session before or after the chosen one in the list.
function neighbour(step) {
  const listed = listedSessions();
  const at = listed.findIndex((record) => record.sessionId === sessions.chosen);
  const next = listed[at < 0 ? 0 : at + step];
  if (next) goTo(next.sessionId);
}

const isField = (target) => target instanceof HTMLElement && target.matches("input, textarea, select");

const SHORTCUTS = {
  KeyN: openSessionDialog,
  KeyM: () => byId("prompt").focus(),
  KeyR: () => byId("requests").querySelector(".request")?.focus(),
  ArrowUp: () => neighbour(-1),
  ArrowDown: () => neighbour(1),
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
  else submitUsual();
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

onSubmit("composer", submitUsual);
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
on("show-closed", "change", drawSessions);
on("more-sessions", "click", () => {
  sessions.shown += SESSIONS_AT_ONCE;
  drawSessions();
});
on("to-sessions", "click", () => goTo(""));
// The address names the chosen session, so the link must not change it.
on("skip", "click", (event) => {
  event.preventDefault();
  byId("conversation").focus();
});
on("to-end", "click", stickToEnd);
on("earlier", "click", showEarlier);
on("conversation", "scroll", noteScroll);
document.addEventListener("keydown", onKey);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  stream.hurry();
  // A frame that was asked for before the page was hidden comes only now, a pause that began then perhaps much later.
  if (due.size > 0) requestAnimationFrame(frame);
});
addEventListener("online", () => stream.hurry());
addEventListener("hashchange", () => openChosen(false));
// Its parts get their true heights when they come into sight, and the box to write in takes room from it.
const heights = new ResizeObserver(() => isAtEnd && scrollToEnd());
heights.observe(byId("turns"));
heights.observe(byId("conversation"));
setInterval(drawRate, 1_000);
setInterval(() => document.hidden || askStatus(), LOOK);
stream.connect();
