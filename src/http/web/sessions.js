// The session records, updated by events, and the list of sessions.

const SESSIONS_AT_ONCE = 100;

// When each running turn started, in milliseconds, if the page knows it.
const turnStarts = new Map();

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
      if (!this.isAbout(event, record)) continue;
      change(record, detail, event);
      record.updatedAt = event.createdAt;
    }
    runInNextFrame(drawSessions);
  },
};

const startTurn = (record, detail, event) => {
  if (record.currentTurnId !== detail.turnId) turnStarts.set(detail.turnId, Date.parse(detail.startedAt ?? event.createdAt));
  record.currentTurnId = detail.turnId;
  record.lastTurnId = detail.turnId;
  record.lastTurnStatus = "inProgress";
};

const endTurn = (status) => (record, detail) => {
  turnStarts.delete(detail.turnId);
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
    for (const name of ["title", "archived", "metadata", "model", "reasoningEffort", "serviceTier"]) if (name in detail) record[name] = detail[name];
  },
  "session.forgotten": (record, detail) => {
    if (record.sessionId === detail.sessionId) sessions.records.delete(record.sessionId);
  },
  // The event may come after the end of the turn, or be about a turn that was found later; the daemon handles both alike.
  "turn.accepted": (record, detail, event) => {
    if (record.sessionId !== detail.sessionId || detail.isNewest === false || record.lastTurnId === detail.turnId) return;
    startTurn(record, detail, event);
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
  if (requests.pendingCount(record.sessionId) > 0) return "asking";
  if (record.status === "closed") return "closed";
  if (record.archived) return "archived";
  if (record.currentTurnId) return "running";
  return record.held ? "held" : "idle";
}

const STATES = { closed: "closed", archived: "archived", asking: "asks", running: "running", held: "held", idle: "idle" };

// A held queue is tried again by itself at a time that is known for some causes.
const stateText = (record, state) => (state === "held" && record.held.until ? `held until ${futureTime(record.held.until)}` : STATES[state]);

const nameOf = (record) => (record.title && escapeInvisible(record.title)) || baseName(record.cwd) || record.sessionId;

function makeRow(record) {
  const row = {
    name: make("span", { class: "name" }),
    time: make("time", { class: "faint" }),
    about: make("span", { class: "faint about" }),
    state: make("span", { class: "badge" }),
  };
  row.button = make("button", { type: "button", class: "session-row session", onclick: () => openSession(record.sessionId) }, row.name, row.time, row.about, row.state);
  row.item = make("li", {}, row.button);
  return row;
}

function drawRow(row, record) {
  const state = stateOf(record);
  setText(row.name, nameOf(record));
  setText(row.time, shortTime(record.updatedAt));
  row.time.dateTime = record.updatedAt;
  // The title may be the directory.
  setText(row.about, [record.title ? baseName(record.cwd) : "", record.model].filter(Boolean).join(" · "));
  row.button.title = record.cwd ?? "";
  show(row.state, state !== "idle");
  setText(row.state, stateText(record, state));
  row.state.dataset.state = state;
  if (record.sessionId === sessions.chosen) row.button.setAttribute("aria-current", "page");
  else row.button.removeAttribute("aria-current");
}

// The groups of the list: what waits for the user is first, and never hidden as closed.
const GROUPS = [
  { title: "Asks", has: (state) => state === "asking" },
  { title: "Running", has: (state) => state === "running" },
  { title: "Others", has: () => true },
];

for (const group of GROUPS) group.item = make("li", { class: "group" }, make("h3", { text: group.title }));

// The sessions that match the search, in the order of the list: by group, the last used first.
function listedSessions() {
  const withClosed = byId("show-closed").checked;
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const listed = [];
  for (const record of sessions.records.values()) {
    const state = stateOf(record);
    const isHidden = !withClosed && (state === "closed" || state === "archived") && record.sessionId !== sessions.chosen;
    const text = words.length > 0 ? `${nameOf(record)} ${record.cwd ?? ""} ${record.model ?? ""}`.toLowerCase() : "";
    if (isHidden || !words.every((word) => text.includes(word))) continue;
    listed.push({ record, group: GROUPS.findIndex((group) => group.has(state)) });
  }
  const compare = (a, b) => (a < b ? 1 : a > b ? -1 : 0);
  return listed.sort((a, b) => a.group - b.group || compare(a.record.updatedAt, b.record.updatedAt) || compare(a.record.createdAt, b.record.createdAt));
}

function drawSessions() {
  const listed = listedSessions();
  const visible = listed.slice(0, sessions.shown);
  const list = byId("sessions");
  const kept = new Set(visible.map(({ record }) => record.sessionId));
  for (const [id, row] of sessions.rows) {
    if (!kept.has(id)) {
      row.item.remove();
      sessions.rows.delete(id);
    }
  }
  const items = [];
  const isGrouped = visible.some(({ group }) => group < GROUPS.length - 1);
  let last = null;
  for (const { record, group } of visible) {
    let row = sessions.rows.get(record.sessionId);
    if (!row) {
      row = makeRow(record);
      sessions.rows.set(record.sessionId, row);
    }
    drawRow(row, record);
    if (isGrouped && group !== last) items.push(GROUPS[group].item);
    last = group;
    items.push(row.item);
  }
  for (const group of GROUPS) if (!items.includes(group.item)) group.item.remove();
  // An item in the right position is not moved, and a row that is moved gets its focus back.
  const focused = list.contains(document.activeElement) ? document.activeElement : null;
  items.forEach((item, index) => {
    if (list.children[index] !== item) list.insertBefore(item, list.children[index] ?? null);
  });
  if (focused !== document.activeElement) focused?.focus({ preventScroll: true });
  const rest = listed.length - visible.length;
  show(byId("more-sessions"), rest > 0);
  setText(byId("more-sessions"), `Show more (${rest.toLocaleString()} hidden)`);
  show(byId("no-sessions"), listed.length === 0);
  setText(byId("no-sessions"), byId("search").value.trim() ? "No session matches." : "No sessions.");
  drawSessionHead();
}

function drawSessionHead() {
  const record = sessions.current;
  show(byId("session-head"), record !== null);
  drawWaiting();
  drawActivity();
  if (record === null) return;
  const state = stateOf(record);
  setText(byId("session-title"), nameOf(record));
  setText(byId("session-about"), [record.cwd, record.model].filter(Boolean).join(" · "));
  setText(byId("session-state"), stateText(record, state));
  byId("session-state").dataset.state = state;
  byId("session-about").title = record.sessionId;
  drawComposer();
}
