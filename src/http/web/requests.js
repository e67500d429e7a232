// What the app-server asks, and the buttons that answer it.

const requests = {
  pending: new Map(),
  // Those that ended: a list that was asked for before must not bring them back.
  over: new Set(),
  cards: new Map(),

  waitingIn(sessionId) {
    let count = 0;
    for (const request of this.pending.values()) if (request.sessionId === sessionId) count += 1;
    return count;
  },

  hear(event) {
    if (event.type === "request.opened") {
      const request = event.detail.request;
      if (this.over.has(request.requestId) || this.pending.has(request.requestId)) return;
      this.pending.set(request.requestId, request);
      announce(`Codex asks: ${titleOf(request)}`);
    } else if (event.type === "request.resolved") {
      this.end(event.detail.requestId);
    } else {
      return;
    }
    later(drawRequests);
    later(drawSessions);
  },

  end(id) {
    this.over.add(id);
    this.pending.delete(id);
  },

  // The list as the daemon has it, after a greeting.
  async read() {
    try {
      const known = new Set(this.pending.keys());
      const list = (await ask(`${API}/requests`)).requests;
      const waiting = new Map(list.filter((request) => request.status === "pending").map((request) => [request.requestId, request]));
      for (const id of known) if (!waiting.has(id)) this.end(id);
      for (const [id, request] of waiting) if (!this.over.has(id)) this.pending.set(id, request);
      later(drawRequests);
      later(drawSessions);
    } catch {
      // The connection is lost, and the next greeting asks again.
    }
  },
};

const TITLES = table({
  "item/commandExecution/requestApproval": "Run this command?",
  execCommandApproval: "Run this command?",
  "item/fileChange/requestApproval": "Change these files?",
  applyPatchApproval: "Change these files?",
  "item/permissions/requestApproval": "Give these rights?",
  "item/tool/requestUserInput": "Codex has a question",
  "mcpServer/elicitation/request": "A tool has a question",
});

// A command may already run, and be sent something.
const titleOf = (request) =>
  request.params?.kind === "writeStdin" ? "Write this to a command that runs?" : (TITLES[request.method] ?? request.method);

const DECISIONS = table({
  accept: "Allow",
  acceptForSession: "Allow for this session",
  decline: "Decline",
  cancel: "Cancel the turn",
});

// `request` where it is known: an MCP server is told "cancel" too, which ends no turn.
function wordsOf(decision, request = null) {
  if (decision === "cancel" && request?.method === "mcpServer/elicitation/request") return "Cancel";
  if (typeof decision === "string") return DECISIONS[decision] ?? visible(decision);
  const start = decision?.acceptWithExecpolicyAmendment?.execpolicy_amendment;
  if (Array.isArray(start)) return `Allow, and always what begins with “${visible(start.join(" "))}”`;
  return visible(JSON.stringify(decision));
}

function kindOf(decision) {
  if (decision === "accept") return "main";
  return decision === "decline" || decision === "cancel" ? "danger" : "";
}

const commandOf = (params) => (Array.isArray(params.command) ? params.command.join(" ") : params.command);

// What is said of a request in its own words, and what only names it.
const SAID = new Set(["reason", "message", "serverName", "url", "command", "cwd", "grantRoot", "questions", "requestedSchema", "availableDecisions", "proposedExecpolicyAmendment", "commandActions"]);
const NAMING = new Set(["threadId", "turnId", "itemId", "approvalId", "callId", "conversationId", "elicitationId", "startedAtMs", "kind", "mode", "environmentId", "autoResolutionMs", "isBlocking"]);

