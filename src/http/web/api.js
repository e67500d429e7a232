// What the page asks the daemon, and the token that it needs for that.

const API = "/v1/codexd";
const TOKEN_NAME = "codexd.token";

// The token stays out of every address; it is kept for this tab alone unless the user wants it remembered.
const token = {
  value: sessionStorage.getItem(TOKEN_NAME) ?? localStorage.getItem(TOKEN_NAME) ?? "",
  keep(value, isRemembered) {
    this.value = value;
    sessionStorage.setItem(TOKEN_NAME, value);
    if (isRemembered) localStorage.setItem(TOKEN_NAME, value);
    else localStorage.removeItem(TOKEN_NAME);
  },
  subprotocols() {
    return this.value ? ["codexd.v1", `codexd.bearer.${this.value}`] : [];
  },
};

// A failure as the daemon told it; `code` is its word for programs.
class Refusal extends Error {
  constructor(status, body) {
    super(body?.message ?? `The daemon answered ${status}.`);
    this.status = status;
    this.code = body?.error ?? "";
    this.details = body?.details ?? null;
  }
}

// One question at a time: requests that get 401 meanwhile wait for the same answer.
let tokenQuestion = null;

function askForToken(refused) {
  tokenQuestion ??= new Promise((resolve) => {
    const dialog = byId("token-dialog");
    const field = byId("token");
    const problem = byId("token-problem");
    show(problem, refused !== "");
    say(problem, refused ? "The daemon does not take this token." : "");
    byId("token-form").onsubmit = (event) => {
      event.preventDefault();
      const value = field.value.trim();
      if (!/^[A-Za-z0-9._~+-]+$/.test(value)) {
        show(problem, true);
        say(problem, "A token has letters, digits and the characters - . _ ~ + only.");
        return;
      }
      token.keep(value, byId("token-remember").checked);
      field.value = "";
      tokenQuestion = null;
      dialog.close();
      resolve();
    };
    // There is nothing to see without it.
    dialog.oncancel = (event) => event.preventDefault();
    // Chromium closes it at a second Escape all the same.
    dialog.onclose = () => tokenQuestion !== null && dialog.showModal();
    dialog.showModal();
    field.focus();
  });
  return tokenQuestion;
}

// The answer of a route; without `body` a GET. Asks for the token as long as it is refused.
async function ask(path, { method, body, key } = {}) {
  for (;;) {
    const headers = {};
    const used = token.value;
    if (used) headers.Authorization = `Bearer ${used}`;
    if (key) headers["Idempotency-Key"] = key;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const answer = await fetch(path, {
      method: method ?? (body === undefined ? "GET" : "POST"),
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
    });
    const json = await answer.json().catch(() => null);
    if (answer.ok) return json?.data ?? json;
    if (answer.status !== 401) throw new Refusal(answer.status, json);
    // Another request may have been answered with a new token meanwhile.
    if (token.value === used) await askForToken(used);
  }
}

// What went wrong, for the user.
function reason(error) {
  return error instanceof Refusal ? error.message : "codexd does not answer; what was asked may not have happened.";
}
