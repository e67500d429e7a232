// The conversation of the selected session: the events in the log, followed by the events of the stream.

// How many events of a session the first read aims for, and how many parts the page shows at once.
const FIRST_EVENT_COUNT = 5_000;
const FIRST_PART_LIMIT = 300;
const PAGE_LIMIT = 1_000;
// The range of sequence numbers of the first read. After codexd was killed, up to hundreds of thousands of numbers are
// skipped, so each further range is larger; a range without events costs nothing.
const FIRST_RANGE = 20_000;
const RANGE_GROWTH = 4;
// A long log of other sessions is searched no longer than this, in milliseconds, unless the user asks for more.
const SEARCH_LIMIT_MS = 4_000;

// While the texts are drawn, the conversation is hidden for at most this long, so that nothing moves before the user's eyes.
const MAX_HIDDEN_MS = 1_000;

// The conversation that is shown.
let conversation = null;

class Conversation {
  // `scale` multiplies the limits of the first read.
  constructor(sessionId, scale) {
    this.sessionId = sessionId;
    this.scale = scale;
    this.partLimit = FIRST_PART_LIMIT * scale;
    this.turns = new Map();
    this.parts = [];
    this.removedItems = new Set();
    this.changes = new Map();
    this.queuedTurns = new Map();
    this.removedParts = 0;
    this.hasEarlier = false;
    // Events to apply, and events that arrived while the log was being read.
    this.queue = [];
    this.at = 0;
    this.live = [];
    this.isReading = true;
    this.hasFailed = false;
    this.liveFrom = Infinity;
    // As the log reports them: the settings of the thread, and the tokens used.
    this.settings = null;
    this.usage = null;
    // The time of the event that is being applied.
    this.time = null;
    this.warnings = new Set();
    this.requestNotes = new Map();
    byId("turns").replaceChildren();
    byId("turns").setAttribute("aria-busy", "true");
    this.drawLeftOut();
    runInNextFrame(drawSessionSums);
    drawQueue();
  }

  get isCurrent() {
    return conversation === this;
  }

  // Reads the log up to the last event of the stream; the stream delivers all later ones.
  async read() {
    const upTo = stream.seq;
    this.liveFrom = upTo;
    try {
      await this.readLog(upTo);
      await this.readQueueAndLastTurn();
    } catch (error) {
      if (!this.isCurrent) return;
      this.hasFailed = true;
      notice(`Failed to read the conversation: ${messageOf(error)}`);
    }
    if (!this.isCurrent) return;
    this.queue.push(...this.live);
    this.live = [];
    this.isReading = false;
    this.showBy = performance.now() + MAX_HIDDEN_MS;
    runInNextFrame(showWhenDrawn);
    runInNextFrame(drawRequests);
  }

  // Reads ranges of the log, the newest first, until the limits are reached.
  async readLog(upTo) {
    const bounds = await callApi(`${stream.path}?limit=1`);
    const beginning = Math.max(bounds.oldest - 1, 0);
    const end = performance.now() + SEARCH_LIMIT_MS * this.scale;
    let found = [];
    let span = FIRST_RANGE;
    for (let to = upTo; to > beginning && this.isCurrent; span *= RANGE_GROWTH) {
      const from = Math.max(to - span, beginning);
      found = [...(await this.readRange(bounds.epoch, from, to)), ...found];
      to = from;
      const hasBeginning = found.some((event) => event.type === "session.created");
      this.hasEarlier = from > beginning && !hasBeginning;
      if (hasBeginning || found.length >= FIRST_EVENT_COUNT * this.scale || performance.now() > end) break;
    }
    this.queue = found;
    runInNextFrame(drawLeftOut);
    runInNextFrame(processEvents);
  }

  // The events of the session with numbers above `from`, up to `to`.
  async readRange(epoch, from, to) {
    const found = [];
    const query = new URLSearchParams({ sessionId: this.sessionId, limit: String(PAGE_LIMIT), after: `${epoch}-${from}` });
    while (this.isCurrent) {
      let page;
      try {
        page = await callApi(`${stream.path}?${query}`);
      } catch (error) {
        // The log has lost events here; the events after them can be read.
        if (error.details?.reason !== "lost") throw error;
        if (partsOf(error.details.cursor).seq >= to) break;
        query.set("after", error.details.cursor);
        continue;
      }
      for (const event of page.events) if (event.seq <= to) found.push(event);
      if (partsOf(page.cursor).seq >= Math.min(to, page.latest)) break;
      query.set("after", page.cursor);
    }
    return found;
  }

