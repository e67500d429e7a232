// Drives the tools of codexd with the TypeScript SDK of the Model Context Protocol.
//
//     client.mjs stdio COMMAND ARGUMENT…     client.mjs http URL
//
// Prints "ok" at the end. The daemon uses an offline model that follows markers in the prompt.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// The directory with the packages is not that of this file.
const require = createRequire(`${process.env.CODEXD_MCP_PACKAGES}/package.json`);
const load = (name) => import(pathToFileURL(require.resolve(`@modelcontextprotocol/sdk/${name}`)).href);
const { Client } = await load("client/index.js");
const { StdioClientTransport } = await load("client/stdio.js");
const { StreamableHTTPClientTransport } = await load("client/streamableHttp.js");
const { ElicitRequestSchema } = await load("types.js");

const [kind, ...rest] = process.argv.slice(2);
const transport = kind === "stdio"
  ? new StdioClientTransport({ command: rest[0], args: rest.slice(1) })
  : new StreamableHTTPClientTransport(new URL(rest[0]));
const client = new Client({ name: "test", version: "1" }, { capabilities: { elicitation: {} } });
const forms = [];
client.setRequestHandler(ElicitRequestSchema, (request) => {
  forms.push(request.params.message);
  return { action: "accept", content: { decision: "accept" } };
});
await client.connect(transport);
const call = async (name, args, options) =>
  (await client.callTool({ name, arguments: args }, undefined, options)).structuredContent;

const shown = [];
const first = await call(
  "codex",
  { prompt: "mock:shell=[true] mock:text=[approved]", "approval-policy": "untrusted" },
  { onprogress: (progress) => shown.push(progress.message) },
);
assert.equal(first.content, "approved");
assert.equal(forms.length, 1);
assert.ok(shown.some((message) => message.includes("approved")), shown);

// A call that the client gives up interrupts its turn.
const abort = new AbortController();
const hanging = call("codex-reply", { prompt: "mock:hang", threadId: first.threadId }, { signal: abort.signal });
for (;;) {
  const status = await call("codex-status", { threadId: first.threadId });
  if (status.status === "running") break;
}
abort.abort();
await assert.rejects(hanging);
for (;;) {
  const ended = await call("codex-wait", { threadId: first.threadId, timeoutSeconds: 10 });
  if (ended.status !== "running") {
    assert.equal(ended.status, "interrupted");
    break;
  }
}
await client.close();
console.log("ok");
