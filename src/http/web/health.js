// How the connection and the app-server are, and how often it was started.

const RESTARTS_SHOWN = 200;
const HISTORY_TYPES = ["child.started", "child.exited", "child.error", "child.kill.failed", "child.spawn.failed", "child.backoff", "child.crash_loop", "child.external", "daemon.", "app-server.state.changed", "app-server.restarting", "app-server.connected", "app-server.connect.failed"];
// How often the daemon is asked how it is, in milliseconds: where its log cannot be written, no event tells.
const LOOK = 10_000;
const RATE_SECONDS = 5;

let isLost = false;

const health = {
  child: null,
  service: null,
  restarts: [],
  isHistoryRead: false,
  counts: [],

  hear(event) {
    if (event.type.startsWith("storage.")) later(askStatus);
    if (!HISTORY_TYPES.some((type) => event.type.startsWith(type))) return;
    if (this.isHistoryRead) {
      this.restarts.push(event);
      later(drawRestarts);
    }
    // What the event means for the record is the daemon's to say.
    later(askStatus);
  },

  learn(service, snapshot) {
    this.child = snapshot.daemon.child;
    this.service = service;
    later(drawChild);
  },
};

function askStatus() {
  stream.send({ type: "status" });
}

function showConnection(state, words) {
  const badge = byId("connection");
  const before = badge.dataset.state;
  badge.dataset.state = state;
  // Each try is shown, but only the loss is told, and that it is over.
  if (before === "good" && state !== "good") {
    isLost = true;
    announce("The connection is lost.");
  } else if (state === "good" && isLost) {
    isLost = false;
    announce("Connected again.");
  }
  say(badge, words);
}

const CHILD_WORDS = {
  running: "Codex is up",
  starting: "Codex is being started",
  backoff: "Codex died; it is started again soon",
  crash_loop: "Codex dies again and again",
  stopped: "Codex is stopped",
  external: "Codex is somebody else's process",
};

// Of the states that a person has to do something about.
const CODEX_WORDS = {
  noAccount: "Codex has no account",
  loginRefused: "The login of Codex is refused",
  offline: "Codex reaches no network",
  configBroken: "Codex refuses its configuration",
  tooOld: "Codex is too old",
  slowStart: "Codex starts too slowly",
};

function drawChild() {
  const { child, service } = health;
  if (!child) return;
  const codex = service.codex;
  const isGood = service.ready && codex.state === "ready";
  const isBad = codex.state in CODEX_WORDS || child.state === "crash_loop";
  byId("child-badge").dataset.state = isGood ? "good" : isBad ? "bad" : "wait";
  const words = CODEX_WORDS[codex.state] ?? CHILD_WORDS[child.state] ?? child.state;
  say(byId("child-word"), isGood ? (codex.demo ? "Demo, not Codex" : "Codex is ready") : words);
  const facts = [
    ["State", `${CHILD_WORDS[child.state] ?? child.state}${isGood ? "" : `: ${service.notReadyReason ?? ""}`}`],
    ...(isGood ? [] : [["What to do", codex.command === null ? codex.message : `${codex.message} Type: ${codex.command}`]]),
    ["Command", [child.command, ...(child.args ?? [])].join(" ")],
    ["Process", child.pid === null ? "none" : String(child.pid)],
    ["Started", child.startedAt ? clock(child.startedAt) : "never"],
    ["Start number", String(child.generation)],
    ["Deaths in a row", String(child.deaths)],
  ];
  if (child.nextStartAt) facts.push(["Next start", clock(child.nextStartAt)]);
  if (child.lastError) facts.push(["Last error", child.lastError]);
  if (child.stderrTail?.length) facts.push(["Last words on stderr", child.stderrTail.join("\n")]);
  const list = byId("child-facts");
  list.replaceChildren(...facts.flatMap(([name, value]) => [make("dt", { text: name }), make("dd", { text: value })]));
}

// Starts and ends are rare among the events, so the log is asked only when somebody wants to see them.
async function readRestarts() {
  if (health.isHistoryRead) return;
  const query = new URLSearchParams({ limit: "1000" });
  for (const type of HISTORY_TYPES) query.append("type", type);
  const found = [];
  try {
    health.isHistoryRead = true;
    const upTo = stream.seq;
    for (let isThere = false; !isThere; ) {
      const page = await ask(`${stream.path}?${query}`);
      found.push(...page.events.filter((event) => event.seq <= upTo));
      isThere = partsOf(page.cursor).seq >= Math.min(page.latest, upTo);
      query.set("after", page.cursor);
    }
    health.restarts = [...found, ...health.restarts.filter((event) => event.seq > upTo)];
    drawRestarts();
  } catch (error) {
    health.isHistoryRead = false;
    say(byId("restarts-note"), `They cannot be read: ${reason(error)}`);
  }
}

function drawRestarts() {
  const newest = health.restarts.slice(-RESTARTS_SHOWN).reverse();
  const left = health.restarts.length - newest.length;
  const starts = health.restarts.filter((event) => event.type === "child.started").length;
  say(byId("restarts-note"), `${many(starts, "start")} in the log that is kept.${left > 0 ? ` ${many(left, "older event")} left out here.` : ""}`);
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
  if (isShown) readRestarts();
}

// Once a second: how many events came in the last seconds.
function drawRate() {
  health.counts.push(stream.received);
  if (health.counts.length > RATE_SECONDS + 1) health.counts.shift();
  const seconds = Math.max(1, health.counts.length - 1);
  const rate = (health.counts.at(-1) - health.counts[0]) / seconds;
  say(byId("rate"), `${rate >= 10 || rate === 0 ? Math.round(rate).toLocaleString() : rate.toFixed(1)} events/s`);
}