  // Reads what the log does not contain: the queued turns, and a last turn whose events were removed.
  async readQueueAndLastTurn() {
    const view = await callApi(`${API}/sessions/${encodeURIComponent(this.sessionId)}`);
    for (const turn of view.queuedTurns) this.queuedTurns.set(turn.queueId, turn);
    runInNextFrame(drawQueue);
    const id = view.session.lastTurnId;
    const isAboutTurn = (event) => event.detail?.turnId === id || event.detail?.params?.turnId === id;
    if (!id || this.turns.has(id) || this.queue.some(isAboutTurn) || this.live.some(isAboutTurn)) return;
    const { turn } = await callApi(`${API}/sessions/${encodeURIComponent(this.sessionId)}/turns/${encodeURIComponent(id)}`);
    if (this.isCurrent) this.drawStoredTurn(turn);
  }

  // Accepts an event of the stream.
  receive(event) {
    if (event.seq <= this.liveFrom) return;
    if (this.isReading) this.live.push(event);
    else this.queue.push(event);
  }

  // Applies queued events until the time `until`; returns whether events are left.
  processUntil(until) {
    while (this.at < this.queue.length && performance.now() < until) {
      // Reading the clock costs more than applying an event.
      const end = Math.min(this.at + 50, this.queue.length);
      for (; this.at < end; this.at += 1) this.applySafely(this.queue[this.at]);
    }
    if (this.at < this.queue.length) return true;
    this.queue = [];
    this.at = 0;
    return false;
  }

  // An event with an unknown shape is not shown, and affects no other event.
  applySafely(event) {
    try {
      this.apply(event);
    } catch (error) {
      console.error(`event ${event.seq} (${event.type}) cannot be shown:`, error);
    }
  }

  apply(event) {
    this.time = event.createdAt;
    if (event.detail?.rootThreadId && !event.type.startsWith("request.")) return this.applySubAgentEvent(event);
    const isLive = event.seq > this.liveFrom;
    const method = event.type === "app-server.notification" ? event.detail.notificationMethod : null;
    const show = method === null ? EVENTS[event.type] : NOTIFICATIONS[method];
    if (show) show(this, method === null ? (event.detail ?? {}) : (event.detail.params ?? {}), event, isLive);
  }

  // The conversation shows the requests of sub-agents, and the file changes that these are about, but nothing else of them.
  applySubAgentEvent(event) {
    const item = event.detail.params?.item;
    if (item?.type !== "fileChange") return;
    this.changes.set(item.id, item.changes ?? []);
    runInNextFrame(drawRequests);
  }

  changesOf(itemId) {
    return this.changes.get(itemId) ?? null;
  }

  turn(id) {
    let turn = this.turns.get(id);
    if (turn) return turn;
    turn = { id, items: new Map(), plan: null, count: 0, startedAt: this.time, files: [], errorNote: null };
    turn.readPatch = () => this.readPatch(turn);
    turn.body = make("div", {});
    turn.diffTitle = make("summary", {});
    turn.diff = make("details", { class: "item whole-diff", hidden: true, ontoggle: () => drawTurnDiff(turn) }, turn.diffTitle);
    turn.tokens = make("span", { class: "faint" });
    turn.end = make("span", { class: "turn-status", "data-state": "inProgress", text: "Turn running …" });
    turn.about = make("span", { class: "faint" });
    const link = make("a", { class: "faint link", href: `#${encodeURIComponent(this.sessionId)}/${encodeURIComponent(id)}`, text: "Link", "aria-label": "Link to this turn" });
    turn.foot = make("p", { class: "turn-end row" }, turn.end, turn.about, turn.tokens, link);
    turn.section = make("section", { class: "turn", "aria-label": `Turn ${this.turns.size + 1}` }, turn.body, turn.diff, turn.foot);
    this.turns.set(id, turn);
    byId("turns").append(turn.section);
    return turn;
  }

  // Adds a part to its turn, and removes the oldest parts above the limit.
  addPart(element, turn, onRemove, place = turn?.body ?? byId("turns")) {
    place.append(element);
    if (turn) turn.count += 1;
    this.parts.push({ element, turn, onRemove });
    while (this.parts.length > this.partLimit) this.removePart(this.parts.shift());
    return element;
  }

  removePart({ element, turn, onRemove }) {
    element.remove();
    onRemove?.();
    this.removedParts += 1;
    if (turn) {
      turn.count -= 1;
      if (turn.count === 0 && turn.end.dataset.state !== "inProgress") turn.section.remove();
    }
    runInNextFrame(drawLeftOut);
  }

