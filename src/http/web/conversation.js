// The conversation of the chosen session: what the log has of it, and what comes, as one row of events.

// How many events of a session are wanted at first, and how many parts stand in the page at once.
const FIRST_WISH = 5_000;
const FIRST_CAP = 300;
const PAGE_LIMIT = 1_000;
// How far back the log is read in one go, in numbers of events. Numbers are skipped when codexd was killed, up to hundreds
// of thousands at once, so each further go is longer; a stretch without events costs nothing.
const FIRST_SPAN = 20_000;
const FURTHER = 4;
// A long log of other sessions is not searched for longer than this, in milliseconds, unless the user asks.
const SEARCH = 4_000;

// The one that is shown.
let conversation = null;

class Conversation {
  // `more` is how many times as much as at first is wanted.
  constructor(sessionId, more) {
    this.sessionId = sessionId;
    this.more = more;
    this.cap = FIRST_CAP * more;
    this.turns = new Map();
    this.parts = [];
    this.gone = new Set();
    this.changes = new Map();
    this.waitingTurns = new Map();
    this.dropped = 0;
    this.hasEarlier = false;
    // Events to be shown, and those that came while the log was still being read.
    this.queue = [];
    this.at = 0;
    this.live = [];
    this.isReading = true;
    this.hasFailed = false;
    this.liveFrom = Infinity;
    byId("turns").replaceChildren();
    byId("turns").setAttribute("aria-busy", "true");
    this.drawLeftOut();
    drawQueue();
  }

  get isCurrent() {
    return conversation === this;
  }

  // Reads the log up to the event that the stream has come to; the stream brings all behind it.
  async read() {
    const upTo = stream.seq;
    this.liveFrom = upTo;
    try {
      await this.readLog(upTo);
      await this.readRest();
    } catch (error) {
      if (!this.isCurrent) return;
      this.hasFailed = true;
      notice(`The conversation cannot be read: ${reason(error)}`);
    }
    if (!this.isCurrent) return;
    this.queue.push(...this.live);
    this.live = [];
    this.isReading = false;
    byId("turns").removeAttribute("aria-busy");
    later(drawRequests);
  }

  // Reads stretches of the log from the newest back, until there is enough.
  async readLog(upTo) {
    const bounds = await ask(`${stream.path}?limit=1`);
    const beginning = Math.max(bounds.oldest - 1, 0);
    const end = performance.now() + SEARCH * this.more;
    let found = [];
    let span = FIRST_SPAN;
    for (let to = upTo; to > beginning && this.isCurrent; span *= FURTHER) {
      const from = Math.max(to - span, beginning);
      found = [...(await this.readStretch(bounds.epoch, from, to)), ...found];
      to = from;
      const hasBeginning = found.some((event) => event.type === "session.created");
      this.hasEarlier = from > beginning && !hasBeginning;
      if (hasBeginning || found.length >= FIRST_WISH * this.more || performance.now() > end) break;
    }
    this.queue = found;
    later(drawLeftOut);
    later(workOff);
  }

