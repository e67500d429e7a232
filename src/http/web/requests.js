// The server requests (approvals and questions) and the buttons that answer them.

const requests = {
  pending: new Map(),
  // Resolved requests: a list that was requested earlier must not add them again.
  resolved: new Set(),
  cards: new Map(),

  pendingCount(sessionId) {
    let count = 0;
    for (const request of this.pending.values()) if (request.sessionId === sessionId) count += 1;
    return count;
  },

  receive(event) {
    if (event.type === "request.opened") {
      const request = event.detail.request;
      if (this.resolved.has(request.requestId) || this.pending.has(request.requestId)) return;
      this.pending.set(request.requestId, request);
      announce(`Codex asks: ${titleOf(request)}`);
      notifyOf(request);
    } else if (event.type === "request.resolved") {
      this.end(event.detail.requestId);
    } else {
      return;
    }
    runInNextFrame(drawRequests);
    runInNextFrame(drawSessions);
  },

  end(id) {
    this.resolved.add(id);
    this.pending.delete(id);
    endNotification(id);
  },

  // Reads the list of the daemon after a hello.
  async read() {
    try {
      const known = new Set(this.pending.keys());
      const list = (await callApi(`${API}/requests`)).requests;
      const waiting = new Map(list.filter((request) => request.status === "pending").map((request) => [request.requestId, request]));
      for (const id of known) if (!waiting.has(id)) this.end(id);
      for (const [id, request] of waiting) if (!this.resolved.has(id)) this.pending.set(id, request);
      runInNextFrame(drawRequests);
      runInNextFrame(drawSessions);
    } catch {
      // The connection is lost; the page reads the list again after the next hello.
    }
  },
};

const TITLES = lookupTable({
  "item/commandExecution/requestApproval": "Run this command?",
  execCommandApproval: "Run this command?",
  "item/fileChange/requestApproval": "Change these files?",
  applyPatchApproval: "Change these files?",
  "item/permissions/requestApproval": "Grant these permissions?",
  "item/tool/requestUserInput": "Codex has a question",
  "mcpServer/elicitation/request": "A tool has a question",
});

// The request may be about input to a running command.
const titleOf = (request) =>
  request.params?.kind === "writeStdin" ? "Send this input to a running command?" : (TITLES[request.method] ?? request.method);

const DECISIONS = lookupTable({
  accept: "Allow",
  acceptForSession: "Allow for this session",
  decline: "Decline",
  cancel: "Cancel the turn",
});

// `request` is given if known: for an MCP server, "cancel" ends no turn.
function decisionText(decision, request = null) {
  if (decision === "cancel" && request?.method === "mcpServer/elicitation/request") return "Cancel";
  if (typeof decision === "string") return DECISIONS[decision] ?? escapeInvisible(decision);
  const start = decision?.acceptWithExecpolicyAmendment?.execpolicy_amendment;
  if (Array.isArray(start)) return `Allow, and always allow commands that begin with “${escapeInvisible(start.join(" "))}”`;
  return escapeInvisible(JSON.stringify(decision));
}

function buttonClass(decision) {
  if (decision === "accept") return "main";
  if (decision === "decline" || decision === "cancel") return "danger";
  // What a rule allows is a long text.
  return typeof decision === "string" ? "" : "long";
}

// What allows stands first and "cancel" last, whatever the order of Codex is.
const decisionRank = (decision) => ({ accept: 0, decline: 2, cancel: 3 })[decision] ?? 1;
const sortedDecisions = (decisions) => [...decisions].sort((a, b) => decisionRank(a) - decisionRank(b));

const commandOf = (params) => (Array.isArray(params.command) ? params.command.join(" ") : params.command);

// The params that the card shows in its own way, and those that only identify the request.
const SHOWN_PARAMS = new Set(["reason", "message", "serverName", "url", "command", "cwd", "grantRoot", "questions", "requestedSchema", "availableDecisions", "proposedExecpolicyAmendment", "commandActions"]);
const ID_PARAMS = new Set(["threadId", "turnId", "itemId", "approvalId", "callId", "conversationId", "elicitationId", "startedAtMs", "kind", "mode", "environmentId", "autoResolutionMs", "isBlocking"]);

