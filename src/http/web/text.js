// Texts that grow while they stream, and patches.

// How much of one text the page shows, in characters.
const MAX_TEXT_CHARS = 200_000;
// A text is split into boxes, so that the browser lays out only the newest one. A box ends after this many characters:
// at the end of a line, else at a space, else anywhere.
const BOX_CHARS_AT_LINE = 2_000;
const BOX_CHARS_AT_SPACE = 8_000;
const MAX_BOX_CHARS = 16_000;
const MAX_PATCH_LINES = 2_000;

const grown = new Set();

// Adds the text received since the last frame to the page.
function flushTexts() {
  for (const text of grown) text.flush();
  grown.clear();
}

class GrowingText {
  constructor(container, limit = MAX_TEXT_CHARS) {
    this.container = container;
    this.limit = limit;
    this.clear();
  }

  clear() {
    this.whole = "";
    this.pending = "";
    this.shown = 0;
    this.removedParts = 0;
    this.box = null;
    this.boxLength = 0;
    this.container.replaceChildren();
  }

  append(text) {
    if (!text) return;
    this.whole += text;
    this.pending += text;
    grown.add(this);
  }

  // Replaces the text; a prefix that is already shown stays.
  replace(text) {
    if (text === this.whole) return;
    if (text.startsWith(this.whole)) {
      this.append(text.slice(this.whole.length));
    } else {
      this.clear();
      this.append(text);
    }
  }

  flush() {
    // Text that would be removed at once is not added.
    const excess = this.pending.length - this.limit;
    if (excess > 0) {
      this.removedParts += excess;
      this.pending = this.pending.slice(excess);
    }
    while (this.pending) this.fill();
    this.trim();
  }

  // Adds pending text to the newest box, up to its end.
  fill() {
    const end = this.endOfBox();
    const piece = end === null ? this.pending : this.pending.slice(0, end);
    if (!this.box) {
      this.box = make("div", {}, "");
      this.boxLength = 0;
      this.container.append(this.box);
    }
    if (!this.box.lastChild) this.box.append("");
    this.box.lastChild.appendData(piece);
    this.boxLength += piece.length;
    this.shown += piece.length;
    this.pending = this.pending.slice(piece.length);
    if (end !== null) this.box = null;
  }

  // The number of pending characters up to the end of the newest box; null if the box continues.
  endOfBox() {
    const length = this.box ? this.boxLength : 0;
    if (length + this.pending.length < BOX_CHARS_AT_LINE) return null;
    const from = Math.max(0, BOX_CHARS_AT_LINE - length);
    const line = this.pending.indexOf("\n", from);
    if (line >= 0 && length + line < BOX_CHARS_AT_SPACE) return line + 1;
    if (length + this.pending.length < BOX_CHARS_AT_SPACE) return null;
    const space = this.pending.indexOf(" ", Math.max(0, BOX_CHARS_AT_SPACE - length));
    if (space >= 0 && length + space < MAX_BOX_CHARS) return space + 1;
    if (length + this.pending.length < MAX_BOX_CHARS) return null;
    return Math.max(1, MAX_BOX_CHARS - length);
  }

  trim() {
    while (this.shown > this.limit) {
      const oldest = this.container.querySelector(":scope > div");
      if (!oldest || oldest === this.box) break;
      this.shown -= oldest.textContent.length;
      this.removedParts += oldest.textContent.length;
      oldest.remove();
    }
    if (!this.removedParts) return;
    let note = this.container.querySelector(":scope > p");
    if (!note) {
      note = make("p", { class: "faint cut" });
      this.container.prepend(note);
    }
    setText(note, `${plural(this.removedParts, "earlier character")} not shown.`);
  }
}

// Removes the colours and cursor movements of a terminal.
function withoutEscapes(text) {
  return text.replace(/\u001b\[[0-9;?]*[ -/]*[@-~]|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)/g, "");
}

// `isInHunk`: inside a hunk, a line of the file may begin like a header.
function kindOfLine(line, isInHunk) {
  if (!isInHunk && (line.startsWith("+++") || line.startsWith("---") || line.startsWith("index "))) return "head";
  if (line.startsWith("diff ")) return "head";
  if (line.startsWith("@@")) return "hunk";
  if (line.startsWith("+")) return "added";
  if (line.startsWith("-")) return "removed";
  return "same";
}

// Draws a patch line by line. The signs stay, so that nothing depends on colour. `isContent`: one hunk without a header.
function patch(text, isContent = false) {
  const lines = text.replace(/\n$/, "").split("\n");
  const box = make("pre", { class: "patch" });
  let isInHunk = isContent;
  for (const line of lines.slice(0, MAX_PATCH_LINES)) {
    const kind = kindOfLine(line, isInHunk);
    isInHunk = isContent || kind === "hunk" || (isInHunk && kind !== "head");
    box.append(make("span", { class: kind, text: `${line}\n` }));
  }
  if (lines.length > MAX_PATCH_LINES) {
    box.append(make("span", { class: "head", text: `${plural(lines.length - MAX_PATCH_LINES, "more line")} not shown.\n` }));
  }
  return box;
}

const CHANGE_KIND_TEXTS = lookupTable({ add: "new file", delete: "removed", update: "changed" });

// Draws one file of a change. Codex sends a new or removed file as its content, not as a patch.
function fileChange(change) {
  const kind = change.kind?.type ?? "update";
  const sign = { add: "+", delete: "-" }[kind];
  const diff = change.diff ?? "";
  const text = sign ? diff.replace(/\n$/, "").split("\n").map((line) => sign + line).join("\n") : diff;
  const kindText = CHANGE_KIND_TEXTS[kind] ?? kind;
  const moved = change.kind?.move_path ? ` → ${change.kind.move_path}` : "";
  return make(
    "div",
    { class: "file" },
    make("p", { class: "path" }, make("code", { text: escapeInvisible(`${change.path}${moved}`) }), ` ${kindText}`),
    patch(escapeInvisible(text.replaceAll("\r\n", "\n")), Boolean(sign)),
  );
}
