// Plain texts that grow while they stream.

// How much of one text the page shows, in characters.
const MAX_TEXT_CHARS = 200_000;
// A text is split into boxes, so that the browser lays out only the newest one. A box ends after this many characters:
// at the end of a line, else at a space, else anywhere.
const BOX_CHARS_AT_LINE = 2_000;
const BOX_CHARS_AT_SPACE = 8_000;
const MAX_BOX_CHARS = 16_000;

const grown = new Set();

// How long one frame may add text, in milliseconds.
const FLUSH_WORK_MS = 12;

// Adds the text received since the last frame to the page, the newest part first; what takes too long is added in the
// next frame.
function flushTexts() {
  const end = performance.now() + FLUSH_WORK_MS;
  for (const text of [...grown].reverse()) {
    grown.delete(text);
    text.flush();
    if (performance.now() > end) break;
  }
  if (grown.size > 0) schedule();
}

// Says at the top of a text how much of its beginning is not shown.
function noteRemovedText(container, count) {
  let note = container.querySelector(":scope > .cut");
  if (!note) {
    note = make("p", { class: "faint cut" });
    container.prepend(note);
  }
  setText(note, `${plural(count, "earlier character")} not shown.`);
}

// A growing text is redrawn at most this often; after a draw that took long, the next one is later.
const DRAW_INTERVAL_MS = 120;
const DRAW_COST_FACTOR = 8;

// A text whose `draw()` costs more than adding the new text.
class RedrawnText {
  drawAt = 0;
  timer = null;

  // Draws in the next frame.
  drawSoon() {
    this.drawAt = 0;
    grown.add(this);
    schedule();
  }

  flush() {
    const now = performance.now();
    if (now < this.drawAt) {
      this.timer ??= setTimeout(() => {
        this.timer = null;
        grown.add(this);
        schedule();
      }, this.drawAt - now);
      return;
    }
    this.draw();
    this.drawAt = now + Math.max(DRAW_INTERVAL_MS, DRAW_COST_FACTOR * (performance.now() - now));
  }
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
    if (this.removedParts) noteRemovedText(this.container, this.removedParts);
  }
}
