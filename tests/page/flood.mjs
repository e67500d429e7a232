// Ten thousand events: as they come, and read from the log at once.

import assert from "node:assert/strict";
import { ask, live, newSession, play, saidInLog, saidOnPage, until, url } from "./browser.mjs";

const EVENTS = 10_000;
// Generous, because the machine may be slow; a page that worked off everything at once would take seconds.
const LONGEST = 1_000;

async function figures(page, what) {
  const { longestFrame, longestTask } = await page.evaluate(() => window.found);
  console.log(`${what}: longest frame ${Math.round(longestFrame)} ms, longest task ${Math.round(longestTask)} ms`);
  assert.ok(longestFrame < LONGEST && longestTask < LONGEST, what);
}

const isOver = () => document.querySelector(".fate")?.dataset.state === "completed";

await play(async (page) => {
  const session = await newSession();
  await live(page, `${url}/#${session}`);
  await page.waitForSelector("#composer:not([hidden])");
  await page.evaluate(() => Object.assign(window.found, { longestFrame: 0, longestTask: 0 }));
  const began = Date.now();
  await ask("/v1/codexd/turn", { sessionId: session, input: `deltas=${EVENTS} chars=12` });
  await until(page, isOver);
  console.log(`${EVENTS} events shown after ${Date.now() - began} ms`);
  const said = await saidInLog(session);
  assert.ok(said.length >= EVENTS * 12, `${said.length}`);
  assert.equal(await saidOnPage(page), said);
  await figures(page, "as they come");
  const isAtEnd = () => page.$eval("#conversation", (pane) => pane.scrollHeight - pane.scrollTop - pane.clientHeight < 80);
  assert.ok(await isAtEnd(), "the end is not in sight");

  await page.reload();
  await until(page, isOver);
  assert.equal(await saidOnPage(page), said);
  await figures(page, "from the log");

  // Many parts: the oldest leave the page, and it says so.
  for (let turn = 0; turn < 4; turn += 1) {
    const commands = Array.from({ length: 100 }, (_, index) => `command=echo-${turn}-${index}`).join(" ");
    await ask("/v1/codexd/turn?wait=60", { sessionId: session, input: `deltas=1 ${commands}` });
  }
  await until(page, () => {
    const newest = document.querySelector(".turn:last-child");
    return newest.querySelector(".fate")?.dataset.state === "completed" && newest.textContent.includes("echo-3-99");
  });
  assert.ok((await page.$$(".item")).length <= 310);
  assert.match(await page.textContent("#left-out-words"), /older parts left out of this page/);
  await page.click("#earlier");
  await until(page, () => document.querySelectorAll(".item").length > 400 && document.querySelector("#left-out").hidden);
  await figures(page, "with 400 commands");
});
