// File changes as a list of files with their sums, each with its lines: of an item, a request, a turn or a session.

// Changes with more lines are folded.
const MAX_OPEN_LINES = 30;
// How many lines of one file the page shows.
const MAX_PATCH_LINES = 2_000;
const MAX_LINE_CHARS = 5_000;
// What the list of files says already.
const HEAD_ROW = /^(?:---|\+\+\+|index|diff|similarity|new file|deleted file|rename) /;
const HUNK = /^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@ ?(.*)$/;
const CHANGE_KIND_TEXTS = lookupTable({ add: "new file", delete: "deleted", update: "", rename: "renamed" });
const SIGNS = lookupTable({ added: "+", removed: "-", same: " " });
const CHANGE_KIND_ORDER = ["delete", "rename", "update", "add"];

// The lines of hunks as {kind, old, now, text}: `kind` is "hunk", "added", "removed", "same", "head" or "turn", and `old` and `now`
// are line numbers. The header of a hunk says how many lines it has, since a line of a file may look like a header.
function hunkLines(rows) {
  const lines = [];
  let old = null;
  let now = null;
  // A change without a header of a hunk is one hunk without numbers.
  const hasHunks = rows.some((row) => row.startsWith("@@") || row.startsWith("diff --git "));
  let [oldLeft, nowLeft] = hasHunks ? [0, 0] : [Infinity, Infinity];
  let isHead = true;
  for (const row of rows) {
    const hunk = HUNK.exec(row);
    const isInHunk = oldLeft > 0 || nowLeft > 0;
    if (!isInHunk && row.startsWith("@@")) {
      isHead = false;
      // A hunk without numbers goes on to the next header.
      [old, now] = hunk ? [Number(hunk[1]), Number(hunk[3])] : [null, null];
      [oldLeft, nowLeft] = hunk ? [Number(hunk[2] ?? 1), Number(hunk[4] ?? 1)] : [Infinity, Infinity];
      // Nothing is left out before the first line of a file.
      const isStart = hunk !== null && lines.length === 0 && old <= 1 && now <= 1;
      if (!isStart) lines.push({ kind: "hunk", text: hunk ? hunk[5] : row.replace(/^@@ ?/, "") });
    } else if (isInHunk && row.startsWith("+")) {
      lines.push({ kind: "added", now, text: row.slice(1) });
      now = next(now);
      nowLeft -= 1;
    } else if (isInHunk && row.startsWith("-")) {
      lines.push({ kind: "removed", old, text: row.slice(1) });
      old = next(old);
      oldLeft -= 1;
    } else if (isInHunk && !row.startsWith("\\")) {
      lines.push({ kind: "same", old, now, text: row.slice(1) });
      [old, now] = [next(old), next(now)];
      oldLeft -= 1;
      nowLeft -= 1;
    } else if (row !== "" && !(isHead && HEAD_ROW.test(row))) {
      lines.push({ kind: "head", text: row });
    }
  }
  return lines;
}

const next = (number) => (number === null ? null : number + 1);

const rowsOf = (text) => text.replaceAll("\r\n", "\n").replace(/\n$/, "").split("\n");

function changedFile(fields, lines) {
  const count = (kind) => lines.reduce((sum, line) => sum + (line.kind === kind ? 1 : 0), 0);
  return { from: null, ...fields, lines, added: count("added"), removed: count("removed") };
}

// The file of one change of an item. Codex sends a new or deleted file as its content, not as a patch.
function fileOfChange(change) {
  const kind = change.kind?.type ?? "update";
  const diff = change.diff ?? "";
  const moved = change.kind?.move_path ?? null;
  const fields = moved ? { path: moved, from: change.path, kind: "rename" } : { path: String(change.path), kind };
  if (kind !== "add" && kind !== "delete") return changedFile(fields, hunkLines(rowsOf(diff)));
  const rows = diff === "" ? [] : rowsOf(diff);
  return changedFile(fields, rows.map((text, at) => (kind === "add" ? { kind: "added", now: at + 1, text } : { kind: "removed", old: at + 1, text })));
}