// What would happen, as far as the request or the conversation says; what has no words here stands there as it came.
function consequences(request) {
  const params = request.params ?? {};
  const parts = [];
  const command = commandOf(params);
  const paragraph = (text, isFaint = false) => parts.push(make("p", { class: isFaint ? "faint" : "", text: visible(text) }));
  const block = (text) => parts.push(make("pre", { class: "command", text: visible(text) }));
  if (params.reason) paragraph(params.reason);
  if (params.message) paragraph(params.message);
  if (params.serverName) paragraph(`asked by the MCP server ${params.serverName}`, true);
  // An address is to be visited before that is accepted.
  if (params.url) block(params.url);
  if (command) block(command);
  if (params.cwd) paragraph(`in ${params.cwd}`, true);
  if (params.grantRoot) paragraph(`It would be allowed to write to ${params.grantRoot} from then on.`);
  const changes = conversation?.changesOf(request.itemId);
  if (changes) parts.push(...changes.map(fileChange));
  else if (request.method === "item/fileChange/requestApproval") paragraph("What would change is not known here.");
  const isMore = ([name, value]) => value !== null && !SAID.has(name) && !NAMING.has(name);
  const more = Object.entries(params).filter(isMore);
  if (more.length) parts.push(make("pre", { text: visible(plainly(Object.fromEntries(more))) }));
  return parts;
}

function makeCard(request) {
  const titleId = `title-${request.requestId}`;
  const card = { problem: make("p", { class: "problem", role: "alert", hidden: true }), buttons: [], hasChanges: false };
  const decide = (decision) =>
    make("button", { type: "button", class: kindOf(decision), text: wordsOf(decision, request), onclick: () => answerRequest(card, request, { decision }) });
  card.buttons = (request.decisions ?? []).map(decide);
  const form = formOf(request);
  if (form) {
    const send = () => answerRequest(card, request, () => ({ result: form.read() }));
    card.buttons.unshift(make("button", { type: "button", class: "main", text: "Answer", onclick: send }));
  }
  card.body = make("div", {}, ...consequences(request));
  card.element = make(
    "article",
    { class: "request", tabindex: "-1", "aria-labelledby": titleId },
    make("h3", { id: titleId, text: titleOf(request) }),
    card.body,
    ...(form?.fields ?? []),
    card.problem,
    make("div", { class: "row decisions" }, ...card.buttons),
    make("p", { class: "faint", text: request.expiresAt ? `Declined at ${clock(request.expiresAt)} if nobody answers.` : "" }),
  );
  return card;
}

async function answerRequest(card, request, given) {
  show(card.problem, false);
  card.buttons.forEach((button) => { button.disabled = true; });
  try {
    const body = typeof given === "function" ? given() : given;
    await ask(`${API}/requests/${encodeURIComponent(request.requestId)}`, { body });
    requests.end(request.requestId);
  } catch (error) {
    if (error.code === "already_resolved") {
      requests.end(request.requestId);
      notice("That request was answered before, or is no longer wanted.");
    } else {
      say(card.problem, error instanceof Unfinished ? error.message : reason(error));
      show(card.problem, true);
    }
  }
  card.buttons.forEach((button) => { button.disabled = false; });
  drawRequests();
  drawSessions();
  // What had the focus is gone: the next one gets it, but none of its buttons, since nobody has read it yet.
  if (!requests.pending.has(request.requestId) && document.activeElement === document.body) {
    (byId("requests").querySelector(".request") ?? byId("prompt")).focus();
  }
}

// A key that is held answers once.
byId("requests").addEventListener("keydown", (event) => {
  if (event.repeat && event.target instanceof HTMLButtonElement) event.preventDefault();
});

// The cards of the chosen session; those of others are counted in the list of sessions.
function drawRequests() {
  // A request that names no session is everybody's.
  const isMine = (request) => request.sessionId === null || request.sessionId === sessions.chosen;
  const mine = [...requests.pending.values()].filter(isMine);
  const wanted = new Set(mine.map((request) => request.requestId));
  for (const [id, card] of requests.cards) {
    if (!wanted.has(id)) {
      card.element.remove();
      requests.cards.delete(id);
    }
  }
  for (const request of mine) {
    let card = requests.cards.get(request.requestId);
    if (!card) {
      card = makeCard(request);
      requests.cards.set(request.requestId, card);
      byId("requests").append(card.element);
    }
    // The change that is asked about may be heard of later than the question.
    const hasChanges = Boolean(conversation?.changesOf(request.itemId));
    if (hasChanges && !card.hasChanges) card.body.replaceChildren(...consequences(request));
    card.hasChanges = hasChanges;
  }
  const count = requests.pending.size;
  const others = count - mine.length;
  say(byId("to-sessions"), others > 0 ? `Sessions · ${others} waiting` : "Sessions");
  document.title = count > 0 ? `(${count}) codexd` : "codexd";
}
