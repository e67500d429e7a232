// The requests of a page to the daemon.
//
// The test puts `report.js` before this script, and sets in `config`:
//   target  the base URL of the daemon
//   token   the token that the page sends, or null

const headers = config.token === null ? {} : { authorization: `Bearer ${config.token}` };
const protocols = config.token === null ? [] : ["codexd.v1", `codexd.bearer.${config.token}`];

async function fetchJson(path, options) {
  const response = await fetch(config.target + path, options);
  return { status: response.status, body: await response.json() };
}

function socket() {
  return new Promise((done) => {
    const made = new WebSocket(config.target.replace("http", "ws") + "/v1/codexd/events", protocols);
    made.onmessage = (message) => {
      done({ body: JSON.parse(message.data), protocol: made.protocol });
      made.close();
    };
    made.onclose = () => done({ error: "closed" });
  });
}

function eventSource() {
  return new Promise((done) => {
    const source = new EventSource(config.target + "/v1/codexd/events");
    const end = (seen) => {
      source.close();
      done(seen);
    };
    source.onopen = () => end({ opened: true });
    source.onerror = () => end({ error: "closed" });
  });
}

const requests = {
  "get": () => fetchJson("/v1/codexd/status", { headers }),
  "post": () =>
    fetchJson("/v1/codexd/sessions", {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: JSON.stringify({ metadata: { page: config.page } }),
    }),
  "websocket": socket,
  "event-source": eventSource,
};

async function main() {
  for (const [name, request] of Object.entries(requests)) {
    try {
      await report(name, await request());
    } catch (error) {
      await report(name, { error: String(error) });
    }
  }
  leave();
}

main();
