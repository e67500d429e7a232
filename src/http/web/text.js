// Texts that grow, and patches in colour.

// How much of one text stands in the page, in characters.
const LONGEST_TEXT = 200_000;
// Where a text is cut into boxes, so that the browser lays out the newest one alone: at the end of a line when there is
// one, else between words, else anywhere.
const BOX_AT_LINE = 2_000;
const BOX_AT_WORD = 8_000;
const BOX_AT_ALL = 16_000;
const LONGEST_PATCH = 2_000;

const grown = new Set();

// Puts what was said since the last frame into the page.
function flushTexts() {
  for (const text of grown) text.flush();
  grown.clear();
}

class GrowingText {
  constructor(place, limit = LONGEST_TEXT) {
    this.place = place;
    this.limit = limit;
    this.clear();
  }

  clear() {
    this.whole = "";
    this.waiting = "";
    this.shown = 0;
    this.dropped = 0;
    this.box = null;
    this.boxLength = 0;
    this.place.replaceChildren();
  }

  append(text) {
    if (!text) return;
    this.whole += text;
    this.waiting += text;
    grown.add(this);
  }

  // Makes the text this one; what stands there already stays.
  become(text) {
    if (text === this.whole) return;
    if (text.startsWith(this.whole)) {
      this.append(text.slice(this.whole.length));
    } else {
      this.clear();
      this.append(text);
    }
  }

  flush() {
    // What would be taken out at once is not put in.
    const excess = this.waiting.length - this.limit;
    if (excess > 0) {
      this.dropped += excess;
      this.waiting = this.waiting.slice(excess);
    }
    while (this.waiting) this.fill();
    this.trim();
  }

  // Adds to the newest box as much as belongs there.
  fill() {
    const end = this.endOfBox();
    const piece = end === null ? this.waiting : this.waiting.slice(0, end);
    if (!this.box) {
      this.box = make("div", {}, "");
      this.boxLength = 0;
      this.place.append(this.box);
    }
    if (!this.box.lastChild) this.box.append("");
    this.box.lastChild.appendData(piece);
    this.boxLength += piece.length;
    this.shown += piece.length;
    this.waiting = this.waiting.slice(piece.length);
    if (end !== null) this.box = null;
  }

  // How much of what waits ends the newest box; null when it goes on.
  endOfBox() {
    const length = this.box ? this.boxLength : 0;
    if (length + this.waiting.length < BOX_AT_LINE) return null;
    const from = Math.max(0, BOX_AT_LINE - length);
    const line = this.waiting.indexOf("\n", from);
    if (line >= 0 && length + line < BOX_AT_WORD) return line + 1;
    if (length + this.waiting.length < BOX_AT_WORD) return null;
    const word = this.waiting.indexOf(" ", Math.max(0, BOX_AT_WORD - length));
    if (word >= 0 && length + word < BOX_AT_ALL) return word + 1;
    if (length + this.waiting.length < BOX_AT_ALL) return null;
    return Math.max(1, BOX_AT_ALL - length);
  }

  trim() {
    while (this.shown > this.limit) {
      const oldest = this.place.querySelector(":scope > div");
      if (!oldest || oldest === this.box) break;
      this.shown -= oldest.textContent.length;
      this.dropped += oldest.textContent.length;
      oldest.remove();
    }
    if (!this.dropped) return;
    let note = this.place.querySelector(":scope > p");
    if (!note) {
      note = make("p", { class: "faint cut" });
      this.place.prepend(note);
    }
    say(note, `${many(this.dropped, "earlier character")} left out here.`);
  }
}

// Colours and cursor movements of a terminal, which mean nothing here.
function withoutEscapes(text) {
  return text.replace(/\u001b\[[0-9;?]*[ -/]*[@-~]|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)/g, "");
}

// `isInHunk`: a line of a file may begin like a head, too.
function kindOfLine(line, isInHunk) {
  if (!isInHunk && (line.startsWith("+++") || line.startsWith("---") || line.startsWith("index "))) return "head";
  if (line.startsWith("diff ")) return "head";
  if (line.startsWith("@@")) return "hunk";
  if (line.startsWith("+")) return "added";
  if (line.startsWith("-")) return "removed";
  return "same";
}

// A patch, line by line; the signs stay, so that nothing depends on colour. `isContent`: it is one hunk without a head.
function patch(text, isContent = false) {
  const lines = text.replace(/\n$/, "").split("\n");
  const box = make("pre", { class: "patch" });
  let isInHunk = isContent;
  for (const line of lines.slice(0, LONGEST_PATCH)) {
    const kind = kindOfLine(line, isInHunk);
    isInHunk = isContent || kind === "hunk" || (isInHunk && kind !== "head");
    box.append(make("span", { class: kind, text: `${line}\n` }));
  }
  if (lines.length > LONGEST_PATCH) {
    box.append(make("span", { class: "head", text: `${many(lines.length - LONGEST_PATCH, "more line")} left out here.\n` }));
  }
  return box;
}

const FILE_WORDS = table({ add: "new file", delete: "removed", update: "changed" });

// One file of a change. A new or removed file comes as its content alone.
function fileChange(change) {
  const kind = change.kind?.type ?? "update";
  const sign = { add: "+", delete: "-" }[kind];
  const diff = change.diff ?? "";
  const text = sign ? diff.replace(/\n$/, "").split("\n").map((line) => sign + line).join("\n") : diff;
  const word = FILE_WORDS[kind] ?? kind;
  const moved = change.kind?.move_path ? ` → ${change.kind.move_path}` : "";
  return make(
    "div",
    { class: "file" },
    make("p", { class: "path" }, make("code", { text: visible(`${change.path}${moved}`) }), ` ${word}`),
    patch(visible(text.replaceAll("\r\n", "\n")), Boolean(sign)),
  );
}
