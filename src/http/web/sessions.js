// The session records, updated by events, and the list of sessions.

const SESSIONS_AT_ONCE = 100;

const sessions = {
  records: new Map(),
  // The records of a hello include all events up to this sequence number.
  through: 0,
  chosen: null,
  shown: SESSIONS_AT_ONCE,
  rows: new Map(),

  replace(list, through) {
    this.records = new Map(list.map((record) => [record.sessionId, record]));
    this.through = through;
    runInNextFrame(drawSessions);
  },

  get(id) {
    return this.records.get(id) ?? null;
  },

  get current() {
    return this.get(this.chosen);
  },

  // Whether an event is about a session: by its ID, or by its thread, which several sessions can share.
  isAbout(event, record) {
    const detail = event.detail ?? {};
    if (detail.sessionId === record.sessionId) return true;
    const thread = detail.threadId ?? detail.params?.threadId ?? detail.params?.thread?.id ?? null;
    return thread !== null && thread === record.threadId;
  },

  // Applies an event to the records. An event that a hello already included changes nothing.
  receive(event) {
    if (event.seq <= this.through) return;
    const change = CHANGES[event.type];
    if (!change) return;
    const detail = event.detail ?? {};
    if (detail.session) this.records.set(detail.session.sessionId, detail.session);
    for (const record of this.records.values()) {
      if (this.isAbout(event, record)) change(record, detail);
    }
    runInNextFrame(drawSessions);
  },
};

const startTurn = (record, detail) => {
  record.currentTurnId = detail.turnId;
  record.lastTurnId = detail.turnId;
  record.lastTurnStatus = "inProgress";
};

const endTurn = (status) => (record, detail) => {
  if (record.currentTurnId === detail.turnId) record.currentTurnId = null;
  if (record.lastTurnId === detail.turnId) record.lastTurnStatus = status ?? detail.status;
};

const noChange = () => {};

const CHANGES = lookupTable({
  "session.created": noChange,
  "session.resumed": noChange,
  "session.recreated": noChange,
  "session.closed": (record, detail) => {
    if (record.sessionId !== detail.sessionId) return;
    record.status = "closed";
    record.currentTurnId = null;
    record.held = null;
  },
  "session.held": (record, detail) => {
    if (record.sessionId === detail.sessionId) record.held = detail.held;
    runInNextFrame(drawQueue);
  },
  "session.released": (record, detail) => {
    if (record.sessionId === detail.sessionId) record.held = null;
    runInNextFrame(drawQueue);
  },
  "session.updated": (record, detail) => {
    if (record.sessionId !== detail.sessionId) return;
    for (const name of ["title", "archived", "metadata"]) if (name in detail) record[name] = detail[name];
  },
  "session.forgotten": (record, detail) => {
    if (record.sessionId === detail.sessionId) sessions.records.delete(record.sessionId);
  },
  // The event may come after the end of the turn, or be about a turn that was found later; the daemon handles both alike.
  "turn.accepted": (record, detail) => {
    if (record.sessionId !== detail.sessionId || detail.isNewest === false || record.lastTurnId === detail.turnId) return;
    startTurn(record, detail);
    if (detail.status && detail.status !== "inProgress") endTurn(detail.status)(record, detail);
  },
  "app-server.turn.started": startTurn,
  "app-server.turn.completed": endTurn(null),
  "turn.settled": endTurn(null),
  "app-server.turn.completed.missing": endTurn("failed"),
});

const TURN_STATUS_TEXTS = lookupTable({
  inProgress: "running",
  completed: "completed",
  interrupted: "interrupted",
  failed: "failed",
});

const turnStatusText = (status) => TURN_STATUS_TEXTS[status] ?? status ?? "";

function stateOf(record) {
  if (record.status === "closed") return "closed";
  if (record.archived) return "archived";
  if (requests.pendingCount(record.sessionId) > 0) return "asking";
  if (record.currentTurnId) return "running";
  return record.held ? "held" : "idle";
}

const STATES = { closed: "closed", archived: "archived", asking: "asks", running: "running", held: "held", idle: "idle" };

const nameOf = (record) => record.title || baseName(record.cwd) || record.sessionId;

// The line below the name of a session: model, status of the last turn, time of creation.
function aboutSession(record) {
  const last = record.lastTurnStatus ? `last turn ${turnStatusText(record.lastTurnStatus)}` : "no turn yet";
  return [record.model, last, clock(record.createdAt)].filter(Boolean).join(" · ");
}

function makeRow(record) {
  const row = {
    name: make("span", { class: "name" }),
    state: make("span", { class: "badge" }),
    about: make("span", { class: "faint" }),
    directory: make("span", { class: "faint directory" }),
  };
  row.button = make(
    "button",
    { type: "button", class: "session", onclick: () => openSession(record.sessionId) },
    make("span", { class: "row" }, row.name, row.state),
    row.directory,
    row.about,
  );
  row.item = make("li", {}, row.button);
  return row;
}

function drawRow(row, record) {
  const state = stateOf(record);
  setText(row.name, nameOf(record));
  setText(row.state, STATES[state]);
  row.state.dataset.state = state;
  setText(row.directory, record.cwd ?? "");
  setText(row.about, aboutSession(record));
  if (record.sessionId === sessions.chosen) row.button.setAttribute("aria-current", "page");
  else row.button.removeAttribute("aria-current");
}

// The sessions to list, the newest first.
function listedSessions() {
  const withClosed = byId("show-closed").checked;
  const isListed = (record) => withClosed || (record.status !== "closed" && !record.archived) || record.sessionId === sessions.chosen;
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
    // A row in the right position is not moved, so that it keeps the focus.
    if (list.children[index] !== row.item) list.insertBefore(row.item, list.children[index] ?? null);
  });
  const rest = listed.length - visible.length;
  show(byId("more-sessions"), rest > 0);
  setText(byId("more-sessions"), `Show more (${rest.toLocaleString()} hidden)`);
  show(byId("no-sessions"), listed.length === 0);
  drawSessionHead();
}

function drawSessionHead() {
  const record = sessions.current;
  show(byId("session-head"), record !== null);
  if (record === null) return;
  setText(byId("session-title"), nameOf(record));
  setText(byId("session-about"), [record.cwd, record.model, STATES[stateOf(record)]].filter(Boolean).join(" · "));
  byId("session-about").title = record.sessionId;
  show(byId("close-session"), record.status !== "closed");
  drawComposer();
}
