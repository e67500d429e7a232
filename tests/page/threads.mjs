// The threads of Codex: one without a session is opened as a session; the menu, which changes threads; the account.

import assert from "node:assert/strict";
import { callApi, openPage, runTest, waitUntil, workspace } from "./browser.mjs";

await runTest(async (page) => {
  const { session } = await callApi("/v1/codexd/sessions", { cwd: workspace });
  const body = { sessionId: session.sessionId, input: "mock:text=[<b>An answer</b>] <i>A question</i>" };
  await callApi("/v1/codexd/turn?wait=20", body);
  await openPage(page);
  await page.click("#threads-pane summary");
  const open = "#threads button";
  await page.waitForSelector(open);
  assert.deepEqual(await page.$$eval("#threads .name", (all) => all.map((one) => one.textContent)), [body.input]);
  // The session that has the thread is used.
  await page.click(open);
  await waitUntil(page, () => document.querySelector(".agent .text")?.textContent === "<b>An answer</b>");
  assert.equal(decodeURIComponent(new URL(page.url()).hash.slice(1)), session.sessionId);

  // Without one there is a new one.
  await page.click("#show-menu");
  await page.click("#close-session");
  await page.click('#action-dialog button[type="submit"]');
  await page.waitForSelector("#composer", { state: "hidden" });
  await page.click("#threads-pane summary");
  await page.click("#threads-pane summary");
  await waitUntil(page, () => document.querySelectorAll("#threads li").length === 1);
  await page.click(open);
  await page.waitForSelector("#composer", { state: "visible" });
  const opened = decodeURIComponent(new URL(page.url()).hash.slice(1));
  assert.notEqual(opened, session.sessionId);
  await page.fill("#prompt", "mock:text=[Again]");
  await page.click("#send");
  await waitUntil(page, () => [...document.querySelectorAll(".agent .text")].at(-1)?.textContent === "Again");

  // The menu: a new title, the archive, a removed turn.
  const choose = async (item, text) => {
    await page.click("#show-menu");
    await page.click(item);
    if (text === undefined) return;
    if (text) await page.fill("#action-field", text);
    await page.click("#action-submit");
    await page.waitForSelector("#action-dialog", { state: "hidden" });
  };
  await choose("#rename-session", "A better name");
  await waitUntil(page, () => document.querySelector("#session-title").textContent === "A better name" && document.title === "A better name – codexd");
  await page.fill("#search", "better");
  await waitUntil(page, () => document.querySelectorAll(".session").length === 1);
  await choose("#archive-session");
  await waitUntil(page, () => document.querySelector("#session-state").textContent === "archived");
  await choose("#archive-session");
  await waitUntil(page, () => document.querySelector("#session-state").textContent === "idle");
  await choose("#revert-session", "");
  await page.waitForSelector(".turn.reverted");
  await page.reload();
  await page.waitForSelector(".turn.reverted");

  await page.click("#show-health");
  await waitUntil(page, () => document.querySelector("#account-facts").textContent.includes("The model needs no account of OpenAI."));
});