// The path in a header of git, without its prefix; git quotes a path with special characters.
function gitPath(text) {
  let path = text.replace(/\t.*$/, "");
  if (path.startsWith('"')) {
    const bytes = [];
    const escapes = { n: 10, t: 9, r: 13, a: 7, b: 8, f: 12, v: 11 };
    for (const [, octal, escaped, plain] of path.slice(1, -1).matchAll(/\\([0-7]{3})|\\(.)|([^\\]+)/gsu)) {
      if (octal) bytes.push(Number.parseInt(octal, 8));
      else if (escaped) bytes.push(escapes[escaped] ?? escaped.charCodeAt(0));
      else bytes.push(...new TextEncoder().encode(plain));
    }
    path = new TextDecoder().decode(new Uint8Array(bytes));
  }
  return path === "/dev/null" ? null : path.replace(/^[ab]\//, "");
}

// The files of a patch in the format of git.
function filesOfPatch(text) {
  const files = [];
  let rows = null;
  let left = [0, 0];
  for (const row of rowsOf(text)) {
    const isInHunk = left[0] > 0 || left[1] > 0;
    if (!isInHunk && row.startsWith("diff --git ")) {
      rows = [row];
      files.push(rows);
      continue;
    }
    if (rows === null) files.push((rows = []));
    rows.push(row);
    const hunk = isInHunk ? null : HUNK.exec(row);
    if (hunk) left = [Number(hunk[2] ?? 1), Number(hunk[4] ?? 1)];
    else if (isInHunk && row.startsWith("+")) left[1] -= 1;
    else if (isInHunk && row.startsWith("-")) left[0] -= 1;
    else if (isInHunk && !row.startsWith("\\")) left = [left[0] - 1, left[1] - 1];
  }
  return files.map(fileOfPatch);
}

function fileOfPatch(rows) {
  const firstHunk = rows.findIndex((row) => row.startsWith("@@"));
  const head = firstHunk < 0 ? rows : rows.slice(0, firstHunk);
  const after = (start) => head.find((row) => row.startsWith(start))?.slice(start.length);
  const pathAfter = (start) => (after(start) === undefined ? undefined : gitPath(after(start)));
  const from = pathAfter("rename from ") ?? pathAfter("--- ");
  // Without lines there is only the first header, with the path twice.
  const named = /^(?:"?a\/)(.+) "?b\/\1"?$/s.exec(after("diff --git ") ?? "")?.[1];
  const path = pathAfter("rename to ") ?? pathAfter("+++ ") ?? from ?? named ?? "";
  const isNew = after("new file mode ") !== undefined || from === null;
  const isDeleted = after("deleted file mode ") !== undefined || pathAfter("+++ ") === null;
  const kind = isNew ? "add" : isDeleted ? "delete" : from && from !== path ? "rename" : "update";
  return changedFile({ path, from: kind === "rename" ? from : null, kind }, hunkLines(rows));
}

// A path in the directory of the session is shown relative to it.
function relativePath(path) {
  const cwd = sessions.current?.cwd;
  return cwd && path.startsWith(`${cwd}/`) ? path.slice(cwd.length + 1) : path;
}

const sortedFiles = (files) => [...files].sort((a, b) => CHANGE_KIND_ORDER.indexOf(a.kind) - CHANGE_KIND_ORDER.indexOf(b.kind));

const sum = (files, name) => files.reduce((total, file) => total + file[name], 0);

// The sums as elements. A sum of zero says nothing.
function sumsOf(files) {
  const [added, removed] = [sum(files, "added"), sum(files, "removed")];
  const parts = [];
  if (added > 0) parts.push(make("span", { class: "plus", text: `+${added.toLocaleString()}` }));
  if (removed > 0) parts.push(make("span", { class: "minus", text: `−${removed.toLocaleString()}` }));
  return make("span", { class: "sums" }, ...parts.flatMap((part, at) => (at > 0 ? [" ", part] : [part])));
}

// The number of files and the deleted ones, in words.
function countText(files) {
  const deleted = files.filter((file) => file.kind === "delete").length;
  return `${plural(files.length, "file")}${deleted > 0 && files.length > 1 ? `, ${deleted} deleted` : ""}`;
}

// Draws changed files: the list with sums, the deleted ones first, and the lines of each when it is opened. Few lines are
// open from the start, unless `isFolded`.
function changesView(files, isFolded = false) {
  const sorted = sortedFiles(files);
  const isOpen = !isFolded && (files.length === 1 || sum(files, "added") + sum(files, "removed") <= MAX_OPEN_LINES);
  const list = sorted.map((file) => fileView(file, isOpen));
  if (files.length < 2) return make("div", { class: "diff" }, ...list);
  const head = make("p", { class: "diff-head" }, make("strong", { text: countText(files) }), " ", sumsOf(files));
  return make("div", { class: "diff" }, head, ...list);
}

function fileView(file, isOpen) {
  const shown = escapeInvisible(relativePath(file.path));
  const slash = shown.lastIndexOf("/") + 1;
  const from = file.from ? ` from ${escapeInvisible(relativePath(file.from))}` : "";
  const kindText = `${CHANGE_KIND_TEXTS[file.kind] ?? file.kind}${from}`;
  const name = make("code", { class: "path", title: escapeInvisible(file.path) }, make("span", { class: "directory", text: shown.slice(0, slash) }), shown.slice(slash));
  const about = make("span", { class: "about" }, name, ...(kindText ? [" ", make("span", { class: "kind", text: kindText })] : []));
  const summary = make("summary", {}, about, " ", sumsOf([file]));
  const view = make("details", { class: "file", "data-kind": file.kind, open: isOpen }, summary);
  // A user who opens a file wants all of it.
  const fill = (limit) => {
    if (!view.querySelector(".patch")) view.append(...patchView(file, limit));
  };
  if (isOpen) fill(MAX_OPEN_LINES);
  else view.addEventListener("toggle", () => fill(MAX_PATCH_LINES), { once: true });
  return view;
}

// The lines of a file, at most `limit` of them, and a button that shows the others.
function patchView(file, limit) {
  const box = make("pre", { class: "patch", tabindex: "0", role: "group", "aria-label": `Lines of ${escapeInvisible(relativePath(file.path))}` });
  const lines = file.lines.slice(0, limit);
  const widest = file.lines.reduce((most, line) => Math.max(most, line.old ?? 0, line.now ?? 0), 0);
  box.style.setProperty("--digits", String(widest).length);
  box.append(...patchRows(lines));
  const left = file.lines.length - lines.length;
  const note = file.lines.length === 0 ? "No lines." : left > 0 && limit === MAX_PATCH_LINES ? `${plural(left, "more line")} not shown.` : null;
  if (note) box.append(make("span", { class: "head", text: `${note}\n` }));
  if (left === 0 || limit === MAX_PATCH_LINES) return [box];
  const more = make("button", { type: "button", class: "more", text: plural(left, "more line") });
  more.onclick = () => {
    const [whole] = patchView(file, MAX_PATCH_LINES);
    more.remove();
    box.replaceWith(whole);
    whole.focus();
  };
  return [box, more];
}

// The elements of lines. The signs are text, so that nothing depends on colour; the numbers are not, so that nobody copies them.
function patchRows(lines) {
  const marks = changedWords(lines);
  return lines.map((line, at) => {
    const sign = SIGNS[line.kind] ?? "";
    return make("span", { class: line.kind, "data-old": line.old, "data-now": line.now }, sign, ...wordNodes(line.text, marks.get(at)), "\n");
  });
}

// The changed part of each line that replaces another one: the index of the line to [start, end].
function changedWords(lines) {
  const marks = new Map();
  for (let at = 0; at < lines.length; ) {
    const from = at;
    while (lines[at]?.kind === "removed") at += 1;
    const middle = at;
    while (lines[at]?.kind === "added") at += 1;
    if (middle - from > 0 && middle - from === at - middle) {
      for (let pair = 0; pair < middle - from; pair += 1) {
        const [before, after] = differenceOf(lines[from + pair].text, lines[middle + pair].text) ?? [];
        if (before) marks.set(from + pair, before).set(middle + pair, after);
      }
    }
    if (at === from) at += 1;
  }
  return marks;
}

const isWordSign = (sign) => sign !== undefined && /[\p{L}\p{N}_]/u.test(sign);

// The parts in which two lines differ, in whole words; null if most of both differs.
function differenceOf(before, after) {
  let start = 0;
  while (start < before.length && start < after.length && before[start] === after[start]) start += 1;
  let end = 0;
  while (end < before.length - start && end < after.length - start && before.at(-1 - end) === after.at(-1 - end)) end += 1;
  while (start > 0 && isWordSign(before[start - 1]) && (isWordSign(before[start]) || isWordSign(after[start]))) start -= 1;
  while (end > 0 && isWordSign(before.at(-end)) && (isWordSign(before.at(-end - 1)) || isWordSign(after.at(-end - 1)))) end -= 1;
  const same = (before.slice(0, start) + before.slice(before.length - end)).trim().length;
  if (same * 4 < Math.max(before.trim().length, after.trim().length)) return null;
  return [[start, before.length - end], [start, after.length - end]];
}

function wordNodes(text, mark) {
  if (text.length > MAX_LINE_CHARS) return [escapeInvisible(text.slice(0, MAX_LINE_CHARS)), ` … ${plural(text.length - MAX_LINE_CHARS, "more character")} not shown`];
  if (!mark || mark[0] >= mark[1]) return [escapeInvisible(text)];
  const parts = [text.slice(0, mark[0]), text.slice(...mark), text.slice(mark[1])].map(escapeInvisible);
  return [parts[0], make("b", { text: parts[1] }), parts[2]];
}