  addNote(text, turn = null, level = "info") {
    return this.addPart(make("p", { class: "item note", "data-level": level, text }), turn);
  }

  // The same warning, such as one about the configuration before every turn, is shown once.
  addWarning(text) {
    if (this.warnings.has(text)) return;
    this.warnings.add(text);
    const turn = [...this.turns.values()].at(-1);
    this.addNote(text, turn?.end.dataset.state === "inProgress" ? turn : null, "warn");
  }

  // The part of an item; null if it was removed to stay within the limit.
  itemPart(turnId, itemId, type, group = null) {
    const turn = this.turn(turnId);
    const key = `${turnId} ${itemId}`;
    if (this.removedItems.has(key)) return null;
    let part = turn.items.get(itemId);
    if (!part) {
      part = makePart(type, this.time);
      part.group = group;
      turn.items.set(itemId, part);
      const onRemove = () => {
        turn.items.delete(itemId);
        this.removedItems.add(key);
        group?.remove(itemId);
      };
      this.addPart(part.element, turn, onRemove, group?.body);
    }
    return part;
  }

  // The group at the end of a turn for one more command that only reads. Reasoning without a text is no end of a group.
  explorationGroup(turn) {
    let last = turn.body.lastElementChild;
    while (last?.hidden) last = last.previousElementSibling;
    if (last === null || last !== turn.exploration?.element) {
      turn.exploration = new ExplorationGroup();
      turn.body.append(turn.exploration.element);
    }
    return turn.exploration;
  }

  updateItem(params, isComplete) {
    const { item, turnId } = params;
    if (item.type === "fileChange") {
      this.changes.set(item.id, item.changes ?? []);
      runInNextFrame(drawRequests);
    }
    const turn = this.turn(turnId);
    const isNew = !turn.items.has(item.id) && !this.removedItems.has(`${turnId} ${item.id}`);
    const part = this.itemPart(turnId, item.id, item.type, isNew && isExploring(item) ? this.explorationGroup(turn) : null);
    part?.update(item, isComplete);
    part?.group?.update(item);
  }

  end(turnId, status, error, isLive) {
    const turn = this.turn(turnId);
    const text = error?.message ? `${turnStatusText(status)}: ${error.message}` : turnStatusText(status);
    // An interrupted message is not completed.
    for (const part of turn.items.values()) {
      part.text?.finish?.();
      // A command that had not begun, such as one whose approval was open, has no end of its own.
      if (part.item?.status === "inProgress" && status !== "completed") {
        part.update({ ...part.item, status }, false);
        part.group?.update(part.item);
      }
    }
    setText(turn.end, `Turn ${text}`);
    turn.end.dataset.state = status;
    const took = Date.parse(this.time) - Date.parse(turn.startedAt);
    turn.about.replaceChildren(took >= 0 ? `${preciseDuration(took)}, ` : "", timeElement(this.time));
    // The end says the same as the error before it.
    if (turn.errorNote?.textContent === `Error: ${error?.message}`) turn.errorNote.remove();
    if (isLive) announce(`Turn ${text}.`);
  }

  setDiff(turnId, diff) {
    const turn = this.turn(turnId);
    if (turn.patch === diff) return;
    turn.patch = diff;
    // Only the newest patch of a frame is read.
    runInNextFrame(turn.readPatch);
  }

  readPatch(turn) {
    turn.files = turn.patch ? filesOfPatch(turn.patch) : [];
    show(turn.diff, turn.files.length > 0);
    turn.diffTitle.replaceChildren(`All changes of this turn: ${countText(turn.files)} `, sumsOf(turn.files));
    turn.diff.querySelector(".diff")?.remove();
    drawTurnDiff(turn);
    runInNextFrame(drawSessionSums);
  }

  // Draws the stored summary of a turn whose events are no longer in the log.
  drawStoredTurn(turn) {
    this.time = turn.startedAt ?? null;
    this.addNote("The events of this turn belong to another session of the thread, or are no longer in the log; this is its stored summary.", this.turn(turn.turnId));
    for (const item of turn.items ?? []) {
      const part = this.itemPart(turn.turnId, item.id, item.type);
      if (item.type === "userMessage") part?.append(item.words ?? "");
      else if (item.type === "commandExecution") part?.update({ ...item, command: item.words }, false);
      else if (item.type === "fileChange") part?.update({ ...item, changes: (item.changes ?? []).map((one) => (typeof one === "string" ? { path: one } : one)) });
      else if (item.type === "agentMessage") part?.append(item.words ?? "");
    }
    const messages = (turn.items ?? []).filter((item) => item.type === "agentMessage");
    const last = messages.at(-1);
    if (turn.text) this.itemPart(turn.turnId, last?.id ?? "message", "agentMessage")?.text.replace(turn.text);
    drawTokens(this.turn(turn.turnId), turn.tokenUsage);
    this.time = turn.completedAt ?? null;
    if (turn.completedAt) this.end(turn.turnId, turn.status, turn.error, false);
    runInNextFrame(processEvents);
  }

