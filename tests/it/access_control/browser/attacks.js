// The attacks of a page on a server of another origin.
//
// The test puts `report.js` before this script, and sets in `config`:
//   target  the base URL of the attacked server; null when the host name of this page will resolve to it
//   query   the query string of each request, besides the name of the attack

const base = config.target ?? location.origin;
const STATUS = "/v1/codexd/status";
const SESSIONS = "/v1/codexd/sessions";
const EVENTS = "/v1/codexd/events";
const DECISION = { type: "respond", requestId: "1-1", decision: "accept" };

// Each attack returns the text that it could read, or null; a failure is thrown, or null.
const attacks = {
  "websocket": (at) => socket(at(EVENTS)),
  "websocket-respond": (at, name) => socket(at(EVENTS), JSON.stringify({ ...DECISION, attack: name })),
  "fetch-get": (at) => read(at(STATUS)),
  "fetch-get-credentials": (at) => read(at(STATUS), { credentials: "include" }),
  "fetch-get-header": (at) => read(at(STATUS), { headers: { authorization: "Bearer guess" } }),
  "fetch-post-text": (at, name) => read(at(SESSIONS), post(name)),
  "fetch-post-json": (at, name) => read(at(SESSIONS), post(name, { headers: JSON_TYPE })),
  "fetch-delete": (at) => read(at(SESSIONS + "/some"), { method: "DELETE" }),
  "fetch-no-cors-get": (at) => read(at(STATUS), BLIND),
  "fetch-no-cors-post": (at, name) => read(at(SESSIONS), post(name, BLIND)),
  "fetch-no-cors-post-credentials": (at, name) =>
    read(at(SESSIONS), post(name, { ...BLIND, credentials: "include" })),
  "fetch-no-cors-post-keepalive": (at, name) => read(at(SESSIONS), post(name, { ...BLIND, keepalive: true })),
  "fetch-no-cors-post-no-referrer": (at, name) =>
    read(at(SESSIONS), post(name, { ...BLIND, referrerPolicy: "no-referrer" })),
  "fetch-redirected-post": (at, name) => read(redirected(at(SESSIONS)), post(name, BLIND)),
  "request-post": (at, name) => request(at(SESSIONS), body(name)),
  "beacon-text": (at, name) => beacon(at(SESSIONS), body(name)),
  "beacon-json": (at, name) => beacon(at(SESSIONS), new Blob([body(name)], { type: "application/json" })),
  "form-post": (at, name) => form(at(SESSIONS), name),
  "form-post-no-referrer": (at, name) => form(at(SESSIONS), name, "no-referrer"),
  "form-post-window": (at, name) => opened((made) => submit(at(SESSIONS), name, made)),
  "form-redirected-post": (at, name) => form(redirected(at(SESSIONS)), name),
  "image": (at) => element("img", { src: at(STATUS) }),
  "image-no-referrer": (at) => element("img", { referrerPolicy: "no-referrer", src: at(STATUS) }),
  "image-redirected": (at) => element("img", { src: redirected(at(STATUS)) }),
  "script": (at) => element("script", { src: at(STATUS) }),
  "script-module": (at) => element("script", { type: "module", src: at(STATUS) }),
  "stylesheet": (at) => element("link", { rel: "stylesheet", href: at(STATUS) }),
  "frame": (at) => frame((made) => (made.src = at(STATUS))),
  "event-source": (at) => eventSource(at(EVENTS)),
  "event-source-credentials": (at) => eventSource(at(EVENTS), { withCredentials: true }),
  "window": (at) => opened((made) => window.open(at(STATUS), made)),
};

const JSON_TYPE = { "content-type": "application/json" };
const BLIND = { mode: "no-cors" };
const USUAL_REFERRER = "strict-origin-when-cross-origin";

function body(name) {
  return JSON.stringify({ metadata: { attack: name } });
}

function post(name, more) {
  // A string is sent as text/plain, which needs no preflight.
  return { method: "POST", body: body(name), ...more };
}

