// Uses a daemon with the demo app-server through a client of @hey-api/openapi-ts: a session, a turn with `wait`, an
// approval, an error, and a page of events. Its argument is the address.
import assert from "node:assert/strict";
import { setTimeout } from "node:timers/promises";
import { client } from "./generated/client.gen.js";
import * as codexd from "./generated/index.js";

client.setConfig({ baseUrl: process.argv[2] });
const throwOnError = true;

const created = await codexd.createSession({ throwOnError, body: { cwd: process.cwd(), purpose: "worker" } });
const { sessionId } = created.data.data.session;

const hello = await codexd.submitTurn({ throwOnError, query: { wait: 30 }, body: { sessionId, input: "hello" } });
assert.match(hello.data.data.turn?.text ?? "", /^Hello!/);

const tour = await codexd.submitTurn({ throwOnError, body: { sessionId, input: "tour" } });
let open: codexd.Request | undefined;
while (open === undefined) {
  const listed = await codexd.listRequests({ throwOnError, query: { sessionId } });
  open = listed.data.data.requests.find((request) => request.status === "pending");
  await setTimeout(50);
}
await codexd.answerRequest({ throwOnError, path: { request_id: open.requestId }, body: { decision: "accept" } });
const path = { session_id: sessionId, turn_id: tour.data.data.turnId! };
const ended = await codexd.readTurn({ throwOnError, path, query: { wait: 60 } });
assert.equal(ended.data.data.turn.status, "completed");

const missing = await codexd.readSession({ path: { session_id: "nobody" } });
assert.equal(missing.error?.error, "not_found");

const page = await codexd.readEvents({ throwOnError, query: { sessionId, limit: 1000 } });
let text = "";
for (const event of page.data.data.events as codexd.KnownEvent[]) {
  if (event.type === "app-server.turn.message.delta") text += event.detail.delta;
}
assert(text.startsWith("Hello!"), text);
