// The parts of a turn: messages, reasoning, commands and file changes. Each is updated again with the completed item.

const MAX_OTHER_CHARS = 20_000;
// Longer commands are folded.
const MAX_COMMAND_LINES = 8;
const MAX_COMMAND_CHARS = 2_000;

const textOf = (content) => (content ?? []).map((part) => part.text ?? `[${part.type}] ${part.path ?? shortUrl(part.url) ?? part.name ?? ""}`.trim()).join("\n");

// A URL that has the data itself, or names a file beside the log, says nothing to a reader.
const shortUrl = (url) => (/^(data|codexd-attachment):/.test(url ?? "") ? "" : url);

// The time of a part; nothing if it is not known.
const timeElement = (at) => (at === null ? "" : make("time", { class: "faint", datetime: at, title: new Date(at).toLocaleString(), text: minuteTime(at) }));

const preciseDuration = (milliseconds) => (milliseconds < 10_000 ? `${(milliseconds / 1_000).toFixed(1)} s` : durationText(Math.floor(milliseconds / 1_000)));

// Every part has an element, `update(item)` for the current item, and `append(text)` for streamed text.
class MessagePart {
  constructor(kind, title, at, makeText) {
    this.container = make("div", { class: "text" });
    this.text = makeText(this.container);
    const head = make("div", { class: "item-head" }, make("h3", { class: "item-title", text: title }), timeElement(at));
    this.element = make("article", { class: `item ${kind}` }, head, this.container);
  }

  append(text) {
    this.text.append(text);
  }
}

class UserMessagePart extends MessagePart {
  constructor(at) {
    super("user", "You", at, (container) => new GrowingText(container));
  }

  update(item) {
    this.text.replace(textOf(item.content));
  }
}

class AgentMessagePart extends MessagePart {
  constructor(at, title = "Codex") {
    super("agent", title, at, markdownIn);
  }

  update(item, isComplete) {
    // Only the completed item contains the text.
    if (isComplete && typeof item.text === "string") this.text.replace(item.text);
  }
}

function markdownIn(container) {
  container.className = "text markdown";
  return new MarkdownText(container);
}

// Collapsed, because it is long and rarely needed; the line shows the heading of its newest section.
class ReasoningPart {
  constructor() {
    this.heading = make("span", {});
    this.container = make("div", {});
    this.element = make("details", { class: "item reasoning", hidden: true }, make("summary", {}, "Reasoning", this.heading), this.container);
    this.text = markdownIn(this.container);
    this.section = 0;
  }

  // `section` is the number of the section of a summary.
  append(text, section = this.section) {
    if (section !== this.section) this.text.append("\n\n");
    this.section = section;
    this.text.append(text);
    this.drawHeading();
  }

  update(item, isComplete) {
    const whole = [...(item.summary ?? []), ...(item.content ?? [])].map(formatPlain).join("\n\n");
    if (!isComplete || !whole) return;
    this.text.replace(whole);
    this.drawHeading();
  }

  drawHeading() {
    show(this.element, true);
    const heading = [...this.text.whole.matchAll(/^\*\*(.{1,200}?)\*\*\s*$/gm)].at(-1)?.[1];
    setText(this.heading, heading ? `: ${heading}` : "");
  }
}

class CommandPart {
  constructor() {
    this.line = make("code", {});
    this.more = make("button", { type: "button", class: "more", hidden: true, text: "Whole command", onclick: () => this.drawLine(true) });
    this.state = make("span", { class: "faint" });
    this.text = new OutputText();
    this.element = make(
      "article",
      { class: "item command" },
      make("h3", { class: "item-title visually-hidden", text: "Command" }),
      make("p", { class: "command-line" }, this.line, this.state),
      this.more,
      ...this.text.elements,
    );
  }

  append(text) {
    this.text.append(text);
  }

  update(item, isComplete) {
    this.item = item;
    this.drawLine(false);
    setText(this.state, stateOfCommand(item));
    this.element.dataset.state = item.status ?? "";
    if (!isComplete) return;
    if (item.aggregatedOutput) this.text.replace(item.aggregatedOutput);
    if (hasFailed(item)) this.text.setOpen(true);
  }

  drawLine(isOpen) {
    const text = escapeInvisible(commandText(this.item));
    const folded = text.split("\n", MAX_COMMAND_LINES).join("\n").slice(0, MAX_COMMAND_CHARS);
    setText(this.line, isOpen ? text : folded);
    const whole = escapeInvisible(this.item.command ?? "").slice(0, MAX_COMMAND_CHARS);
    this.line.title = [whole, this.item.cwd && `in ${escapeInvisible(this.item.cwd)}`].filter(Boolean).join("\n");
    show(this.more, !isOpen && folded.length < text.length);
  }
}

const hasFailed = (item) => item.status === "failed" || (item.exitCode ?? 0) !== 0;

// The command without the shell that runs it. For a shell whose quoting is not known here, Codex may have found it.
function commandText(item) {
  const command = item.command ?? "";
  const script = scriptOf(command);
  const actions = item.commandActions ?? [];
  return script === command && actions.length === 1 ? (actions[0].command ?? command) : script;
}

