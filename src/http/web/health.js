// The state of the connection and of the app-server, and the history of its starts.

const RESTARTS_SHOWN = 200;
const HISTORY_TYPES = ["child.started", "child.exited", "child.error", "child.kill.failed", "child.spawn.failed", "child.backoff", "child.crash_loop", "child.external", "daemon.", "app-server.state.changed", "app-server.restarting", "app-server.restart.waiting", "app-server.installed.changed", "app-server.connected", "app-server.connect.failed"];
// How often the page requests the status, in milliseconds: if the log cannot be written, there are no events.
const STATUS_INTERVAL_MS = 10_000;
const RATE_SECONDS = 5;

let isLost = false;

const health = {
  child: null,
  service: null,
  hooks: [],
  restarts: [],
  isHistoryRead: false,
  counts: [],

  receive(event) {
    if (event.type.startsWith("storage.")) runInNextFrame(requestStatus);
    if (event.type.startsWith("hook.") && !byId("health").hidden) runInNextFrame(readHooks);
    if (!HISTORY_TYPES.some((type) => event.type.startsWith(type))) return;
    if (this.isHistoryRead) {
      this.restarts.push(event);
      runInNextFrame(drawRestarts);
    }
    // The daemon computes the status; the page requests it again.
    runInNextFrame(requestStatus);
  },

  setStatus(service, snapshot) {
    this.child = snapshot.daemon.child;
    this.service = service;
    runInNextFrame(drawChild);
  },
};

function requestStatus() {
  stream.send({ type: "status" });
}

function showConnection(state, text) {
  const badge = byId("connection");
  const before = badge.dataset.state;
  badge.dataset.state = state;
  // Every attempt is shown, but only the loss and the reconnection are announced.
  if (before === "good" && state !== "good") {
    isLost = true;
    announce("The connection is lost.");
  } else if (state === "good" && isLost) {
    isLost = false;
    announce("Connected again.");
  }
  setText(badge, text);
}

const CHILD_STATE_TEXTS = {
  running: "Codex is running",
  starting: "Codex is starting",
  backoff: "Codex exited and will be restarted",
  crash_loop: "Codex exits repeatedly",
  stopped: "Codex is stopped",
  external: "Codex is external",
};

// The states that need an action of the user.
const CODEX_STATE_TEXTS = {
  noAccount: "Codex has no account",
  loginRefused: "Codex's login is rejected",
  offline: "Codex cannot reach the network",
  configBroken: "Codex rejects its configuration",
  tooOld: "Codex is too old",
  slowStart: "Codex starts too slowly",
};

function versionText({ version, installedVersion }) {
  if (version === null) return installedVersion === null ? "unknown" : `none runs, ${installedVersion} is installed`;
  const isOther = installedVersion !== null && installedVersion !== version;
  return isOther ? `${version}, but ${installedVersion} is installed` : version;
}

function drawChild() {
  const { child, service } = health;
  if (!child) return;
  const codex = service.codex;
  const isGood = service.ready && codex.state === "ready";
  const isBad = codex.state in CODEX_STATE_TEXTS || child.state === "crash_loop";
  byId("child-badge").dataset.state = isGood ? "good" : isBad ? "bad" : "wait";
  const text = CODEX_STATE_TEXTS[codex.state] ?? CHILD_STATE_TEXTS[child.state] ?? child.state;
  setText(byId("child-text"), isGood ? (codex.demo ? "Demo, not Codex" : "Codex is ready") : text);
  const facts = [
    ["State", `${CHILD_STATE_TEXTS[child.state] ?? child.state}${isGood ? "" : `: ${service.notReadyReason ?? ""}`}`],
    ...(isGood ? [] : [["What to do", codex.command === null ? codex.message : `${codex.message} Run: ${codex.command}`]]),
    ...codex.notes.map((note) => ["Note", note]),
    ["Command", [child.command, ...(child.args ?? [])].join(" ")],
    ["Process", child.pid === null ? "none" : String(child.pid)],
    ["Version", versionText(child)],
    ["Started", child.startedAt ? clock(child.startedAt) : "never"],
    ["Generation", String(child.generation)],
    ["Consecutive failures", String(child.deaths)],
  ];
  if (child.nextStartAt) facts.push(["Next start", clock(child.nextStartAt)]);
  if (child.lastError) facts.push(["Last error", child.lastError]);
  for (const hook of health.hooks) facts.push([`Hook ${hook.name}`, hookText(hook)]);
  if (child.stderrTail?.length) facts.push(["Last lines of stderr", child.stderrTail.join("\n")]);
  drawFacts(byId("child-facts"), facts);
}

function windowText(limit) {
  if (limit === null) return [];
  const minutes = limit.windowMinutes;
  const length = minutes === null ? "" : minutes % 1440 === 0 ? ` of ${minutes / 1440} d` : minutes % 60 === 0 ? ` of ${minutes / 60} h` : ` of ${minutes} min`;
  return [`${limit.usedPercent} % used${length}${limit.resetsAt === null ? "" : `, until ${new Date(limit.resetsAt).toLocaleString()}`}`];
}

