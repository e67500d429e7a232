// The sessions: their records, kept up by the events, and the list of them.

const SESSIONS_AT_ONCE = 100;

const sessions = {
  records: new Map(),
  // Records of a greeting include all events up to this number.
  through: 0,
  chosen: null,
  shown: SESSIONS_AT_ONCE,
  rows: new Map(),

  replace(list, through) {
    this.records = new Map(list.map((record) => [record.sessionId, record]));
    this.through = through;
    later(drawSessions);
  },

  get(id) {
    return this.records.get(id) ?? null;
  },

  get current() {
    return this.get(this.chosen);
  },

  // Whether an event is about a session, by its name or by its thread, which other sessions may have too.
  isAbout(event, record) {
    const detail = event.detail ?? {};
    if (detail.sessionId === record.sessionId) return true;
    const thread = detail.threadId ?? detail.params?.threadId ?? detail.params?.thread?.id ?? null;
    return thread !== null && thread === record.threadId;
  },

  // Changes the records as an event says. An event that a greeting included already changes nothing.
  hear(event) {
    if (event.seq <= this.through) return;
    const change = CHANGES[event.type];
    if (!change) return;
    const detail = event.detail ?? {};
    if (detail.session) this.records.set(detail.session.sessionId, detail.session);
    for (const record of this.records.values()) {
      if (this.isAbout(event, record)) change(record, detail);
    }
    later(drawSessions);
  },
};

const began = (record, detail) => {
  record.currentTurnId = detail.turnId;
  record.lastTurnId = detail.turnId;
  record.lastTurnStatus = "inProgress";
};

const ended = (status) => (record, detail) => {
  if (record.currentTurnId === detail.turnId) record.currentTurnId = null;
  if (record.lastTurnId === detail.turnId) record.lastTurnStatus = status ?? detail.status;
};

const nothing = () => {};

const CHANGES = table({
  "session.created": nothing,
  "session.resumed": nothing,
  "session.recreated": nothing,
  "session.closed": (record, detail) => {
    if (record.sessionId !== detail.sessionId) return;
    record.status = "closed";
    record.currentTurnId = null;
    record.held = null;
  },
  "session.held": (record, detail) => {
    if (record.sessionId === detail.sessionId) record.held = detail.held;
    later(drawQueue);
  },
  "session.released": (record, detail) => {
    if (record.sessionId === detail.sessionId) record.held = null;
    later(drawQueue);
  },
  "session.forgotten": (record, detail) => {
    if (record.sessionId === detail.sessionId) sessions.records.delete(record.sessionId);
  },
  // It may be told after the turn has ended, or of a turn that was found later, as the daemon counts it too.
  "turn.accepted": (record, detail) => {
    if (record.sessionId !== detail.sessionId || detail.isNewest === false || record.lastTurnId === detail.turnId) return;
    began(record, detail);
    if (detail.status && detail.status !== "inProgress") ended(detail.status)(record, detail);
  },
  "app-server.turn.started": began,
  "app-server.turn.completed": ended(null),
  "turn.settled": ended(null),
  "app-server.turn.completed.missing": ended("failed"),
});

const FATES = table({
  inProgress: "at work",
  completed: "completed",
  interrupted: "interrupted",
  failed: "failed",
});

const fate = (status) => FATES[status] ?? status ?? "";

function stateOf(record) {
  if (record.status === "closed") return "closed";
  if (requests.waitingIn(record.sessionId) > 0) return "asking";
  if (record.currentTurnId) return "running";
  return record.held ? "held" : "idle";
}

const STATES = { closed: "closed", asking: "asks", running: "running", held: "held", idle: "idle" };

// What stands under the name of a session: its model, and how its last turn ended.
function aboutSession(record) {
  const last = record.lastTurnStatus ? `last turn ${fate(record.lastTurnStatus)}` : "no turn yet";
  return [record.model, last, clock(record.createdAt)].filter(Boolean).join(" · ");
}

function makeRow(record) {
  const row = {
    name: make("span", { class: "name" }),
    state: make("span", { class: "badge" }),
    about: make("span", { class: "faint" }),
    folder: make("span", { class: "faint folder" }),
  };
  row.button = make(
    "button",
    { type: "button", class: "session", onclick: () => goTo(record.sessionId) },
    make("span", { class: "row" }, row.name, row.state),
    row.folder,
    row.about,
  );
  row.item = make("li", {}, row.button);
  return row;
}

function drawRow(row, record) {
  const state = stateOf(record);
  say(row.name, lastPart(record.cwd) || record.sessionId);
  say(row.state, STATES[state]);
  row.state.dataset.state = state;
  say(row.folder, record.cwd ?? "");
  say(row.about, aboutSession(record));
  if (record.sessionId === sessions.chosen) row.button.setAttribute("aria-current", "page");
  else row.button.removeAttribute("aria-current");
}

// Those that are to be seen, the newest first.
function listedSessions() {
  const withClosed = byId("show-closed").checked;
  const isListed = (record) => withClosed || record.status !== "closed" || record.sessionId === sessions.chosen;
  const listed = [...sessions.records.values()].filter(isListed);
  return listed.sort((a, b) => (a.createdAt < b.createdAt ? 1 : a.createdAt > b.createdAt ? -1 : 0));
}

function drawSessions() {
  const listed = listedSessions();
  const visible = listed.slice(0, sessions.shown);
  const list = byId("sessions");
  const kept = new Set(visible.map((record) => record.sessionId));
  for (const [id, row] of sessions.rows) {
    if (!kept.has(id)) {
      row.item.remove();
      sessions.rows.delete(id);
    }
  }
  visible.forEach((record, index) => {
    let row = sessions.rows.get(record.sessionId);
    if (!row) {
      row = makeRow(record);
      sessions.rows.set(record.sessionId, row);
    }
    drawRow(row, record);
    // A row that stands where it belongs is left alone, so that it keeps the focus.
    if (list.children[index] !== row.item) list.insertBefore(row.item, list.children[index] ?? null);
  });
  const rest = listed.length - visible.length;
  show(byId("more-sessions"), rest > 0);
  say(byId("more-sessions"), `Show more (${rest.toLocaleString()} left out)`);
  show(byId("no-sessions"), listed.length === 0);
  drawSessionHead();
}

function drawSessionHead() {
  const record = sessions.current;
  show(byId("session-head"), record !== null);
  if (record === null) return;
  say(byId("session-title"), lastPart(record.cwd) || record.sessionId);
  say(byId("session-about"), [record.cwd, record.model, STATES[stateOf(record)]].filter(Boolean).join(" · "));
  byId("session-about").title = record.sessionId;
  show(byId("close-session"), record.status !== "closed");
  drawComposer();
}
