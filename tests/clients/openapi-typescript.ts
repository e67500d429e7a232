// Uses a daemon with the demo app-server through types of openapi-typescript: a session, a turn with `wait`, an approval,
// an error, and a page of events. Its argument is the address.
import assert from "node:assert/strict";
import { setTimeout } from "node:timers/promises";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

const client = createClient<paths>({ baseUrl: process.argv[2] });

/** The data of a successful response. */
function data<T>(result: { data?: { data: T }; error?: unknown }): T {
  assert(result.data, JSON.stringify(result.error));
  return result.data.data;
}

const { session } = data(
  await client.POST("/v1/codexd/sessions", {
    body: { cwd: process.cwd(), purpose: "worker", approvalPolicy: "on-request", metadata: { made: "by a client" } },
  }),
);
assert.equal(session.status satisfies "active" | "closed", "active");
const sessionId = session.sessionId;

const submit = (body: components["schemas"]["SubmitTurn"], wait?: number) =>
  client.POST("/v1/codexd/turn", { params: { query: { wait } }, body });
// @ts-expect-error: the session is required.
const incomplete: components["schemas"]["SubmitTurn"] = { input: "hello" };
assert(incomplete);

const answered = data(await submit({ sessionId, input: "hello" }, 30));
assert.equal(answered.turn?.status, "completed");
assert.match(answered.turn.text ?? "", /^Hello!/);

// Anything but `hello` and `long` is answered by a tour, which asks for an approval.
const tour = data(await submit({ sessionId, input: [{ type: "text", text: "tour" }], whenBusy: "queue" }));
let open: components["schemas"]["Request"] | undefined;
while (open === undefined) {
  const { requests } = data(await client.GET("/v1/codexd/requests", { params: { query: { sessionId } } }));
  open = requests.find((request) => request.status === "pending");
  await setTimeout(50);
}
assert(open.decisions.includes("accept"));
const answer = data(
  await client.POST("/v1/codexd/requests/{request_id}", {
    params: { path: { request_id: open.requestId } },
    body: { decision: "accept" },
  }),
);
assert.equal(answer.request.status, "resolved");
const { turn } = data(
  await client.GET("/v1/codexd/sessions/{session_id}/turns/{turn_id}", {
    params: { path: { session_id: sessionId, turn_id: tour.turnId! }, query: { wait: 60 } },
  }),
);
assert.equal(turn.status, "completed");

const missing = await client.GET("/v1/codexd/sessions/{session_id}", { params: { path: { session_id: "nobody" } } });
assert.equal(missing.response.status, 404);
assert.equal(missing.error?.error, "not_found");

const read = await client.GET("/v1/codexd/events", { params: { query: { sessionId, limit: 1000 } } });
// It would be text if the request accepted text/event-stream.
assert(typeof read.data === "object");
const page = read.data.data;
let text = "";
for (const event of page.events as components["schemas"]["KnownEvent"][]) {
  if (event.type === "app-server.turn.message.delta") text += event.detail.delta;
}
assert(text.startsWith("Hello!"), text);
assert(page.cursor.startsWith(page.epoch));
