// The state of the connection and of the app-server, and the history of its starts.

const RESTARTS_SHOWN = 200;
const HISTORY_TYPES = ["child.started", "child.exited", "child.error", "child.kill.failed", "child.spawn.failed", "child.backoff", "child.crash_loop", "child.external", "daemon.", "app-server.state.changed", "app-server.restarting", "app-server.restart.waiting", "app-server.installed.changed", "app-server.connected", "app-server.connect.failed"];
// How often the page requests the status, in milliseconds: if the log cannot be written, there are no events.
const STATUS_INTERVAL_MS = 10_000;
// The states of Codex that need nothing of the user, or only time.
const QUIET_STATES = ["ready", "starting", "stopped", "restarting"];
// The share of a limit from which the bar shows it, in percent.
const HIGH_USE_PERCENT = 80;

// When the connection was lost; null if it is not.
let lostAt = null;

const isLost = () => lostAt !== null;

const health = {
  child: null,
  service: null,
  hooks: [],
  restarts: [],
  isHistoryRead: false,

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
    this.version = snapshot.config.version;
    this.startedAt = snapshot.daemon.startedAt;
    this.limits = snapshot.account?.rateLimits ?? null;
    runInNextFrame(drawChild);
    runInNextFrame(drawTrouble);
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
    lostAt = Date.now();
    announce("The connection is lost.");
  } else if (state === "good" && isLost()) {
    lostAt = null;
    announce("Connected again.");
  }
  document.body.toggleAttribute("data-lost", isLost());
  setText(badge, text);
  runInNextFrame(drawTrouble);
  runInNextFrame(drawActivity);
}

// What is wrong and what to do, and the action that helps; null if nothing is.
function trouble() {
  const details = { label: "Details", run: () => toggleHealth(true) };
  if (isLost()) {
    return { text: `No connection to codexd since ${clock(lostAt)}; what this page shows may be old. To see whether it runs, run: codexd status`, label: "Try now", run: () => stream.reconnectNow() };
  }
  const { child, service } = health;
  if (!child || child.state === "starting") return null;
  const { state, message, command } = service.codex;
  const toDo = command === null ? "" : ` Run: ${command}`;
  if (child.state === "crash_loop") {
    const next = child.nextStartAt ? ` It is started again at ${clock(child.nextStartAt)}.` : "";
    return { text: `Codex exits repeatedly. ${child.lastError ?? ""}${next}${toDo || " To find the cause, run: codexd doctor"}`, ...details };
  }
  if (!QUIET_STATES.includes(state)) return { text: message + toDo, ...details };
  if (!service.ready && state === "ready" && service.notReadyReason) return { text: service.notReadyReason, ...details };
  return null;
}

function drawTrouble() {
  const found = trouble();
  show(byId("trouble"), found !== null);
  if (found && !isLost() && byId("trouble-text").textContent !== found.text) announce(found.text);
  setText(byId("trouble-text"), found?.text ?? "");
  setText(byId("trouble-action"), found?.label ?? "");
  byId("trouble-action").onclick = found?.run ?? null;
  drawLimit();
}

