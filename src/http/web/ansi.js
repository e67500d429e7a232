// The output of commands: colours of a terminal as classes, other control sequences removed.

// Sequences of ECMA-48: SGR, other CSI, strings such as titles, other escapes.
const SEQUENCE = /\u001b\[([\d;:]*)m|\u001b\[[0-?]*[ -/]*[@-~]|\u001b[\]PX^_][^\u0007\u001b]{0,4096}(?:\u0007|\u001b\\)|\u001b[ -/]*[0-Z\\^-~]/g;
// One at the end that is not complete yet.
const UNFINISHED_SEQUENCE = /\u001b(?:\[[0-?]{0,64}[ -/]{0,8}|\][^\u0007\u001b]{0,64})?$/;

const plainStyle = () => ({ colour: null, isBold: false, isDim: false });

// Splits a text into [text, class] by its colours; `style` is that of its beginning, and then that of its end.
function colouredPieces(text, style = plainStyle()) {
  const pieces = [];
  let at = 0;
  const add = (piece) => piece && pieces.push([piece, classOf(style)]);
  for (const match of text.matchAll(SEQUENCE)) {
    add(text.slice(at, match.index));
    at = match.index + match[0].length;
    if (match[1] !== undefined) applyCodes(style, match[1].split(/[;:]/).map(Number));
  }
  add(text.slice(at));
  return pieces;
}

const classOf = ({ colour, isBold, isDim }) => [colour === null ? "" : `ansi-${colour}`, isBold ? "ansi-bold" : "", isDim ? "ansi-dim" : ""].filter(Boolean).join(" ");

// Applies the codes of one SGR sequence. Only the 16 named colours of the text have a class.
function applyCodes(style, codes) {
  for (let at = 0; at < codes.length; at += 1) {
    const code = codes[at];
    if (code === 0) Object.assign(style, plainStyle());
    else if (code === 1) style.isBold = true;
    else if (code === 2) style.isDim = true;
    else if (code === 22) style.isBold = style.isDim = false;
    else if (code >= 30 && code <= 37) style.colour = code - 30;
    else if (code >= 90 && code <= 97) style.colour = code - 82;
    else if (code === 39) style.colour = null;
    else if (code === 38 || code === 48) {
      const isIndex = codes[at + 1] === 5;
      if (code === 38) style.colour = isIndex && codes[at + 2] < 16 ? codes[at + 2] : null;
      at += isIndex ? 2 : 4;
    }
  }
}

const withoutEscapes = (text) => text.replace(SEQUENCE, "");

// A line that was written over, such as one of a progress bar, shows what was written last.
function lastOfLine(line) {
  const written = line.replace(/\r+$/, "");
  return written.slice(written.lastIndexOf("\r") + 1);
}

// How much of an output the page keeps, and how many of its last lines are shown while it is folded.
const MAX_OUTPUT_CHARS = 20_000;
const FOLDED_LINES = 8;

// The output of a command: its last lines, or all of it.
class OutputText extends RedrawnText {
  constructor() {
    super();
    this.container = make("div", { class: "output", tabindex: "0", role: "group", "aria-label": "Output of the command", hidden: true });
    this.more = make("button", { type: "button", class: "more", hidden: true, "aria-expanded": "false", onclick: () => this.setOpen(!this.isOpen) });
    this.elements = [this.more, this.container];
    this.whole = "";
    this.removed = 0;
    this.isOpen = false;
    this.followsEnd = true;
    this.lastTop = 0;
  }

  append(text) {
    if (!text) return;
    this.whole += text;
    grown.add(this);
  }

  replace(text) {
    if (text === this.whole) return;
    this.whole = text;
    this.removed = 0;
    this.drawSoon();
  }

  setOpen(isOpen) {
    if (isOpen === this.isOpen) return;
    this.isOpen = isOpen;
    this.drawSoon();
  }

  draw() {
    const excess = this.whole.length - MAX_OUTPUT_CHARS;
    if (excess > 0) {
      this.removed += excess;
      this.whole = this.whole.slice(excess);
    }
    const lines = this.whole.replace(UNFINISHED_SEQUENCE, "").replace(/\n$/, "").split("\n");
    const hidden = Math.max(0, lines.length - FOLDED_LINES);
    const from = this.isOpen ? 0 : hidden;
    const style = plainStyle();
    colouredPieces(lines.slice(0, from).join("\n"), style);
    const text = lines.slice(from).map((line) => `${lastOfLine(line)}\n`).join("");
    const pieces = colouredPieces(text, style).map(([piece, kind]) => (kind ? make("span", { class: kind, text: piece }) : piece));
    this.container.replaceChildren(...pieces);
    if (this.isOpen && this.removed > 0) noteRemovedText(this.container, this.removed);
    show(this.container, this.whole !== "");
    show(this.more, hidden > 0);
    setText(this.more, this.isOpen ? "Fewer lines" : plural(hidden, "more line"));
    this.more.setAttribute("aria-expanded", String(this.isOpen));
    if (this.isOpen) this.scroll();
  }

  // Keeps the newest output visible, unless the user has scrolled up.
  scroll() {
    const { container } = this;
    if (container.scrollTop < this.lastTop) this.followsEnd = false;
    if (container.scrollHeight - container.scrollTop - container.clientHeight < NEAR_END_PX) this.followsEnd = true;
    if (this.followsEnd) container.scrollTop = container.scrollHeight;
    this.lastTop = container.scrollTop;
  }
}
