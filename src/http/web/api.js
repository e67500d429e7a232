// HTTP requests to the daemon, and the token that authenticates them.

const API = "/v1/codexd";
const TOKEN_NAME = "codexd.token";

// The token is never part of a URL. It is stored for this tab only, unless the user selects “Remember”.
const token = {
  value: sessionStorage.getItem(TOKEN_NAME) ?? localStorage.getItem(TOKEN_NAME) ?? "",
  store(value, isRemembered) {
    this.value = value;
    sessionStorage.setItem(TOKEN_NAME, value);
    if (isRemembered) localStorage.setItem(TOKEN_NAME, value);
    else localStorage.removeItem(TOKEN_NAME);
  },
  subprotocols() {
    return this.value ? ["codexd.v1", `codexd.bearer.${this.value}`] : [];
  },
};

// An error response of the daemon; `code` is its error code.
class ApiError extends Error {
  constructor(status, body) {
    super(body?.message ?? `The daemon responded with status ${status}.`);
    this.status = status;
    this.code = body?.error ?? "";
    this.details = body?.details ?? null;
  }
}

// The open prompt for the token, if any: all requests that get 401 meanwhile wait for it.
let tokenPrompt = null;

function promptForToken(rejected) {
  tokenPrompt ??= new Promise((resolve) => {
    const dialog = byId("token-dialog");
    const field = byId("token");
    const problem = byId("token-problem");
    show(problem, rejected !== "");
    setText(problem, rejected ? "The daemon rejected this token." : "");
    byId("token-form").onsubmit = (event) => {
      event.preventDefault();
      const value = field.value.trim();
      if (!/^[A-Za-z0-9._~+-]+$/.test(value)) {
        show(problem, true);
        setText(problem, "A token contains only letters, digits and the characters - . _ ~ +.");
        return;
      }
      token.store(value, byId("token-remember").checked);
      field.value = "";
      tokenPrompt = null;
      dialog.close();
      resolve();
    };
    // Without the token the page can show nothing.
    dialog.oncancel = (event) => event.preventDefault();
    // Chromium closes the dialog at a second Escape in spite of that.
    dialog.onclose = () => tokenPrompt !== null && dialog.showModal();
    dialog.showModal();
    field.focus();
  });
  return tokenPrompt;
}

// Returns the data of a response; without `body` the request is a GET. Asks for the token until the daemon accepts it.
async function callApi(path, { method, body, key } = {}) {
  for (;;) {
    const headers = {};
    const used = token.value;
    if (used) headers.Authorization = `Bearer ${used}`;
    if (key) headers["Idempotency-Key"] = key;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const response = await fetch(path, {
      method: method ?? (body === undefined ? "GET" : "POST"),
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
    });
    const json = await response.json().catch(() => null);
    if (response.ok) return json?.data ?? json;
    if (response.status !== 401) throw new ApiError(response.status, json);
    // The user may have entered a new token for another request meanwhile.
    if (token.value === used) await promptForToken(used);
  }
}

// The text of an error for the user.
function messageOf(error) {
  return error instanceof ApiError ? error.message : "No response from codexd; the request may not have been executed.";
}