// What the request would do. Params without a specific presentation are shown as JSON.
function requestDetails(request) {
  const params = request.params ?? {};
  const parts = [];
  const command = commandOf(params);
  const paragraph = (text, isFaint = false) => parts.push(make("p", { class: isFaint ? "faint" : "", text: escapeInvisible(text) }));
  const block = (text, title = null) => parts.push(make("pre", { class: "command", text: escapeInvisible(text), title }));
  if (params.reason) paragraph(params.reason);
  if (params.message) paragraph(params.message);
  if (params.serverName) paragraph(`requested by the MCP server ${params.serverName}`, true);
  // The user should open the URL before accepting.
  if (params.url) block(params.url);
  // The script is exactly what the shell runs; the title has the whole line.
  if (command) block(scriptOf(command), escapeInvisible(command));
  if (params.cwd) paragraph(`in ${params.cwd}`, true);
  if (params.grantRoot) paragraph(`This also allows later writes to ${params.grantRoot}.`);
  const changes = conversation?.changesOf(request.itemId);
  if (changes) parts.push(changesView(changes.map(fileOfChange)));
  else if (request.method === "item/fileChange/requestApproval") paragraph("The changes are not known here.");
  const isMore = ([name, value]) => value !== null && !SHOWN_PARAMS.has(name) && !ID_PARAMS.has(name);
  const more = Object.entries(params).filter(isMore);
  if (more.length) parts.push(make("pre", { text: escapeInvisible(formatPlain(Object.fromEntries(more))) }));
  return parts;
}

function makeCard(request) {
  const titleId = `title-${request.requestId}`;
  const card = { problem: make("p", { class: "problem", role: "alert", hidden: true }), buttons: [], hasChanges: false };
  const decide = (decision) =>
    make("button", { type: "button", class: buttonClass(decision), text: decisionText(decision, request), onclick: () => answerRequest(card, request, { decision }) });
  card.buttons = sortedDecisions(request.decisions ?? []).map(decide);
  const form = formFor(request);
  if (form) {
    const send = () => answerRequest(card, request, () => ({ result: form.read() }));
    card.buttons.unshift(make("button", { type: "button", class: "main", text: "Answer", onclick: send }));
  }
  card.body = make("div", { class: "request-body" }, ...requestDetails(request));
  card.element = make(
    "article",
    { class: "request", tabindex: "-1", "aria-labelledby": titleId },
    make("h3", { id: titleId, text: titleOf(request) }),
    card.body,
    ...(form?.fields ?? []),
    card.problem,
    make("div", { class: "row decisions" }, ...card.buttons),
    make("p", { class: "faint", text: request.expiresAt ? `Declined automatically at ${minuteTime(request.expiresAt)}.` : "" }),
  );
  return card;
}

async function answerRequest(card, request, answer) {
  show(card.problem, false);
  card.buttons.forEach((button) => { button.disabled = true; });
  try {
    const body = typeof answer === "function" ? answer() : answer;
    await callApi(`${API}/requests/${encodeURIComponent(request.requestId)}`, { body });
    requests.end(request.requestId);
  } catch (error) {
    if (error.code === "already_resolved") {
      requests.end(request.requestId);
      notice("The request was already resolved.");
    } else {
      setText(card.problem, error instanceof IncompleteAnswer ? error.message : messageOf(error));
      show(card.problem, true);
    }
  }
  card.buttons.forEach((button) => { button.disabled = false; });
  drawRequests();
  drawSessions();
  // The focused card was removed. The next card gets the focus, but none of its buttons, since the user has not read it yet.
  if (!requests.pending.has(request.requestId) && document.activeElement === document.body) {
    (byId("requests").querySelector(".request") ?? byId("prompt")).focus();
  }
}

// Holding a key answers only one request.
byId("requests").addEventListener("keydown", (event) => {
  if (event.repeat && event.target instanceof HTMLButtonElement) event.preventDefault();
});

// Draws the cards of the selected session; those of other sessions are counted in the list.
function drawRequests() {
  const mine = [...requests.pending.values()].filter(isShownHere);
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
    // The file changes may arrive after the request.
    const hasChanges = Boolean(conversation?.changesOf(request.itemId));
    if (hasChanges && !card.hasChanges) card.body.replaceChildren(...requestDetails(request));
    card.hasChanges = hasChanges;
  }
  drawWaiting();
}