// The app-server asks its servers for the limits, so they are read when the user opens the panel.
async function readAccount() {
  let facts;
  try {
    const { account } = await callApi(`${API}/account`);
    const who = [account.type, account.email, account.planType, account.workspaceName].filter((part) => part !== null);
    const { login } = account;
    const limits = account.rateLimits ?? [];
    facts = [
      ["Account", who.length === 0 ? "none" : who.join(", ")],
      ["Login", login.command === null ? login.message : `${login.message} Run: ${login.command}`],
      ...limits.map((limit) => [`Limit ${limit.limitName ?? limit.limitId ?? ""}`, [...windowText(limit.primary), ...windowText(limit.secondary)].join("; ") || "unknown"]),
      ...(account.usage?.lifetimeTokens == null ? [] : [["Usage", `${account.usage.lifetimeTokens.toLocaleString()} tokens`]]),
      ...account.notes.map((note) => ["Note", note]),
    ];
  } catch (error) {
    facts = [["Account", messageOf(error)]];
  }
  drawFacts(byId("account-facts"), facts);
}

function drawFacts(list, facts) {
  list.replaceChildren(...facts.flatMap(([name, value]) => [make("dt", { text: name }), make("dd", { text: value })]));
}

function hookText({ failing, error, retryAt, deliveredAt, on }) {
  const events = on.join(", ");
  if (failing || retryAt) return `${failing ? "fails" : "failed"}: ${error}${retryAt ? `; next attempt ${clock(retryAt)}` : ""} (${events})`;
  return `${deliveredAt ? `last delivery ${clock(deliveredAt)}` : "no delivery yet"} (${events})`;
}

async function readHooks() {
  try {
    health.hooks = (await callApi(`${API}/hooks`)).hooks;
  } catch {
    // The status shows what is wrong with the daemon.
    return;
  }
  drawChild();
}

// With 0, new turns are accepted until nothing is in progress.
async function restartCodex() {
  const note = byId("restart-note");
  try {
    const { restart } = await callApi(`${API}/app-server/restart`, { body: { drainSeconds: 0 } });
    const isBusy = restart.turns.length + restart.requests.length > 0;
    setText(note, isBusy ? `Codex is restarted when ${plural(restart.turns.length, "turn")} and ${plural(restart.requests.length, "request")} have ended.` : "Codex is being restarted.");
  } catch (error) {
    setText(note, messageOf(error));
  }
  requestStatus();
}

// Starts and exits are rare among the events, so the log is searched only when the user opens the panel.
async function readRestarts() {
  if (health.isHistoryRead) return;
  const query = new URLSearchParams({ limit: "1000" });
  for (const type of HISTORY_TYPES) query.append("type", type);
  const found = [];
  try {
    health.isHistoryRead = true;
    const upTo = stream.seq;
    for (let isComplete = false; !isComplete; ) {
      const page = await callApi(`${stream.path}?${query}`);
      found.push(...page.events.filter((event) => event.seq <= upTo));
      isComplete = partsOf(page.cursor).seq >= Math.min(page.latest, upTo);
      query.set("after", page.cursor);
    }
    health.restarts = [...found, ...health.restarts.filter((event) => event.seq > upTo)];
    drawRestarts();
  } catch (error) {
    health.isHistoryRead = false;
    setText(byId("restarts-note"), `Failed to read the history: ${messageOf(error)}`);
  }
}

function drawRestarts() {
  const newest = health.restarts.slice(-RESTARTS_SHOWN).reverse();
  const left = health.restarts.length - newest.length;
  const starts = health.restarts.filter((event) => event.type === "child.started").length;
  setText(byId("restarts-note"), `${plural(starts, "start")} in the stored log.${left > 0 ? ` ${plural(left, "older event")} not shown.` : ""}`);
  byId("restarts").replaceChildren(
    ...newest.map((event) =>
      make("li", { "data-level": event.level }, make("time", { datetime: event.createdAt, text: clock(event.createdAt) }), ` ${event.message}`),
    ),
  );
}

function toggleHealth() {
  const button = byId("show-health");
  const isShown = button.getAttribute("aria-expanded") !== "true";
  button.setAttribute("aria-expanded", String(isShown));
  show(byId("health"), isShown);
  if (!isShown) return;
  readRestarts();
  readAccount();
  readHooks();
}

// Runs once a second; shows the rate of events over the last seconds.
function drawRate() {
  health.counts.push(stream.received);
  if (health.counts.length > RATE_SECONDS + 1) health.counts.shift();
  const seconds = Math.max(1, health.counts.length - 1);
  const rate = (health.counts.at(-1) - health.counts[0]) / seconds;
  setText(byId("rate"), `${rate >= 10 || rate === 0 ? Math.round(rate).toLocaleString() : rate.toFixed(1)} events/s`);
}