  // The events of the session with numbers above `from`, up to `to`.
  async readStretch(epoch, from, to) {
    const found = [];
    const query = new URLSearchParams({ sessionId: this.sessionId, limit: String(PAGE_LIMIT), after: `${epoch}-${from}` });
    while (this.isCurrent) {
      let page;
      try {
        page = await ask(`${stream.path}?${query}`);
      } catch (error) {
        // Events that the log has lost: what is behind them can be read.
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

  // What the log does not say: the turns that wait, and a last turn whose events are no longer kept.
  async readRest() {
    const view = await ask(`${API}/sessions/${encodeURIComponent(this.sessionId)}`);
    for (const turn of view.queuedTurns) this.waitingTurns.set(turn.queueId, turn);
    later(drawQueue);
    const id = view.session.lastTurnId;
    const isTold = (event) => event.detail?.turnId === id || event.detail?.params?.turnId === id;
    if (!id || this.turns.has(id) || this.queue.some(isTold) || this.live.some(isTold)) return;
    const { turn } = await ask(`${API}/sessions/${encodeURIComponent(this.sessionId)}/turns/${encodeURIComponent(id)}`);
    if (this.isCurrent) this.drawKeptTurn(turn);
  }

  // An event as it comes over the stream.
  take(event) {
    if (event.seq <= this.liveFrom) return;
    if (this.isReading) this.live.push(event);
    else this.queue.push(event);
  }

  // Shows what waits until the time is up; whether something is left.
  work(until) {
    while (this.at < this.queue.length && performance.now() < until) {
      // The clock costs more than an event.
      const end = Math.min(this.at + 50, this.queue.length);
      for (; this.at < end; this.at += 1) this.applySafely(this.queue[this.at]);
    }
    if (this.at < this.queue.length) return true;
    this.queue = [];
    this.at = 0;
    return false;
  }

  // An event of another form than the page knows costs what it would have shown, and nothing else.
  applySafely(event) {
    try {
      this.apply(event);
    } catch (error) {
      console.error(`event ${event.seq} (${event.type}) cannot be shown:`, error);
    }
  }

  apply(event) {
    if (event.detail?.rootThreadId && !event.type.startsWith("request.")) return this.applyOfSubAgent(event);
    const isLive = event.seq > this.liveFrom;
    const method = event.type === "app-server.notification" ? event.detail.notificationMethod : null;
    const show = method === null ? EVENTS[event.type] : NOTIFICATIONS[method];
    if (show) show(this, method === null ? (event.detail ?? {}) : (event.detail.params ?? {}), event, isLive);
  }

  // What a sub-agent does is no part of the conversation; what it asks is, and so is what that is about.
  applyOfSubAgent(event) {
    const item = event.detail.params?.item;
    if (item?.type !== "fileChange") return;
    this.changes.set(item.id, item.changes ?? []);
    later(drawRequests);
  }

  changesOf(itemId) {
    return this.changes.get(itemId) ?? null;
  }

  turn(id) {
    let turn = this.turns.get(id);
    if (turn) return turn;
    turn = { id, items: new Map(), plan: null, count: 0 };
    turn.body = make("div", {});
    turn.diff = make("details", { class: "item whole-diff", hidden: true }, make("summary", { text: "All changes of this turn" }));
    turn.tokens = make("span", { class: "faint" });
    turn.end = make("span", { class: "fate", "data-state": "inProgress", text: "Turn at work …" });
    turn.foot = make("p", { class: "turn-end row" }, turn.end, turn.tokens);
    turn.section = make("section", { class: "turn", "aria-label": `Turn ${this.turns.size + 1}` }, turn.body, turn.diff, turn.foot);
    this.turns.set(id, turn);
    byId("turns").append(turn.section);
    return turn;
  }

  // Puts a part where it belongs and, when there are too many, takes out the oldest.
  put(element, turn, forget) {
    (turn ? turn.body : byId("turns")).append(element);
    if (turn) turn.count += 1;
    this.parts.push({ element, turn, forget });
    while (this.parts.length > this.cap) this.drop(this.parts.shift());
    return element;
  }

  drop({ element, turn, forget }) {
    element.remove();
    forget?.();
    this.dropped += 1;
    if (turn) {
      turn.count -= 1;
      if (turn.count === 0 && turn.end.dataset.state !== "inProgress") turn.section.remove();
    }
    later(drawLeftOut);
  }

  note(text, turn = null, level = "info") {
    this.put(make("p", { class: "item note", "data-level": level, text }), turn);
  }

  // The part of an item; null when it was taken out because there were too many.
  item(turnId, itemId, type) {
    const turn = this.turn(turnId);
    const key = `${turnId} ${itemId}`;
    if (this.gone.has(key)) return null;
    let part = turn.items.get(itemId);
    if (!part) {
      part = makeItem(type);
      turn.items.set(itemId, part);
      this.put(part.element, turn, () => {
        turn.items.delete(itemId);
        this.gone.add(key);
      });
    }
    return part;
  }

  takeItem(params, isComplete) {
    const { item, turnId } = params;
    if (item.type === "fileChange") {
      this.changes.set(item.id, item.changes ?? []);
      later(drawRequests);
    }
    this.item(turnId, item.id, item.type)?.take(item, isComplete);
  }

  end(turnId, status, error, isLive) {
    const turn = this.turn(turnId);
    const words = error?.message ? `${fate(status)}: ${error.message}` : fate(status);
    say(turn.end, `Turn ${words}`);
    turn.end.dataset.state = status;
    if (isLive) announce(`Turn ${words}.`);
  }

  // A turn of which the log has nothing any more, in the short form in which it is kept.
  drawKeptTurn(turn) {
    this.note("The log no longer has the events of this turn; this is what is kept of it in short.", this.turn(turn.turnId));
    for (const item of turn.items ?? []) {
      const part = this.item(turn.turnId, item.id, item.type);
      if (item.type === "userMessage") part?.append(item.words ?? "");
      else if (item.type === "commandExecution") part?.take({ ...item, command: item.words }, false);
      else if (item.type === "fileChange") part?.take({ ...item, changes: (item.changes ?? []).map((one) => (typeof one === "string" ? { path: one } : one)) });
      else if (item.type === "agentMessage") part?.append(item.words ?? "");
    }
    const answers = (turn.items ?? []).filter((item) => item.type === "agentMessage");
    const last = answers.at(-1);
    if (turn.text) this.item(turn.turnId, last?.id ?? "answer", "agentMessage")?.text.become(turn.text);
    say(this.turn(turn.turnId).tokens, tokenWords(turn.tokenUsage));
    if (turn.completedAt) this.end(turn.turnId, turn.status, turn.error, false);
    later(workOff);
  }

  drawLeftOut() {
    const words = [];
    if (this.dropped > 0) words.push(`${many(this.dropped, "older part")} left out of this page.`);
    if (this.hasEarlier) words.push("What came before is in the log and was not read.");
    say(byId("left-out-words"), words.join(" "));
    show(byId("left-out"), words.length > 0);
  }
}

function drawLeftOut() {
  conversation?.drawLeftOut();
}

// The turn of the conversation that a request is about: for one of a sub-agent that at its root.
function turnOfRequest(it, detail) {
  const id = detail.rootTurnId ?? detail.turnId;
  return id ? it.turn(id) : null;
}

// What was decided about the directory of the session.
function trustWords({ trust, leftOut, unreadable }) {
  if (trust === "trusted") return "The directory is trusted: its .codex is used.";
  if (trust !== "untrusted") return "Whether the directory is trusted is set in the configuration of Codex.";
  const unused = leftOut?.length ? ` Not used: ${leftOut.map(visible).join(", ")}.` : "";
  const why = unreadable ? ` The configuration of Codex could not be read: ${visible(unreadable)}` : "";
  return `The directory is not trusted.${unused}${why}`;
}

// What each event means for the conversation: (conversation, detail, event, isLive).
const EVENTS = table({
  "session.created": (it, detail, event) => it.note(`Session created at ${clock(event.createdAt)}`),
  "session.resumed": (it, detail, event) => it.note(`Thread resumed at ${clock(event.createdAt)}`),
  "session.recreated": (it) => it.note("The session has a new thread: the old one never had a turn."),
  "session.closed": (it, detail) => it.note(detail.reason ? `Session closed: ${detail.reason}` : "Session closed"),
  "session.held": (it, detail) => it.note(`The queue is held: ${detail.held?.reason ?? ""}`, null, "warn"),
  "session.released": (it, detail) => it.note(`The queue goes on: ${detail.reason ?? ""}`),
  "session.trust": (it, detail) => it.note(trustWords(detail), null, detail.unreadable ? "warn" : "info"),
  "turn.accepted": (it, detail) => {
    it.turn(detail.turnId);
    if (detail.queueId) it.waitingTurns.delete(detail.queueId);
    later(drawQueue);
  },
  "turn.queued": (it, detail) => {
    if (detail.turn) it.waitingTurns.set(detail.queueId, detail.turn);
    later(drawQueue);
  },
  "turn.rejected": (it, detail) => {
    if (detail.queueId) it.waitingTurns.delete(detail.queueId);
    it.note(`A turn was not taken: ${detail.reason}`, null, "warn");
    later(drawQueue);
  },
  "app-server.mcp_server.failed": (it, detail) => it.note(`MCP server "${detail.name}" did not start: ${detail.error}`, null, "warn"),
  "turn.stalled": (it, detail) => it.note(`Nothing was said for ${detail.silentSeconds} s.`, it.turn(detail.turnId), "warn"),
  "turn.settled": (it, detail, event, isLive) => it.end(detail.turnId, detail.status, null, isLive),
  "app-server.turn.started": (it, detail) => it.turn(detail.turnId),
  "app-server.turn.completed": (it, detail, event, isLive) => it.end(detail.turnId, detail.status, detail.error, isLive),
  "app-server.turn.completed.missing": (it, detail, event, isLive) =>
    it.end(detail.turnId, "failed", { message: "the connection to Codex ended before it did" }, isLive),
  "app-server.turn.error": (it, detail) =>
    it.note(`${detail.willRetry ? "Tried again" : "Error"}: ${detail.error?.message ?? ""}`, it.turn(detail.turnId), detail.willRetry ? "warn" : "error"),
  "app-server.turn.message.delta": (it, detail) => it.item(detail.turnId, detail.itemId, "agentMessage")?.append(detail.delta),
  "app-server.turn.plan.delta": (it, detail) => it.item(detail.turnId, detail.itemId, "plan")?.append(detail.delta),
  "app-server.turn.plan.updated": (it, detail) => {
    const turn = it.turn(detail.turnId);
    turn.plan ??= it.put(make("article", { class: "item" }), turn, () => {
      turn.plan = null;
    });
    drawPlan(turn.plan, detail);
  },
  "app-server.turn.diff.updated": (it, detail) => {
    const turn = it.turn(detail.turnId);
    if (turn.drawnDiff === detail.diff) return;
    turn.drawnDiff = detail.diff;
    show(turn.diff, Boolean(detail.diff));
    turn.diff.querySelector("pre")?.remove();
    if (detail.diff) turn.diff.append(patch(detail.diff));
  },
  "request.opened": (it, detail) => it.note(`Asked: ${titleOf(detail.request)}`, turnOfRequest(it, detail)),
  "request.resolved": (it, detail) => {
    const decision = detail.decision === null ? "" : wordsOf(detail.decision);
    const why = detail.reason ?? { client: "given by a client", appServer: "no longer wanted" }[detail.resolvedBy] ?? detail.resolvedBy;
    it.note(`Answer: ${[decision, why].filter(Boolean).join(", ")}`, turnOfRequest(it, detail));
  },
});

const NOTIFICATIONS = table({
  "item/started": (it, params) => it.takeItem(params, false),
  "item/completed": (it, params) => it.takeItem(params, true),
  "item/commandExecution/outputDelta": (it, params) => it.item(params.turnId, params.itemId, "commandExecution")?.append(params.delta),
  "item/reasoning/summaryTextDelta": (it, params) => it.item(params.turnId, params.itemId, "reasoning")?.append(params.delta),
  "item/reasoning/textDelta": (it, params) => it.item(params.turnId, params.itemId, "reasoning")?.append(params.delta),
  "thread/tokenUsage/updated": (it, params) => {
    if (params.turnId) say(it.turn(params.turnId).tokens, tokenWords(params.tokenUsage));
  },
  warning: (it, params) => it.note(params.message ?? "", null, "warn"),
});
