// The whole conversation at once: its changes, and a Markdown file of it.

// How much of the output of one command the file has.
const MAX_EXPORTED_OUTPUT_CHARS = 20_000;

// The files that the turns on the page have changed, each once, with the lines of the last patch of each turn.
function sessionFiles(it) {
  const files = new Map();
  for (const turn of it.turns.values()) {
    for (const file of turn.files) {
      const before = files.get(file.path) ?? [];
      files.set(file.path, [...before, { ...file, turn }]);
    }
  }
  return [...files.values()].map((versions) => {
    const [first, last] = [versions[0], versions.at(-1)];
    if (versions.length === 1) return last;
    const lines = versions.flatMap(({ turn, lines: own }) => [{ kind: "turn", text: `Turn of ${minuteTime(turn.startedAt)}` }, ...own]);
    const kind = last.kind !== "delete" && first.kind === "add" ? "add" : last.kind;
    return { ...last, kind, from: kind === "rename" ? last.from : null, lines, added: sum(versions, "added"), removed: sum(versions, "removed") };
  });
}

// Draws the button with the sums of the session.
function drawSessionSums() {
  const files = conversation === null ? [] : sessionFiles(conversation);
  const button = byId("show-changes");
  show(button, files.length > 0);
  if (files.length > 0) button.replaceChildren(make("span", { class: "count", text: countText(files) }), " ", sumsOf(files));
}

function openSessionChanges() {
  const files = sessionFiles(conversation);
  const note = "The last patch of each turn; what was changed outside of Codex is not in it.";
  setText(byId("changes-note"), conversation.hasEarlier ? `${note} Earlier turns are not shown.` : note);
  byId("changes").replaceChildren(changesView(files));
  byId("changes-dialog").showModal();
}

// Saves the conversation as a file.
async function exportSession(record) {
  const it = conversation;
  const bounds = await callApi(`${stream.path}?limit=1`);
  const events = await it.readRange(bounds.epoch, Math.max(bounds.oldest - 1, 0), stream.seq);
  // The user may have selected another session meanwhile.
  if (!it.isCurrent) return;
  const name = nameOf(record).toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60) || "session";
  const address = URL.createObjectURL(new Blob([conversationMarkdown(record, events)], { type: "text/markdown" }));
  make("a", { href: address, download: `${name}.md` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
  announce("The conversation is saved as a file.");
}

// A fence is longer than any in the text.
function fenced(text, language) {
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map(([run]) => run.length));
  const fence = "`".repeat(longest + 1);
  return `${fence}${language}\n${text.replace(/\n$/, "")}\n${fence}`;
}

// A conversation as Markdown, from its events.
function conversationMarkdown(record, events) {
  const parts = [`# ${nameOf(record)}`];
  const facts = [["Directory", record.cwd], ["Model", record.model], ["Session", record.sessionId], ["Created", new Date(record.createdAt).toLocaleString()]];
  parts.push(facts.filter(([, value]) => value).map(([name, value]) => `- ${name}: ${escapeInvisible(value)}`).join("\n"));
  // The texts of messages that are not completed.
  const growing = new Map();
  let speaker = null;
  const say = (name, at, text) => {
    if (!text.trim()) return;
    if (speaker !== name) parts.push(`### ${name}, ${new Date(at).toLocaleString()}`);
    speaker = name;
    parts.push(text.trim());
  };
  for (const { type, detail, createdAt } of events) {
    if (detail?.rootThreadId) continue;
    if (type === "app-server.turn.message.delta") growing.set(detail.itemId, (growing.get(detail.itemId) ?? "") + detail.delta);
    const { item } = (detail?.notificationMethod === "item/completed" && detail.params) || {};
    if (item) {
      growing.delete(item.id);
      say(item.type === "userMessage" ? "You" : "Codex", createdAt, itemMarkdown(item));
    }
    if (!TURN_ENDS.has(type)) continue;
    for (const text of growing.values()) say("Codex", createdAt, text);
    growing.clear();
    const error = detail.error?.message ? `: ${detail.error.message}` : "";
    parts.push(`*Turn ${turnStatusText(detail.status ?? "failed")}${error}*`);
    speaker = null;
  }
  for (const text of growing.values()) say("Codex", record.createdAt, text);
  return `${parts.join("\n\n")}\n`;
}

const TURN_ENDS = new Set(["app-server.turn.completed", "app-server.turn.completed.missing", "turn.settled"]);

function itemMarkdown(item) {
  switch (item.type) {
    case "userMessage":
      return textOf(item.content);
    case "agentMessage":
    case "plan":
      return item.text ?? "";
    case "reasoning": {
      const text = [...(item.summary ?? []), ...(item.content ?? [])].map(formatPlain).join("\n\n");
      return text && `<details><summary>Reasoning</summary>\n\n${text}\n\n</details>`;
    }
    case "commandExecution": {
      const output = withoutEscapes(item.aggregatedOutput ?? "").slice(-MAX_EXPORTED_OUTPUT_CHARS).split("\n").map(lastOfLine).join("\n");
      const text = fenced(`$ ${commandText(item)}\n${output}`, "console");
      return hasFailed(item) || item.status === "declined" ? `${text}\n\n*${stateOfCommand(item)}*` : text;
    }
    case "fileChange":
      return sortedFiles((item.changes ?? []).map(fileOfChange)).map((file) => fileMarkdown(file, item.status)).join("\n\n");
    default:
      return fenced(formatPlain(item), "json");
  }
}

function fileMarkdown(file, status) {
  const about = [CHANGE_KIND_TEXTS[file.kind], `+${file.added} −${file.removed}`, status === "completed" ? "" : status].filter(Boolean).join(", ");
  const lines = file.lines.map((line) => (line.kind === "hunk" ? `@@ ${line.text}` : (SIGNS[line.kind] ?? "") + line.text));
  return `**${escapeInvisible(relativePath(file.path))}** (${about})\n\n${fenced(lines.join("\n"), "diff")}`;
}
