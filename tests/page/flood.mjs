// Ten thousand events: streamed, and read from the log at once. And a list of a thousand sessions.

import assert from "node:assert/strict";
import { callApi, openPage, newSession, runTest, messageTextInLog, messageTextOnPage, waitUntil, url } from "./browser.mjs";

const EVENTS = 10_000;
const SESSIONS = 1_000;
// Large, because the machine may be slow; a page that processed all events at once would take seconds.
const MAX_FRAME_MS = 1_000;

async function checkFrames(page, what) {
  const { longestFrame, longestTask } = await page.evaluate(() => window.found);
  console.log(`${what}: longest frame ${Math.round(longestFrame)} ms, longest task ${Math.round(longestTask)} ms`);
  assert.ok(longestFrame < MAX_FRAME_MS && longestTask < MAX_FRAME_MS, what);
}

const isCompleted = () => document.querySelector(".turn-status")?.dataset.state === "completed";

await runTest(async (page) => {
  const session = await newSession();
  await openPage(page, `${url}/#${session}`);
  await page.waitForSelector("#composer:not([hidden])");
  await page.evaluate(() => Object.assign(window.found, { longestFrame: 0, longestTask: 0 }));
  const began = Date.now();
  await callApi("/v1/codexd/turn", { sessionId: session, input: `deltas=${EVENTS} chars=12` });
  await waitUntil(page, isCompleted);
  console.log(`${EVENTS} events shown after ${Date.now() - began} ms`);
  const said = await messageTextInLog(session);
  assert.ok(said.length >= EVENTS * 12, `${said.length}`);
  assert.equal(await messageTextOnPage(page), said);
  await checkFrames(page, "streamed");
  const isAtEnd = () => page.$eval("#conversation", (pane) => pane.scrollHeight - pane.scrollTop - pane.clientHeight < 80);
  assert.ok(await isAtEnd(), "the end is not visible");

  await page.reload();
  // The goal is half a second; on a slow machine it is only printed.
  const shownAt = await page.waitForFunction(() => document.querySelector(".turn-status")?.dataset.state === "completed" && performance.now(), null, { polling: "raf" });
  console.log(`${EVENTS} events of the log shown ${Math.round(await shownAt.jsonValue())} ms after the navigation`);
  assert.equal(await messageTextOnPage(page), said);
  await checkFrames(page, "from the log");

  // Many parts: the page removes the oldest and reports their number.
  for (let turn = 0; turn < 4; turn += 1) {
    const commands = Array.from({ length: 100 }, (_, index) => `command=echo-${turn}-${index}`).join(" ");
    await callApi("/v1/codexd/turn?wait=60", { sessionId: session, input: `deltas=1 ${commands}` });
  }
  await waitUntil(page, () => {
    const newest = document.querySelector(".turn:last-child");
    return newest.querySelector(".turn-status")?.dataset.state === "completed" && newest.textContent.includes("echo-3-99");
  });
  assert.ok((await page.$$(".item")).length <= 310);
  assert.match(await page.textContent("#left-out-text"), /older parts not shown/);
  await page.click("#earlier");
  await waitUntil(page, () => document.querySelectorAll(".item").length > 400 && document.querySelector("#left-out").hidden);
  await checkFrames(page, "with 400 commands");

  // The time to the first frame with sessions depends on the machine, so it is only printed; half a second is the goal.
  const create = async () => {
    for (let count = 0; count < SESSIONS / 8; count += 1) await newSession();
  };
  await Promise.all(Array.from({ length: 8 }, create));
  await page.addInitScript(() => {
    new MutationObserver((_, observer) => {
      if (!document.querySelector(".session")) return;
      observer.disconnect();
      requestAnimationFrame(() => setTimeout(() => (window.listedAfter = performance.now())));
    }).observe(document, { childList: true, subtree: true });
  });
  await page.goto(url);
  await waitUntil(page, () => window.listedAfter);
  const times = await page.evaluate(() => [performance.getEntriesByName("first-contentful-paint")[0].startTime, window.listedAfter]);
  console.log(`${SESSIONS} sessions: first paint after ${Math.round(times[0])} ms, the list after ${Math.round(times[1])} ms`);
});