  drawLeftOut() {
    const sentences = [];
    if (this.removedParts > 0) sentences.push(`${plural(this.removedParts, "older part")} not shown.`);
    if (this.hasEarlier) sentences.push("Earlier events are in the log and were not read.");
    setText(byId("left-out-text"), sentences.join(" "));
    show(byId("left-out"), sentences.length > 0);
  }
}

// The line above the message field has the details, for the newest turn.
function drawTokens(turn, usage) {
  setText(turn.tokens, usage?.total ? `${usage.total.totalTokens.toLocaleString()} tokens` : "");
  turn.tokens.title = tokenText(usage);
}

// Draws the changes of a turn when they are opened.
function drawTurnDiff(turn) {
  if (turn.diff.open && !turn.diff.querySelector(".diff")) turn.diff.append(changesView(turn.files));
}

function showWhenDrawn() {
  if (conversation === null || conversation.isReading) return;
  const isDrawn = conversation.at >= conversation.queue.length && grown.size === 0;
  if (!isDrawn && performance.now() < conversation.showBy) return runInNextFrame(showWhenDrawn);
  byId("turns").removeAttribute("aria-busy");
}

function drawLeftOut() {
  conversation?.drawLeftOut();
}

// The turn that a request belongs to; for a request of a sub-agent, the root turn.
function turnOfRequest(it, detail) {
  const id = detail.rootTurnId ?? detail.turnId;
  return id ? it.turn(id) : null;
}

// The text about the trust in the directory of the session.
function trustText({ trust, leftOut, unreadable }) {
  if (trust === "trusted") return "The directory is trusted: its .codex is used.";
  if (trust !== "untrusted") return "The configuration of Codex decides whether the directory is trusted.";
  const unused = leftOut?.length ? ` Not used: ${leftOut.map(escapeInvisible).join(", ")}.` : "";
  const why = unreadable ? ` The configuration of Codex could not be read: ${escapeInvisible(unreadable)}` : "";
  return `The directory is not trusted.${unused}${why}`;
}