// The script of a command such as `/bin/bash -lc 'SCRIPT'`, or the whole command. Only quoting that is understood is undone.
function scriptOf(command) {
  const start = /^(?:\/(?:usr\/)?bin\/)?(?:ba|z|da)?sh -l?c (?=\S)/.exec(command);
  if (!start) return command;
  let script = "";
  const rest = command.slice(start[0].length);
  const word = /'([^']*)'|"((?:[^"\\$`!]|\\["\\$`])*)"|([\w@%+=:,./-]+)|\\(['" ])/gy;
  while (word.lastIndex < rest.length) {
    const match = word.exec(rest);
    if (!match) return command;
    script += match[1] ?? match[2]?.replace(/\\(["\\$`])/g, "$1") ?? match[3] ?? match[4];
  }
  return script;
}

function stateOfCommand(item) {
  if (item.status === "inProgress") return "running …";
  const status = { completed: "", failed: "failed", declined: "declined" }[item.status] ?? item.status;
  const code = item.exitCode === null || item.exitCode === undefined || item.exitCode === 0 ? "" : `exit code ${item.exitCode}`;
  const time = item.durationMs ? preciseDuration(item.durationMs) : "";
  return [status, code, time].filter(Boolean).join(", ");
}

const EXPLORING_ACTIONS = ["read", "listFiles", "search"];

// Whether a command only reads, lists or searches files.
const isExploring = (item) =>
  item.type === "commandExecution" && item.commandActions?.length > 0 && item.commandActions.every((action) => EXPLORING_ACTIONS.includes(action.type));

// Commands that only read, one after the other, as one line.
class ExplorationGroup {
  constructor() {
    this.items = new Map();
    this.line = make("span", {});
    this.state = make("span", { class: "faint" });
    this.body = make("div", {});
    this.element = make("details", { class: "item explored" }, make("summary", {}, this.line, this.state), this.body);
  }

  update(item) {
    this.items.set(item.id, item);
    this.draw();
  }

  remove(itemId) {
    this.items.delete(itemId);
    if (this.items.size === 0) this.element.remove();
    else this.draw();
  }

  draw() {
    const items = [...this.items.values()];
    const actions = items.flatMap((item) => item.commandActions);
    setText(this.line, explorationText(actions));
    const isRunning = items.some((item) => item.status === "inProgress");
    const failed = items.filter((item) => item.status === "failed" || item.status === "declined").length;
    setText(this.state, isRunning ? " …" : failed > 0 ? ` ${failed} failed` : "");
  }
}

function explorationText(actions) {
  const of = (type) => actions.filter((action) => action.type === type);
  const files = new Set(of("read").map((action) => action.path ?? action.name ?? action.command));
  const [lists, searches] = [of("listFiles"), of("search")];
  const parts = [];
  const shown = (path) => escapeInvisible(relativePath(String(path)));
  if (files.size === 1) parts.push(`read ${shown([...files][0])}`);
  else if (files.size > 1) parts.push(`read ${files.size} files`);
  if (lists.length === 1) parts.push(`listed ${shown(lists[0].path ?? "the directory")}`);
  else if (lists.length > 1) parts.push(`listed ${lists.length} directories`);
  if (searches.length === 1) parts.push(`searched${searches[0].query ? ` “${escapeInvisible(searches[0].query)}”` : ""}${searches[0].path ? ` in ${shown(searches[0].path)}` : ""}`);
  else if (searches.length > 1) parts.push(`searched ${searches.length} times`);
  const text = parts.join(", ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

class FileChangesPart {
  constructor() {
    this.state = make("span", {});
    this.title = make("h3", { class: "item-title" }, "File changes", this.state);
    this.files = make("div", {});
    this.element = make("article", { class: "item changes" }, this.title, this.files);
  }

  append() {}

  update(item) {
    const isDone = item.status === "completed";
    const state = { inProgress: "in progress", failed: "failed", declined: "declined" }[item.status] ?? item.status ?? "";
    setText(this.state, isDone ? "" : ` · ${state}`);
    // What has been done needs no title.
    this.title.classList.toggle("visually-hidden", isDone);
    this.element.dataset.state = item.status ?? "";
    const drawn = JSON.stringify([item.changes ?? [], isDone]);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    // A change that waits for an approval is shown there; one that was declined is of little interest.
    this.files.replaceChildren(changesView((item.changes ?? []).map(fileOfChange), !isDone));
  }
}

// What other items are about, as one line; the type of an item that is not known.
const OTHER_TITLES = lookupTable({
  mcpToolCall: (item) => `Tool ${item.server}: ${item.tool}`,
  dynamicToolCall: (item) => `Tool ${item.tool}`,
  webSearch: (item) => `Searched the web${item.query ? `: ${item.query}` : ""}`,
  imageView: (item) => `Looked at ${relativePath(String(item.path))}`,
  contextCompaction: () => "The context was compacted",
  enteredReviewMode: (item) => `Review: ${item.review}`,
  exitedReviewMode: () => "The review ended",
});

function otherTitle(item) {
  const state = { inProgress: " …", failed: " (failed)", declined: " (declined)" }[item.status] ?? "";
  return escapeInvisible(`${OTHER_TITLES[item.type]?.(item) ?? item.type}${state}`);
}

// Any other item: a line, and its fields as JSON.
class OtherPart {
  constructor(type) {
    this.container = make("pre", {});
    this.title = make("summary", { text: type });
    this.element = make("details", { class: "item other" }, this.title, this.container);
    this.text = new GrowingText(this.container, MAX_OTHER_CHARS);
  }

  append(text) {
    this.text.append(text);
  }

  update(item) {
    setText(this.title, otherTitle(item));
    this.text.replace(formatPlain(item));
  }
}

function makePart(type, at) {
  switch (type) {
    case "userMessage":
      return new UserMessagePart(at);
    case "agentMessage":
      return new AgentMessagePart(at);
    case "plan":
      return new AgentMessagePart(at, "Codex proposes");
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
    make("li", { "data-state": step.status }, make("span", { class: "mark", "aria-hidden": "true", text: STEPS[step.status] ?? "·" }), ` ${step.step} `, make("span", { class: "visually-hidden", text: step.status })),
  );
  container.replaceChildren(
    make("h3", { class: "item-title", text: "Plan" }),
    ...(detail.explanation ? [make("p", { class: "faint", text: detail.explanation })] : []),
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
