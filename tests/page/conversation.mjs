// A conversation with Codex: an approval, a restart during a turn, a reload.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { callApi, openPage, runTest, restart, messageTextInLog, messageTextOnPage, waitUntil, workspace } from "./browser.mjs";

// The text that the offline model sends for `mock:deltas=N`.
const NAMES = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu"];
const piece = (index) => `${NAMES[index % NAMES.length]}-${index} `.padEnd(12, ".").slice(0, 12);
const pieces = (count) => Array.from({ length: count }, (_, index) => piece(index)).join("");

await runTest(
  async (page) => {
    await openPage(page);
    await page.click("#new-session");
    await page.fill("#cwd", workspace);
    await page.fill("#first", "Look at it. mock:plan mock:reasoning mock:shell=[echo seen] mock:deltas=40");
    await page.click("#session-create");
    await page.waitForSelector('.turn-status[data-state="completed"]');
    const session = decodeURIComponent(new URL(page.url()).hash.slice(1));
    assert.equal(await messageTextOnPage(page), pieces(40));
    assert.match(await page.textContent(".command .output"), /^seen\n/);
    assert.match(await page.textContent(".command code"), /echo seen/);
    assert.match(await page.textContent(".plan"), /first/);
    assert.match(await page.textContent(".turn-end"), /Turn completed.*tokens/);

    // A request, with exactly the decisions that Codex offers.
    await page.fill("#prompt", "mock:patch=[made.txt] mock:deltas=3");
    await page.press("#prompt", "Control+Enter");
    await page.waitForSelector(".request .patch .added");
    assert.deepEqual(await page.$$eval(".request button", (all) => all.map((one) => one.textContent)), [
      "Allow",
      "Allow for this session",
      "Decline",
      "Cancel the turn",
    ]);
    assert.match(await page.textContent(".request"), /made\.txt new file\s*\+1\s*\+hello from mock-model/);
    assert.equal(await page.textContent(".session .badge"), "asks");
    assert.equal(await page.title(), `(1) ${basename(workspace)}: Change these files? – codexd`);
    assert.equal(await page.textContent("#waiting"), "1 waits");
    await page.click('.request button:has-text("Allow") >> nth=0');
    await waitUntil(page, () => document.querySelectorAll('.turn-status[data-state="completed"]').length === 2);
    assert.ok(existsSync(join(workspace, "made.txt")));
    assert.equal(await page.$(".request"), null);
    assert.equal(await messageTextOnPage(page), pieces(40) + pieces(3));
    await waitUntil(page, () => document.querySelector("#announcer").lastChild.textContent === "Turn completed.");

    // A command with invisible characters, declined by another client.
    await page.fill("#prompt", "mock:escalate=[touch safe\u202etxt.] mock:deltas=1");
    await page.click("#send");
    await page.waitForSelector(".request .command");
    assert.match(await page.textContent(".request .command"), /touch safe\\u\{202e\}txt\./);
    const { requests } = await callApi(`/v1/codexd/requests?sessionId=${session}`);
    await callApi(`/v1/codexd/requests/${requests[0].requestId}`, { decision: "decline" });
    await page.waitForSelector(".request", { state: "detached" });
    await waitUntil(page, () => document.querySelectorAll('.turn-status[data-state="completed"]').length === 3);

    // The daemon is killed during a turn; the shown text stays in place.
    await page.fill("#prompt", "mock:deltas=2000 mock:delay=20");
    await page.click("#send");
    await waitUntil(page, () => document.querySelector(".turn:last-child .agent")?.textContent.includes("delta-15 "));
    await page.evaluate(() => {
      window.first = document.querySelector(".turn");
      window.emptied = 0;
      new MutationObserver(() => (window.emptied += document.querySelectorAll(".turn").length < 4)).observe(document.body, { childList: true, subtree: true });
    });
    await restart();
    await waitUntil(page, () => document.querySelector("#announcer").textContent.includes("The connection is lost.Connected again."));
    await waitUntil(page, () => document.querySelector(".turn:last-child .turn-status")?.dataset.state !== "inProgress");
    assert.ok(await page.evaluate(() => window.first === document.querySelector(".turn") && window.emptied === 0), "the page was redrawn");
    const cut = await messageTextInLog(session);
    assert.ok(cut.startsWith(pieces(40) + pieces(3) + pieces(1) + pieces(15)), "the log differs from the text of the model");
    assert.equal(await messageTextOnPage(page), cut);

    // The conversation continues, and a reload shows the same.
    await page.fill("#prompt", "mock:deltas=25");
    await page.click("#send");
    await waitUntil(page, () => document.querySelector(".turn:last-child .turn-status")?.dataset.state === "completed");
    const whole = await messageTextInLog(session);
    assert.equal(whole, cut + pieces(25));
    assert.equal(await messageTextOnPage(page), whole);
    const before = await page.textContent("#turns");
    await page.reload();
    await waitUntil(page, () => document.querySelector(".turn:last-child .turn-status")?.dataset.state === "completed");
    assert.equal(await page.textContent("#turns"), before);
    assert.equal(await messageTextOnPage(page), whole);
    console.log(`${whole.length} characters sent, ${cut.length - pieces(44).length} of them up to the kill; none lost, none repeated`);

    // The history of the app-server.
    await page.click("#show-health");
    await waitUntil(page, () => document.querySelector("#restarts-note").textContent.startsWith("2 starts"));
    await page.click("#show-health");

    // Interrupt a turn and close the session.
    await page.fill("#prompt", "mock:hang");
    await page.click("#send");
    await page.click("#interrupt");
    await waitUntil(page, () => document.querySelector(".turn:last-child .turn-status")?.dataset.state === "interrupted");
    await page.click("#show-menu");
    await page.click("#close-session");
    await page.click('#action-dialog button[type="submit"]');
    await page.waitForSelector("#composer", { state: "hidden" });
    assert.equal(await page.textContent(".session .badge"), "closed");
  },
  // The daemon is unavailable during the restart.
  { expected: ["ERR_CONNECTION_REFUSED", "WebSocket connection to"] },
);