function redirected(url) {
  return config.redirect + encodeURIComponent(url);
}

async function read(url, options) {
  const answer = await fetch(url, { cache: "no-store", ...options });
  return answer.type === "opaque" ? null : answer.text();
}

function request(url, text) {
  return new Promise((done) => {
    const sent = new XMLHttpRequest();
    sent.open("POST", url);
    sent.onload = () => done(sent.responseText);
    sent.onerror = () => done(null);
    sent.send(text);
  });
}

function beacon(url, data) {
  if (!navigator.sendBeacon(url, data)) {
    throw new Error("the browser rejects the beacon");
  }
  return null;
}

function socket(url, text) {
  return new Promise((done) => {
    const made = new WebSocket(url.replace(/^http/, "ws"));
    let seen = null;
    made.onopen = () => {
      seen = "opened";
      if (text !== undefined) {
        made.send(text);
      }
    };
    made.onmessage = (message) => {
      seen = message.data;
      made.close();
    };
    made.onclose = () => done(seen);
  });
}

function eventSource(url, options) {
  return new Promise((done) => {
    const source = new EventSource(url, options);
    const end = (seen) => {
      source.close();
      done(seen);
    };
    source.onopen = () => end("opened");
    source.onerror = () => end(null);
  });
}

function element(kind, properties) {
  return new Promise((done) => {
    const made = document.createElement(kind);
    made.onload = made.onerror = () => done(null);
    document.body.append(Object.assign(made, properties));
  });
}

// The text of a new frame after `fill` has loaded a document into it.
function frame(fill) {
  return new Promise((done) => {
    const made = document.createElement("iframe");
    made.name = "frame-" + document.querySelectorAll("iframe").length;
    document.body.append(made);
    // The empty document of a new frame is loaded at this point.
    made.onload = () => done(made.contentDocument?.body?.textContent ?? null);
    fill(made);
  });
}

async function form(url, name, referrerPolicy = USUAL_REFERRER) {
  const policy = document.querySelector("meta[name=referrer]");
  policy.content = referrerPolicy;
  const seen = await frame((made) => submit(url, name, made.name));
  policy.content = USUAL_REFERRER;
  return seen;
}

// A form whose text/plain body, NAME=VALUE and a line end, is the JSON that the server expects.
function submit(url, name, target) {
  const made = document.createElement("form");
  Object.assign(made, { action: url, method: "POST", enctype: "text/plain", target });
  const [start, end] = JSON.stringify({ metadata: { attack: name, rest: "=" } }).split("=");
  const field = Object.assign(document.createElement("input"), { type: "hidden", name: start, value: end });
  made.append(field);
  document.body.append(made);
  made.submit();
}

// The text of a new window after `fill` has loaded a document into it by its name.
async function opened(fill) {
  // The windows of earlier pages are still open, so the name must be new.
  const name = crypto.getRandomValues(new Uint32Array(4)).join("-");
  const shown = window.open("about:blank", name);
  if (shown === null) {
    throw new Error("the browser does not open a window");
  }
  fill(name);
  for (;;) {
    try {
      const { readyState, body } = shown.document;
      if (shown.location.href !== "about:blank" && readyState === "complete") {
        return body.textContent;
      }
    } catch {
      // The document has another origin than this page.
      return null;
    }
    await new Promise((done) => setTimeout(done, 10));
  }
}

async function main() {
  if (config.target === null) {
    // From here on, the host name of this page resolves to the attacked server.
    await fetch("/flip", { method: "POST" });
  }
  await report("begin", { attacks: Object.keys(attacks), origin: self.origin });
  for (const [name, attack] of Object.entries(attacks)) {
    const at = (path) => `${base}${path}?attack=${name}&${config.query}`;
    try {
      await report(name, { read: await attack(at, name) });
    } catch (error) {
      await report(name, { read: null, error: String(error) });
    }
  }
  leave();
}

main();
