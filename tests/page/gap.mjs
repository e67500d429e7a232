// The log is another one after a restart: the page says so and shows what there is now.

import assert from "node:assert/strict";
import { ask, live, newSession, play, restart, until, url } from "./browser.mjs";

await play(
  async (page) => {
    const session = await newSession();
    await ask("/v1/codexd/turn?wait=30", { sessionId: session, input: "deltas=3 text=before" });
    await live(page, `${url}/#${session}`);
    await until(page, () => document.querySelector(".agent")?.textContent.includes("before"));
    await restart();
    await until(page, () => document.querySelector("#notice").textContent.startsWith("Events are missing"));
    await page.waitForSelector('#connection[data-state="good"]');
    await until(page, () => document.querySelectorAll(".turn, .session").length === 0);
    assert.equal(await page.textContent("#welcome"), "There is no such session.");
    const next = await newSession();
    await page.click(".session");
    await ask("/v1/codexd/turn?wait=30", { sessionId: next, input: "text=after" });
    await until(page, () => document.querySelector(".agent")?.textContent.includes("after"));
  },
  { expected: ["ERR_CONNECTION_REFUSED", "WebSocket connection to"] },
);