// How each event changes the conversation; the arguments are (conversation, detail, event, isLive).
const EVENTS = lookupTable({
  "session.created": (it, detail, event) => {
    it.settings = settingsOfSession(detail);
    it.addNote(`Session created at ${minuteTime(event.createdAt)}`);
    runInNextFrame(drawSettings);
  },
  "session.resumed": (it, detail, event) => {
    it.settings = settingsOfSession(detail);
    it.addNote(`Thread resumed at ${minuteTime(event.createdAt)}`);
    runInNextFrame(drawSettings);
  },
  "session.recreated": (it) => it.addNote("The session has a new thread, because the previous one never had a turn."),
  "session.closed": (it, detail) => it.addNote(detail.reason ? `Session closed: ${detail.reason}` : "Session closed"),
  "session.held": (it, detail) => it.addNote(`The queue is held: ${detail.held?.reason ?? ""}`, null, "warn"),
  "session.released": (it, detail) => it.addNote(`The queue resumed: ${detail.reason ?? ""}`),
  "usage_limit.reached": (it, detail, event) => it.addNote(event.message, detail.turnId ? it.turn(detail.turnId) : null, "warn"),
  "usage_limit.trial": (it) => it.addNote("A queued turn shows whether the usage limit has ended."),
  "session.trust": (it, detail) => it.addNote(trustText(detail), null, detail.unreadable ? "warn" : "info"),
  "turn.accepted": (it, detail) => {
    it.turn(detail.turnId);
    if (detail.queueId) it.queuedTurns.delete(detail.queueId);
    runInNextFrame(drawQueue);
  },
  "turn.queued": (it, detail) => {
    if (detail.turn) it.queuedTurns.set(detail.queueId, detail.turn);
    runInNextFrame(drawQueue);
  },
  "turn.rescheduled": (it, detail) => {
    const turn = it.queuedTurns.get(detail.queueId);
    if (turn) it.queuedTurns.set(detail.queueId, { ...turn, notBefore: detail.notBefore });
    runInNextFrame(() => redrawQueued(detail.queueId));
  },
  "turn.rejected": (it, detail) => {
    if (detail.queueId) it.queuedTurns.delete(detail.queueId);
    // A person who removed it needs no warning.
    const isRemoved = /^It was withdrawn before it started/.test(detail.reason);
    it.addNote(isRemoved ? "A queued turn was removed." : `A turn was rejected: ${detail.reason}`, null, isRemoved ? "info" : "warn");
    runInNextFrame(drawQueue);
  },
  "app-server.mcp_server.failed": (it, detail) => it.addNote(`MCP server "${detail.name}" did not start: ${detail.error}`, null, "warn"),
  "turn.stalled": (it, detail) => it.addNote(`No events for ${detail.silentSeconds} s.`, it.turn(detail.turnId), "warn"),
  "turn.settled": (it, detail, event, isLive) => it.end(detail.turnId, detail.status, null, isLive),
  "app-server.turn.started": (it, detail) => it.turn(detail.turnId),
  "app-server.turn.completed": (it, detail, event, isLive) => it.end(detail.turnId, detail.status, detail.error, isLive),
  "app-server.turn.completed.missing": (it, detail, event, isLive) =>
    it.end(detail.turnId, "failed", { message: "the connection to Codex ended before the turn did" }, isLive),
  "app-server.turn.error": (it, detail) => {
    const turn = it.turn(detail.turnId);
    const text = `${detail.willRetry ? "Codex retries" : "Error"}: ${detail.error?.message ?? ""}`;
    const note = it.addNote(text, turn, detail.willRetry ? "warn" : "error");
    if (!detail.willRetry) turn.errorNote = note;
  },
  "app-server.turn.message.delta": (it, detail) => it.itemPart(detail.turnId, detail.itemId, "agentMessage")?.append(detail.delta),
  "app-server.turn.plan.delta": (it, detail) => it.itemPart(detail.turnId, detail.itemId, "plan")?.append(detail.delta),
  "app-server.turn.plan.updated": (it, detail) => {
    const turn = it.turn(detail.turnId);
    turn.plan ??= it.addPart(make("article", { class: "item" }), turn, () => {
      turn.plan = null;
    });
    drawPlan(turn.plan, detail);
  },
  "app-server.turn.diff.updated": (it, detail) => it.setDiff(detail.turnId, detail.diff),
  "request.opened": (it, detail) => {
    const note = it.addNote(`Request: ${titleOf(detail.request)}`, turnOfRequest(it, detail));
    it.requestNotes.set(detail.request.requestId, note);
  },
  // The response is added to the line of the request.
  "request.resolved": (it, detail) => {
    const decision = detail.decision === null ? "" : decisionText(detail.decision);
    const why = detail.reason ?? { client: "", appServer: "withdrawn by Codex" }[detail.resolvedBy] ?? detail.resolvedBy;
    const text = [decision, why].filter(Boolean).join(", ") || "answered";
    const note = it.requestNotes.get(detail.requestId);
    if (note?.isConnected) note.append(` ${text}`);
    else it.addNote(`Response: ${text}`, turnOfRequest(it, detail));
  },
});

const NOTIFICATIONS = lookupTable({
  "item/started": (it, params) => it.updateItem(params, false),
  "item/completed": (it, params) => it.updateItem(params, true),
  "item/commandExecution/outputDelta": (it, params) => it.itemPart(params.turnId, params.itemId, "commandExecution")?.append(params.delta),
  "item/reasoning/summaryTextDelta": (it, params) => it.itemPart(params.turnId, params.itemId, "reasoning")?.append(params.delta, params.summaryIndex),
  "item/reasoning/textDelta": (it, params) => it.itemPart(params.turnId, params.itemId, "reasoning")?.append(params.delta),
  "thread/settings/updated": (it, params, event, isLive) => {
    it.settings = settingsOfThread(params);
    // What the user had chosen applies now, or the choice has changed since.
    if (isLive) choices.delete(it.sessionId);
    runInNextFrame(drawSettings);
  },
  "thread/reverted": () => runInNextFrame(markRevertedTurns),
  "thread/tokenUsage/updated": (it, params) => {
    it.usage = params.tokenUsage;
    runInNextFrame(drawActivity);
    if (params.turnId) drawTokens(it.turn(params.turnId), params.tokenUsage);
  },
  warning: (it, params) => it.addWarning(params.message ?? ""),
});
