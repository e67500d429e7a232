// A directory with a configuration of its own: whether it is trusted is said in the form, and told in the conversation.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { live, play, until, workspace } from "./browser.mjs";

const mark = process.env.CODEXD_MARK;

const said = (words) => [...document.querySelectorAll("#turns .note")].some((note) => note.textContent === words);

// Creates a session in the form, with one turn, and waits for its end and for what the conversation says about trust.
async function session(page, isTrusted, words) {
  await page.click("#new-session");
  await page.fill("#cwd", workspace);
  await page.setChecked("#trust", isTrusted);
  await page.fill("#first", "mock:deltas=1");
  await page.click("#session-create");
  await until(page, said, words);
  await until(page, () => document.querySelector('.fate[data-state="completed"]'));
  const notes = await page.$$eval("#turns .note", (all) => all.map((note) => [note.dataset.level, note.textContent]));
  assert.deepEqual(notes.filter(([, text]) => text.includes("trusted")), [["info", words]]);
}

await play(async (page) => {
  await live(page);
  await session(page, false, `The directory is not trusted. Not used: ${workspace}/.codex.`);
  assert.ok(!existsSync(mark), "the MCP command of a directory that is not trusted ran");
  const words = "The directory is trusted: its .codex is used.";
  await session(page, true, words);
  assert.ok(existsSync(mark), "the MCP command of a directory that is trusted did not run");
  // The same when the log is read again.
  await page.reload();
  await until(page, said, words);
});