// Shows the limit of which most is used.
function drawLimit() {
  const { primary, secondary } = health.limits ?? {};
  const [highest] = [primary, secondary].filter(Boolean).sort((a, b) => b.usedPercent - a.usedPercent);
  const isHigh = (highest?.usedPercent ?? 0) >= HIGH_USE_PERCENT;
  // The app-server's form: minutes, and seconds since 1970.
  const resets = highest?.resetsAt ? `, resets ${minuteTime(highest.resetsAt * 1_000)}` : "";
  setText(byId("limit"), isHigh ? `${windowName(highest.windowDurationMins ?? null)} ${Math.round(highest.usedPercent)} % used${resets}` : "");
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

function keepAwakeText({ state, programs, error }) {
  const names = programs.join(" and ");
  const texts = {
    off: "codexd does not keep the machine awake",
    unavailable: "no program of the system can keep it awake",
    idle: `${names} will keep the machine awake while a turn runs`,
    active: `${names} keeps the machine awake`,
    failed: `the machine may go to sleep during a turn: ${error}`,
  };
  return texts[state] ?? state;
}

function drawChild() {
  const { child, service } = health;
  if (!child) return;
  const codex = service.codex;
  const isGood = service.ready && codex.state === "ready";
  const isBad = !QUIET_STATES.includes(codex.state) || child.state === "crash_loop";
  byId("child-badge").dataset.state = isGood ? "good" : isBad ? "bad" : "wait";
  const text = CODEX_STATE_TEXTS[codex.state] ?? CHILD_STATE_TEXTS[child.state] ?? child.state;
  setText(byId("child-text"), isGood ? (codex.demo ? "Demo, not Codex" : "Codex is ready") : text);
  const facts = [
    ["State", `${CHILD_STATE_TEXTS[child.state] ?? child.state}${isGood ? "" : `: ${service.notReadyReason ?? ""}`}`],
    ...(isGood ? [] : [["What to do", codex.command === null ? codex.message : `${codex.message} Run: ${codex.command}`]]),
    ...codex.notes.map((note) => ["Note", note]),
    ["Command", [child.command, ...(child.args ?? [])].join(" ")],
    ["Process", child.pid === null ? "none" : String(child.pid)],
    ["Version of Codex", codex.demo ? "none: this is the demo" : versionText(child)],
    ["Version of codexd", health.version],
    ["Codex started", child.startedAt ? clock(child.startedAt) : "never"],
    ["codexd started", health.startedAt ? clock(health.startedAt) : ""],
    ["Generation", String(child.generation)],
    ["Consecutive failures", String(child.deaths)],
    ["Sleep", keepAwakeText(service.keepAwake)],
  ];
  if (child.nextStartAt) facts.push(["Next start", clock(child.nextStartAt)]);
  if (child.lastError) facts.push(["Last error", child.lastError]);
  if (child.stderrTail?.length) facts.push(["Last lines of stderr", child.stderrTail.join("\n")]);
  drawFacts(byId("child-facts"), facts);
}

// The name of a limit by its window.
function windowName(minutes) {
  if (minutes === null) return "Limit";
  if (minutes % 1440 === 0) return `${minutes / 1440} d limit`;
  return minutes % 60 === 0 ? `${minutes / 60} h limit` : `${minutes} min limit`;
}

function limitItem(limit, name) {
  const title = [name, windowName(limit.windowMinutes)].filter(Boolean).join(", ");
  const resets = limit.resetsAt === null ? "" : `, resets ${minuteTime(limit.resetsAt)}`;
  return make("li", {}, make("span", { text: title }), make("meter", { min: 0, max: 100, high: HIGH_USE_PERCENT, optimum: 0, value: limit.usedPercent, "aria-label": title }), make("span", { class: "faint", text: `${limit.usedPercent} % used${resets}` }));
}

// The app-server asks its servers for the limits, so they are read when the user opens the panel.
async function readAccount() {
  let facts;
  let limits = [];
  try {
    const { account } = await callApi(`${API}/account`);
    const who = [account.type, account.email, account.planType, account.workspaceName].filter((part) => part !== null);
    const { login } = account;
    limits = (account.rateLimits ?? []).flatMap((limit) => [limit.primary, limit.secondary].filter(Boolean).map((window) => limitItem(window, limit.limitName)));
    facts = [
      ["Account", who.length === 0 ? "none" : who.join(", ")],
      ["Login", login.command === null ? login.message : `${login.message} Run: ${login.command}`],
      ...(account.usage?.lifetimeTokens == null ? [] : [["Usage", `${account.usage.lifetimeTokens.toLocaleString()} tokens`]]),
      ...account.notes.map((note) => ["Note", note]),
    ];
  } catch (error) {
    facts = [["Account", messageOf(error)]];
  }
  drawFacts(byId("account-facts"), facts);
  byId("limits").replaceChildren(...limits);
}

function drawFacts(list, facts) {
  list.replaceChildren(...facts.flatMap(([name, value]) => [make("dt", { text: name }), make("dd", { text: value })]));
}

function hookText({ failing, error, retryAt, deliveredAt }) {
  if (failing || retryAt) return `${failing ? "fails" : "failed"}: ${error}${retryAt ? `; next attempt ${clock(retryAt)}` : ""}`;
  return deliveredAt ? `last delivery ${shortTime(deliveredAt)}` : "no delivery yet";
}

async function readHooks() {
  try {
    health.hooks = (await callApi(`${API}/hooks`)).hooks;
  } catch {
    // The status shows what is wrong with the daemon.
    return;
  }
  byId("hooks").replaceChildren(
    ...health.hooks.map((hook) =>
      make("li", { "data-level": hook.failing ? "error" : hook.retryAt ? "warn" : null }, make("strong", { text: hook.name }), ` ${hookText(hook)} `, make("span", { class: "faint", text: hook.on.join(", ") })),
    ),
  );
  show(byId("no-hooks"), health.hooks.length === 0);
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

function toggleHealth(isShown = byId("health").hidden) {
  byId("show-health").setAttribute("aria-expanded", String(isShown));
  show(byId("health"), isShown);
  if (!isShown) return;
  requestStatus();
  readRestarts();
  readAccount();
  readHooks();
}
