// The log is replaced during a restart: the page reports it and shows the new log.

import assert from "node:assert/strict";
import { callApi, openPage, newSession, runTest, restart, waitUntil, url } from "./browser.mjs";

await runTest(
  async (page) => {
    const session = await newSession();
    await callApi("/v1/codexd/turn?wait=30", { sessionId: session, input: "deltas=3 text=before" });
    await openPage(page, `${url}/#${session}`);
    await waitUntil(page, () => document.querySelector(".agent")?.textContent.includes("before"));
    await restart();
    await waitUntil(page, () => document.querySelector("#notice").textContent.startsWith("Events are missing"));
    await page.waitForSelector('#connection[data-state="good"]');
    await waitUntil(page, () => document.querySelectorAll(".turn, .session").length === 0);
    assert.equal(await page.textContent("#welcome"), "The session does not exist.");
    const next = await newSession();
    await page.click(".session");
    await callApi("/v1/codexd/turn?wait=30", { sessionId: next, input: "text=after" });
    await waitUntil(page, () => document.querySelector(".agent")?.textContent.includes("after"));
  },
  { expected: ["ERR_CONNECTION_REFUSED", "WebSocket connection to"] },
);
