// The parts of a turn: messages, reasoning, commands and file changes. Each is updated again with the completed item.

const MAX_OUTPUT_CHARS = 20_000;

const textOf = (content) => (content ?? []).map((part) => part.text ?? `[${part.type}] ${part.path ?? part.url ?? part.name ?? ""}`).join("\n");

// Every part has an element, `update(item)` for the current item, and `append(text)` for streamed text.
class MessagePart {
  constructor(kind, title, limit) {
    this.container = make("div", { class: "text" });
    this.element = make("article", { class: `item ${kind}` }, make("h3", { class: "item-title", text: title }), this.container);
    this.text = new GrowingText(this.container, limit);
  }

  append(text) {
    this.text.append(text);
  }
}

class UserMessagePart extends MessagePart {
  constructor() {
    super("user", "You");
  }

  update(item) {
    this.text.replace(textOf(item.content));
  }
}

class AgentMessagePart extends MessagePart {
  constructor() {
    super("agent", "Codex");
  }

  update(item, isComplete) {
    // Only the completed item contains the text.
    if (isComplete && typeof item.text === "string") this.text.replace(item.text);
  }
}

class ProposedPlanPart extends MessagePart {
  constructor() {
    super("agent", "Codex proposes");
  }

  update(item, isComplete) {
    if (isComplete && typeof item.text === "string") this.text.replace(item.text);
  }
}

// Collapsed, because it is long and rarely needed.
class ReasoningPart {
  constructor() {
    this.container = make("div", { class: "text" });
    this.element = make("details", { class: "item reasoning", hidden: true }, make("summary", { text: "Reasoning" }), this.container);
    this.text = new GrowingText(this.container);
  }

  append(text) {
    show(this.element, true);
    this.text.append(text);
  }

  update(item, isComplete) {
    const whole = [...(item.summary ?? []), ...(item.content ?? [])].map(formatPlain).join("\n\n");
    if (!isComplete || !whole) return;
    show(this.element, true);
    this.text.replace(whole);
  }
}

class CommandPart {
  constructor() {
    this.line = make("code", {});
    this.state = make("span", { class: "faint" });
    this.output = make("div", { class: "output", tabindex: "0", role: "group", "aria-label": "Output of the command", hidden: true });
    this.element = make(
      "article",
      { class: "item command" },
      make("h3", { class: "item-title", text: "Command" }),
      make("p", { class: "row" }, this.line, this.state),
      this.output,
    );
    this.text = new GrowingText(this.output, MAX_OUTPUT_CHARS);
    this.followsOutput = true;
    this.lastTop = 0;
  }

  append(text) {
    show(this.output, true);
    this.text.append(withoutEscapes(text));
    runInNextFrame(this.scrollOutput);
  }

  // Keeps the newest output visible, unless the user has scrolled up.
  scrollOutput = () => {
    if (this.output.scrollTop < this.lastTop) this.followsOutput = false;
    const isAtEnd = this.output.scrollHeight - this.output.scrollTop - this.output.clientHeight < NEAR_END_PX;
    if (isAtEnd) this.followsOutput = true;
    if (this.followsOutput) runInNextFrame(() => {
      this.output.scrollTop = this.output.scrollHeight;
      this.lastTop = this.output.scrollTop;
    });
  };

  update(item, isComplete) {
    setText(this.line, escapeInvisible(item.command ?? ""));
    this.line.title = item.cwd ?? "";
    setText(this.state, stateOfCommand(item));
    this.element.dataset.state = item.status ?? "";
    const whole = withoutEscapes(item.aggregatedOutput ?? "");
    if (!isComplete || !whole) return;
    show(this.output, true);
    this.text.replace(whole);
  }
}

function stateOfCommand(item) {
  if (item.status === "inProgress") return "running …";
  const status = { completed: "", failed: "failed", declined: "declined" }[item.status] ?? item.status;
  const code = item.exitCode === null || item.exitCode === undefined ? "" : `exit code ${item.exitCode}`;
  const time = item.durationMs ? `${(item.durationMs / 1000).toFixed(1)} s` : "";
  return [status, code, time].filter(Boolean).join(", ");
}

class FileChangesPart {
  constructor() {
    this.state = make("span", { class: "faint" });
    this.files = make("div", {});
    this.element = make(
      "article",
      { class: "item changes" },
      make("h3", { class: "item-title" }, "File changes · ", this.state),
      this.files,
    );
  }

  append() {}

  update(item) {
    setText(this.state, { inProgress: "in progress", completed: "done", failed: "failed", declined: "declined" }[item.status] ?? item.status ?? "");
    const changes = JSON.stringify(item.changes ?? []);
    if (changes === this.drawn) return;
    this.drawn = changes;
    this.changes = item.changes ?? [];
    this.files.replaceChildren(...this.changes.map(fileChange));
  }
}

// Any other item: its type and its fields as JSON.
class OtherPart {
  constructor(type) {
    this.container = make("pre", {});
    this.element = make("details", { class: "item other" }, make("summary", { text: type }), this.container);
    this.text = new GrowingText(this.container, MAX_OUTPUT_CHARS);
  }

  append(text) {
    this.text.append(text);
  }

  update(item) {
    this.text.replace(formatPlain(item));
  }
}

function makePart(type) {
  switch (type) {
    case "userMessage":
      return new UserMessagePart();
    case "agentMessage":
      return new AgentMessagePart();
    case "plan":
      return new ProposedPlanPart();
    case "reasoning":
      return new ReasoningPart();
    case "commandExecution":
      return new CommandPart();
    case "fileChange":
      return new FileChangesPart();
    default:
      return new OtherPart(type);
  }
}

const STEPS = { completed: "✓", inProgress: "▸", pending: "○" };

// Draws the current plan of a turn.
function drawPlan(container, detail) {
  const steps = (detail.plan ?? []).map((step) =>
    make("li", { "data-state": step.status }, make("span", { "aria-hidden": "true", text: STEPS[step.status] ?? "·" }), ` ${step.step} `, make("span", { class: "visually-hidden", text: step.status })),
  );
  container.replaceChildren(
    make("h3", { class: "item-title", text: "Plan" }),
    ...(detail.explanation ? [make("p", { text: detail.explanation })] : []),
    make("ol", { class: "plan" }, ...steps),
  );
}

function tokenText(usage) {
  const last = usage?.last;
  const total = usage?.total;
  if (!total) return "";
  const number = (value) => (value ?? 0).toLocaleString();
  const context = usage.modelContextWindow ? `, ${Math.min(100, Math.round((100 * (last?.totalTokens ?? 0)) / usage.modelContextWindow))} % of the context` : "";
  return `${number(total.totalTokens)} tokens in this session (${number(total.inputTokens)} in, ${number(total.outputTokens)} out${context})`;
}
