// What a page does that may talk to the daemon.
//
// The test puts `report.js` before this text, and says in `config`:
//   target  the base URL of the daemon
//   token   the token that the page shows, or null

const words = config.token === null ? {} : { authorization: `Bearer ${config.token}` };
const protocols = config.token === null ? [] : ["codexd.v1", `codexd.bearer.${config.token}`];

async function answer(path, options) {
  const answer = await fetch(config.target + path, options);
  return { status: answer.status, body: await answer.json() };
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

const deeds = {
  "get": () => answer("/v1/codexd/status", { headers: words }),
  "post": () =>
    answer("/v1/codexd/sessions", {
      method: "POST",
      headers: { "content-type": "application/json", ...words },
      body: JSON.stringify({ metadata: { page: config.page } }),
    }),
  "websocket": socket,
  "event-source": eventSource,
};

async function main() {
  for (const [name, deed] of Object.entries(deeds)) {
    try {
      await report(name, await deed());
    } catch (error) {
      await report(name, { error: String(error) });
    }
  }
  leave();
}

main();
