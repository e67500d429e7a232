// Elements, times and numbers. What comes from elsewhere goes into the page as text, never as markup.

const ANNOUNCED = 5;

const byId = (id) => document.getElementById(id);

// An element with its attributes (`class`, `text`, `on…` and any other) and its children.
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

// Writes only what is new: setting the same text again would make a screen reader say it again.
function say(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function show(target, isShown) {
  if (target.hidden === isShown) target.hidden = !isShown;
}

// What a screen reader is told: ends of turns and requests, and nothing of what streams.
// Each has a line of its own, so that two at one moment are both said.
function announce(text) {
  const place = byId("announcer");
  place.append(make("p", { text }));
  while (place.children.length > ANNOUNCED) place.firstChild.remove();
}

function notice(text) {
  const place = byId("notice");
  say(place, text);
  show(place, text !== "");
}

function clock(time) {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return "";
  const isToday = date.toDateString() === new Date().toDateString();
  const hours = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  return isToday ? hours : `${date.toLocaleDateString()} ${hours}`;
}

const many = (count, word) => `${count.toLocaleString()} ${word}${count === 1 ? "" : "s"}`;

const lastPart = (path) => (path || "").split("/").filter(Boolean).pop() || path || "";

// A table to look words up in that come from elsewhere: nothing but what stands in it is found, not even `constructor`.
const table = (entries) => Object.assign(Object.create(null), entries);

// A text with its invisible characters made visible: what somebody is asked to allow must not read as something else.
function visible(text) {
  // Control, format and other characters that have no picture, and two that have an empty one.
  const hidden = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028\u2029\u2800\p{Cf}\p{Default_Ignorable_Code_Point}]/gu;
  return String(text).replace(hidden, (sign) => `\\u{${sign.codePointAt(0).toString(16)}}`);
}

// A plain reading of any value that has no form of its own here.
function plainly(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}
