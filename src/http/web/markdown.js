// Markdown as elements: marked's lexer makes tokens of a text, and this file makes elements of the tokens. No text
// becomes markup: HTML in a message is shown as it is written.

// A longer block is shown as plain text, which grows at a low cost.
const MAX_MARKDOWN_BLOCK_CHARS = 50_000;
const MAX_MARKDOWN_DEPTH = 24;
// The lexer takes quadratic time, and much of the stack, for quotes and lists in each other.
const NESTED_TOO_DEEPLY = /^(?:(?:[ \t]*(?:>|[-*+]|\d{1,9}[.)])){32}|[ \t]{96,}(?:>|[-*+]|\d{1,9}[.)]))/m;
// While a block of code grows, its text after this many characters has no colours yet.
const MAX_GROWING_CODE_CHARS = 8_000;
const MAX_COLOURED_CODE_CHARS = 20_000;
// The patterns of the tokenizer take quadratic time for these.
const SLOW_CODE = /[^\n]{1000}|\s{200}/;
const COPIED_NOTE_MS = 1_500;

const LINK_PROTOCOLS = new Set(["http:", "https:", "mailto:"]);
const ENTITIES = lookupTable({ amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", copy: "©", hellip: "…", mdash: "—", ndash: "–", rarr: "→", times: "×" });
const LANGUAGE_NAMES = lookupTable({
  rust: "rs", javascript: "js", jsx: "js", mjs: "js", typescript: "ts", tsx: "ts", python: "py", sh: "bash", shell: "bash", zsh: "bash", console: "bash",
  golang: "go", yml: "yaml", h: "c", cpp: "c", "c++": "c", cc: "c", hpp: "c", cs: "java", csharp: "java", kotlin: "java", patch: "diff",
  dockerfile: "docker", makefile: "make", svg: "xml", jsonc: "json", postgres: "sql", postgresql: "sql", scss: "css",
});

// The blocks of a text as tokens; `links` has the addresses that blocks before it define, and gets those of this text. A
// block that the lexer cannot handle at a bounded cost has the type "plain".
function markdownBlocks(text, links) {
  const plain = (raw) => ({ type: "plain", raw });
  if (NESTED_TOO_DEEPLY.test(text)) return [plain(text)];
  const lexer = new Marked.Lexer();
  lexer.tokens.links = links;
  try {
    const blocks = lexer.blockTokens(text, []);
    for (const { src, tokens } of lexer.inlineQueue) {
      if (src.length <= MAX_MARKDOWN_BLOCK_CHARS) lexer.inlineTokens(src, tokens);
    }
    return blocks.map((block) => (block.raw.length > MAX_MARKDOWN_BLOCK_CHARS ? plain(block.raw) : block));
  } catch {
    // The stack is too small for the nesting.
    return [plain(text)];
  }
}

function decodeEntities(text) {
  return text.replace(/&(?:#(\d{1,7})|#x([\da-f]{1,6})|([a-z]{2,6}));/gi, (whole, decimal, hex, name) => {
    if (name) return ENTITIES[name] ?? whole;
    const code = decimal ? Number(decimal) : Number.parseInt(hex, 16);
    return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : whole;
  });
}

function isSafeLink(href) {
  try {
    return LINK_PROTOCOLS.has(new URL(href).protocol);
  } catch {
    return false;
  }
}

const linkTo = (href, ...children) => make("a", { href, title: escapeInvisible(href), target: "_blank", rel: "noreferrer noopener" }, ...children);

function inlineNodes(tokens, depth) {
  if (depth > MAX_MARKDOWN_DEPTH) return (tokens ?? []).map((token) => token.raw);
  return (tokens ?? []).map((token) => inlineNode(token, depth + 1));
}

function inlineNode(token, depth) {
  switch (token.type) {
    case "strong":
    case "em":
    case "del":
      return make(token.type, {}, ...inlineNodes(token.tokens, depth));
    case "codespan":
      return make("code", { text: token.text });
    case "br":
      return make("br");
    case "escape":
      return token.text;
    case "link":
      // The lexer makes links of bare addresses too. A path of a file is no address.
      if (isSafeLink(token.href)) return linkTo(token.href, ...inlineNodes(token.tokens, depth));
      return make("code", { title: escapeInvisible(token.href), text: token.text });
    case "image":
      if (isSafeLink(token.href)) return linkTo(token.href, `Image: ${token.text || token.href}`);
      return make("code", { text: token.raw });
    case "checkbox":
      return "";
    case "html":
      return token.raw;
    default:
      return token.tokens ? make("span", {}, ...inlineNodes(token.tokens, depth)) : decodeEntities(token.raw);
  }
}

// Makes elements of blocks. `levels` has the depths of the headings above, so that no level of heading is left out.
class MarkdownBuilder {
  constructor(levels, isGrowing) {
    this.levels = levels;
    this.isGrowing = isGrowing;
  }

  block(token, depth = 0) {
    if (depth > MAX_MARKDOWN_DEPTH) return make("p", { text: token.raw });
    switch (token.type) {
      case "space":
      case "def":
      case "checkbox":
        return null;
      case "heading":
        return make(`h${this.headingLevel(token.depth)}`, { "data-depth": token.depth }, ...inlineNodes(token.tokens, depth));
      case "paragraph":
      case "text":
        return make("p", {}, ...(token.tokens ? inlineNodes(token.tokens, depth) : [token.text]));
      case "code":
        return codeBlock(token.text, token.lang ?? "", this.isGrowing);
      case "blockquote":
        return make("blockquote", {}, ...this.blocks(token.tokens, depth + 1));
      case "hr":
        return make("hr");
      case "list":
        return this.list(token, depth + 1);
      case "table":
        return this.table(token, depth + 1);
      case "plain":
        return plainBlock(token.raw).element;
      default:
        return make("p", { class: "raw", text: token.raw.trimEnd() });
    }
  }

  blocks(tokens, depth) {
    return tokens.map((token) => this.block(token, depth)).filter(Boolean);
  }

  // The title of a message is an h3.
  headingLevel(depth) {
    while (this.levels.length > 0 && this.levels.at(-1) >= depth) this.levels.pop();
    this.levels.push(depth);
    return Math.min(3 + this.levels.length, 6);
  }

  list(token, depth) {
    const start = token.ordered && token.start !== 1 ? token.start : null;
    const items = token.items.map((item) => {
      // A list item without blank lines has no paragraphs.
      const content = item.tokens.flatMap((child) => (child.type === "text" ? inlineNodes(child.tokens ?? [child], depth) : [this.block(child, depth)].filter(Boolean)));
      const box = item.task ? [make("span", { class: "task", role: "img", "aria-label": item.checked ? "done" : "not done", text: item.checked ? "☑" : "☐" }), " "] : [];
      return make("li", { class: item.task ? "has-task" : null }, ...box, ...content);
    });
    return make(token.ordered ? "ol" : "ul", { start }, ...items);
  }

  table(token, depth) {
    const cells = (name, row) => row.map((cell, at) => make(name, { class: token.align[at] }, ...inlineNodes(cell.tokens, depth)));
    const head = make("thead", {}, make("tr", {}, ...cells("th", token.header)));
    const body = make("tbody", {}, ...token.rows.map((row) => make("tr", {}, ...cells("td", row))));
    return make("div", { class: "table", tabindex: "0", role: "group", "aria-label": "Table" }, make("table", {}, head, body));
  }
}

// A text that is too long for Markdown, and its element.
function plainBlock(text, limit = MAX_TEXT_CHARS) {
  const element = make("div", { class: "plain" });
  const growing = new GrowingText(element, limit);
  growing.append(text);
  growing.flush();
  return { element, growing };
}

// A block of code with its language and a button that copies it.
function codeBlock(text, info, isGrowing) {
  const language = info.trim().split(/\s/)[0].toLowerCase();
  const code = make("code");
  fillCode(code, text, language, isGrowing ? MAX_GROWING_CODE_CHARS : MAX_COLOURED_CODE_CHARS);
  const pre = make("pre", { tabindex: "0", role: "group", "aria-label": language ? `Code, ${language}` : "Code" }, code);
  // The block may have grown when the button is used.
  const copy = make("button", { type: "button", class: "copy", text: "Copy", onclick: () => copyText(copy, copy.closest(".code").querySelector("code").textContent) });
  return make("div", { class: "code" }, make("div", { class: "code-head" }, make("span", { text: language }), copy), pre);
}

// Fills an element with the code, in colours up to the last line within `limit` characters.
function fillCode(target, text, language, limit) {
  const name = Object.hasOwn(SpeedHighlight.languages, language) ? language : LANGUAGE_NAMES[language];
  const end = text.length <= limit ? text.length : text.lastIndexOf("\n", limit) + 1;
  if (name && end > 0 && !SLOW_CODE.test(text)) {
    const add = (piece, kind) => piece && target.append(kind ? make("span", { class: `code-${kind}`, text: piece }) : piece);
    SpeedHighlight.tokenizeWith(text.slice(0, end), SpeedHighlight.languages[name], add, { languages: SpeedHighlight.languages });
    target.append(text.slice(end));
  } else {
    target.append(text);
  }
}

async function copyText(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    setText(button, "Copied");
    announce("Copied.");
  } catch {
    // Without TLS, a browser has no clipboard for a page of another machine.
    setText(button, "Not copied");
  }
  setTimeout(() => setText(button, "Copy"), COPIED_NOTE_MS);
}

// Changes `old` so that it equals `wanted`, and returns the node that is in the page then. What is equal stays: selected
// text, a scroll position and the focus.
function becomeNode(old, wanted) {
  if (old.nodeType === Node.TEXT_NODE && wanted.nodeType === Node.TEXT_NODE) {
    if (wanted.data.startsWith(old.data)) old.appendData(wanted.data.slice(old.data.length));
    else old.data = wanted.data;
    return old;
  }
  const isAlike = old.nodeName === wanted.nodeName && old.nodeType === Node.ELEMENT_NODE && old.attributes.length === wanted.attributes.length;
  if (!isAlike || [...wanted.attributes].some(({ name, value }) => old.getAttribute(name) !== value)) {
    old.replaceWith(wanted);
    return wanted;
  }
  const [before, after] = [[...old.childNodes], [...wanted.childNodes]];
  after.forEach((child, at) => (at < before.length ? becomeNode(before[at], child) : old.append(child)));
  for (const child of before.slice(after.length)) child.remove();
  return old;
}

// A Markdown text that grows while it streams. Only its last block is drawn again.
class MarkdownText extends RedrawnText {
  constructor(container, limit = MAX_TEXT_CHARS) {
    super();
    this.container = container;
    this.limit = limit;
    this.clear();
  }

  clear() {
    this.whole = "";
    // Where the last block begins, the blocks before it as [element, length], and the elements of the last one.
    this.tailStart = 0;
    this.done = [];
    this.tail = [];
    this.levels = [];
    this.links = Object.create(null);
    this.shownFrom = 0;
    // From a block that is too long, the text is plain.
    this.plain = null;
    this.isComplete = false;
    this.container.replaceChildren();
  }

  append(text) {
    if (!text) return;
    const added = text.replace(/\r\n?/g, "\n");
    this.whole += added;
    if (this.plain) this.plain.append(added);
    else grown.add(this);
  }

  // No text follows.
  finish() {
    if (this.isComplete) return;
    this.isComplete = true;
    if (!this.plain) this.drawSoon();
  }

  // Sets the completed text; a beginning that is already shown stays.
  replace(text) {
    const whole = text.replace(/\r\n?/g, "\n");
    if (!whole.startsWith(this.whole)) this.clear();
    this.append(whole.slice(this.whole.length));
    this.finish();
  }

  draw() {
    // A draw may have been due when the text became plain.
    if (this.plain) return;
    // Text that would be removed at once is not drawn.
    const excess = this.whole.length - this.limit;
    if (this.done.length === 0 && excess > this.tailStart) this.shownFrom = this.tailStart = excess;
    const blocks = markdownBlocks(this.whole.slice(this.tailStart), this.links);
    // The lexer may count a blank at the end of a list differently; then all blocks are drawn again.
    const length = blocks.reduce((sum, token) => sum + token.raw.length, 0);
    const last = length === this.whole.length - this.tailStart ? lastBlockAt(blocks) : 0;
    const tail = [];
    blocks.forEach((token, at) => {
      if (at < last) {
        const element = this.place(new MarkdownBuilder(this.levels, false).block(token));
        this.done.push([element, token.raw.length]);
        this.tailStart += token.raw.length;
      } else if (!this.plain) {
        const element = this.place(token.type === "plain" ? this.startPlain() : new MarkdownBuilder([...this.levels], !this.isComplete).block(token));
        if (element) tail.push(element);
      }
    });
    for (const old of this.tail) old.remove();
    this.tail = tail;
    this.trim();
  }

  // The last block is too long for Markdown: it is plain, and what follows is added to it.
  startPlain() {
    const { element, growing } = plainBlock(this.whole.slice(this.tailStart), this.limit);
    this.plain = growing;
    return element;
  }

  // Puts an element after the completed ones, in the place of one of the last block if there is one.
  place(element) {
    if (element === null) return null;
    const old = this.tail.shift();
    if (old) return becomeNode(old, element);
    this.container.append(element);
    return element;
  }

  // Removes the oldest blocks above the limit.
  trim() {
    while (this.whole.length - this.shownFrom > this.limit && this.done.length > 0) {
      const [element, length] = this.done.shift();
      element?.remove();
      this.shownFrom += length;
    }
    if (this.shownFrom > 0) noteRemovedText(this.container, this.shownFrom);
  }
}

// The index of the block that may still change: the last one, and the one before it if the last one may join it.
function lastBlockAt(blocks) {
  const before = (at) => {
    while (at > 0 && blocks[at].type === "space") at -= 1;
    return at;
  };
  const last = before(blocks.length - 1);
  return last > 0 && /^\s*(?:\d{1,9}[.)]?|[-+*>|#=]{1,3})?\s*$/.test(blocks[last].raw) ? before(last - 1) : last;
}
