// The parts of a turn: what was said, thought, done and changed. Each takes its item again when that is complete.

const LONGEST_OUTPUT = 20_000;

const textOf = (content) => (content ?? []).map((part) => part.text ?? `[${part.type}] ${part.path ?? part.url ?? part.name ?? ""}`).join("\n");

// What every part has: an element, `take(item)` for the item as it is now, and `append(text)` for what streams.
class Said {
  constructor(kind, name, limit) {
    this.place = make("div", { class: "words" });
    this.element = make("article", { class: `item ${kind}` }, make("h3", { class: "who", text: name }), this.place);
    this.text = new GrowingText(this.place, limit);
  }

  append(text) {
    this.text.append(text);
  }
}

class UserMessage extends Said {
  constructor() {
    super("user", "You");
  }

  take(item) {
    this.text.become(textOf(item.content));
  }
}

class AgentMessage extends Said {
  constructor() {
    super("agent", "Codex");
  }

  take(item, isComplete) {
    // The whole text comes at the end again; until then the item has none.
    if (isComplete && typeof item.text === "string") this.text.become(item.text);
  }
}

class ProposedPlan extends Said {
  constructor() {
    super("agent", "Codex proposes");
  }

  take(item, isComplete) {
    if (isComplete && typeof item.text === "string") this.text.become(item.text);
  }
}

// Folded, because it is long and seldom what somebody looks for.
class Reasoning {
  constructor() {
    this.place = make("div", { class: "words" });
    this.element = make("details", { class: "item reasoning", hidden: true }, make("summary", { text: "Reasoning" }), this.place);
    this.text = new GrowingText(this.place);
  }

  append(text) {
    show(this.element, true);
    this.text.append(text);
  }

  take(item, isComplete) {
    const whole = [...(item.summary ?? []), ...(item.content ?? [])].map(plainly).join("\n\n");
    if (!isComplete || !whole) return;
    show(this.element, true);
    this.text.become(whole);
  }
}

class Command {
  constructor() {
    this.line = make("code", {});
    this.state = make("span", { class: "faint" });
    this.output = make("div", { class: "output", tabindex: "0", role: "group", "aria-label": "Output of the command", hidden: true });
    this.element = make(
      "article",
      { class: "item command" },
      make("h3", { class: "who", text: "Command" }),
      make("p", { class: "row" }, this.line, this.state),
      this.output,
    );
    this.text = new GrowingText(this.output, LONGEST_OUTPUT);
    this.isFollowed = true;
    this.lastTop = 0;
  }

  append(text) {
    show(this.output, true);
    this.text.append(withoutEscapes(text));
    later(this.follow);
  }

  // What comes stays in sight, unless somebody looks at what came before.
  follow = () => {
    if (this.output.scrollTop < this.lastTop) this.isFollowed = false;
    const isAtEnd = this.output.scrollHeight - this.output.scrollTop - this.output.clientHeight < NEAR_END;
    if (isAtEnd) this.isFollowed = true;
    if (this.isFollowed) later(() => {
      this.output.scrollTop = this.output.scrollHeight;
      this.lastTop = this.output.scrollTop;
    });
  };

  take(item, isComplete) {
    say(this.line, visible(item.command ?? ""));
    this.line.title = item.cwd ?? "";
    say(this.state, stateOfCommand(item));
    this.element.dataset.state = item.status ?? "";
    const whole = withoutEscapes(item.aggregatedOutput ?? "");
    if (!isComplete || !whole) return;
    show(this.output, true);
    this.text.become(whole);
  }
}

function stateOfCommand(item) {
  if (item.status === "inProgress") return "not done yet …";
  const words = { completed: "", failed: "failed", declined: "declined" }[item.status] ?? item.status;
  const code = item.exitCode === null || item.exitCode === undefined ? "" : `exit code ${item.exitCode}`;
  const time = item.durationMs ? `${(item.durationMs / 1000).toFixed(1)} s` : "";
  return [words, code, time].filter(Boolean).join(", ");
}

class FileChanges {
  constructor() {
    this.state = make("span", { class: "faint" });
    this.files = make("div", {});
    this.element = make(
      "article",
      { class: "item changes" },
      make("h3", { class: "who" }, "Change of files · ", this.state),
      this.files,
    );
  }

  append() {}

  take(item) {
    say(this.state, { inProgress: "not done yet", completed: "done", failed: "failed", declined: "declined" }[item.status] ?? item.status ?? "");
    const changes = JSON.stringify(item.changes ?? []);
    if (changes === this.drawn) return;
    this.drawn = changes;
    this.changes = item.changes ?? [];
    this.files.replaceChildren(...this.changes.map(fileChange));
  }
}

// Everything that has no form of its own here: its type and its plain fields.
class Other {
  constructor(type) {
    this.place = make("pre", {});
    this.element = make("details", { class: "item other" }, make("summary", { text: type }), this.place);
    this.text = new GrowingText(this.place, LONGEST_OUTPUT);
  }

  append(text) {
    this.text.append(text);
  }

  take(item) {
    this.text.become(plainly(item));
  }
}

function makeItem(type) {
  switch (type) {
    case "userMessage":
      return new UserMessage();
    case "agentMessage":
      return new AgentMessage();
    case "plan":
      return new ProposedPlan();
    case "reasoning":
      return new Reasoning();
    case "commandExecution":
      return new Command();
    case "fileChange":
      return new FileChanges();
    default:
      return new Other(type);
  }
}

const STEPS = { completed: "✓", inProgress: "▸", pending: "○" };

// The plan of a turn as it is now.
function drawPlan(place, detail) {
  const steps = (detail.plan ?? []).map((step) =>
    make("li", { "data-state": step.status }, make("span", { "aria-hidden": "true", text: STEPS[step.status] ?? "·" }), ` ${step.step} `, make("span", { class: "unseen", text: step.status })),
  );
  place.replaceChildren(
    make("h3", { class: "who", text: "Plan" }),
    ...(detail.explanation ? [make("p", { text: detail.explanation })] : []),
    make("ol", { class: "plan" }, ...steps),
  );
}

function tokenWords(usage) {
  const last = usage?.last;
  const total = usage?.total;
  if (!total) return "";
  const number = (value) => (value ?? 0).toLocaleString();
  const room = usage.modelContextWindow ? `, ${Math.min(100, Math.round((100 * (last?.totalTokens ?? 0)) / usage.modelContextWindow))} % of the context` : "";
  return `${number(total.totalTokens)} tokens in this session (${number(total.inputTokens)} in, ${number(total.outputTokens)} out${room})`;
}
