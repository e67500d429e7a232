// Uses a daemon with the demo app-server through a client of openapi-generator (typescript-fetch): a session, a turn with
// `wait`, an approval, an error, and a page of events. Its argument is the address.
import assert from "node:assert/strict";
import { setTimeout } from "node:timers/promises";
import * as codexd from "./generated/index.js";

const configuration = new codexd.Configuration({ basePath: process.argv[2] });
const sessions = new codexd.SessionsApi(configuration);
const turns = new codexd.TurnsApi(configuration);
const requests = new codexd.RequestsApi(configuration);

const created = await sessions.createSession({ createSession: { cwd: process.cwd() } });
const sessionId = created.data.session.sessionId;

const hello = await turns.submitTurn({ wait: 30, submitTurn: { sessionId, input: "hello" } });
assert.match(hello.data.turn?.text ?? "", /^Hello!/);

const tour = await turns.submitTurn({ submitTurn: { sessionId, input: "tour" } });
let open: codexd.Request | undefined;
while (open === undefined) {
  const listed = await requests.listRequests({ sessionId });
  open = listed.data.requests.find((request) => request.status === "pending");
  await setTimeout(50);
}
await requests.answerRequest({ requestId: open.requestId, answerRequest: { decision: "accept" } });
const ended = await turns.readTurn({ sessionId, turnId: tour.data.turnId!, wait: 60 });
assert.equal(ended.data.turn.status, "completed");

try {
  await sessions.readSession({ sessionId: "nobody" });
  assert.fail("an unknown session was read");
} catch (error) {
  if (!(error instanceof codexd.ResponseError)) throw error;
  assert.equal(error.response.status, 404);
  assert.equal(codexd.FailureFromJSON(await error.response.json()).error, "not_found");
}

const page = await new codexd.EventsApi(configuration).readEvents({ sessionId, limit: 1000 });
let text = "";
for (const event of page.data.events) {
  const known = codexd.KnownEventFromJSON(event);
  if (known.type === "app-server.turn.message.delta") text += known.detail.delta;
}
assert(text.startsWith("Hello!"), text);
