// Helpers for elements, times and numbers. External text is inserted as text nodes, never as markup.

const MAX_ANNOUNCEMENTS = 5;

const byId = (id) => document.getElementById(id);

// Creates an element with attributes (`class`, `text`, `on…` and any other) and children.
function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "text") made.textContent = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

// Sets a text only if it differs: a screen reader reads a text again whenever it is set.
function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function show(target, isShown) {
  if (target.hidden === isShown) target.hidden = !isShown;
}

// Announces to screen readers: ends of turns, requests and the connection state, but no streamed text.
// Each announcement is a separate line, so that two at the same moment are both read.
function announce(text) {
  const container = byId("announcer");
  container.append(make("p", { text }));
  while (container.children.length > MAX_ANNOUNCEMENTS) container.firstChild.remove();
}

function notice(text) {
  const container = byId("notice");
  setText(container, text);
  show(container, text !== "");
}

function clock(time) {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return "";
  const isToday = date.toDateString() === new Date().toDateString();
  const hours = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  return isToday ? hours : `${date.toLocaleDateString()} ${hours}`;
}

// The time of a past moment, as short as the day allows: 14:05, Tue, 12 Nov, 12/11/2025.
function shortTime(time) {
  const date = new Date(time);
  const now = new Date();
  if (Number.isNaN(date.getTime())) return "";
  if (date.toDateString() === now.toDateString()) return hourText(date);
  if (date < now && now - date < 6 * 86_400_000) return date.toLocaleDateString([], { weekday: "short" });
  return date.toLocaleDateString([], date.getFullYear() === now.getFullYear() ? { day: "numeric", month: "short" } : {});
}

const hourText = (date) => date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

// The time of a moment, to the minute: 14:05, Mon 1 Dec 09:00.
function minuteTime(time) {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return "";
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday ? hourText(date) : `${date.toLocaleDateString([], { weekday: "short", day: "numeric", month: "short", ...(date.getFullYear() === new Date().getFullYear() ? {} : { year: "numeric" }) })} ${hourText(date)}`;
}

const plural = (count, noun) => `${count.toLocaleString()} ${noun}${count === 1 ? "" : "s"}`;

const baseName = (path) => (path || "").split("/").filter(Boolean).pop() || path || "";

// A table without a prototype: a lookup with external text finds only its entries, not `constructor`.
const lookupTable = (entries) => Object.assign(Object.create(null), entries);

// Escapes invisible characters: a request must not look like something else to the user who decides on it.
function escapeInvisible(text) {
  // Control, format and other characters without a glyph, and two with an empty glyph.
  const hidden = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028\u2029\u2800\p{Cf}\p{Default_Ignorable_Code_Point}]/gu;
  return String(text).replace(hidden, (sign) => `\\u{${sign.codePointAt(0).toString(16)}}`);
}

// Formats any value without a specific presentation.
function formatPlain(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}
