// A directory with a .codex: the form decides whether it is trusted, and the conversation shows it.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { openPage, runTest, waitUntil, workspace } from "./browser.mjs";

const mark = process.env.CODEXD_MARK;

const hasNote = (text) => [...document.querySelectorAll("#turns .note")].some((note) => note.textContent === text);

// Creates a session with one turn in the form, and waits for the end of the turn and the note about trust.
async function createSession(page, isTrusted, note) {
  await page.click("#new-session");
  await page.fill("#cwd", workspace);
  await page.setChecked("#trust", isTrusted);
  await page.fill("#first", "mock:deltas=1");
  await page.click("#session-create");
  await waitUntil(page, hasNote, note);
  await waitUntil(page, () => document.querySelector('.turn-status[data-state="completed"]'));
  const notes = await page.$$eval("#turns .note", (all) => all.map((note) => [note.dataset.level, note.textContent]));
  assert.deepEqual(notes.filter(([, text]) => text.includes("trusted")), [["info", note]]);
}

await runTest(async (page) => {
  await openPage(page);
  await createSession(page, false, `The directory is not trusted. Not used: ${workspace}/.codex.`);
  assert.ok(!existsSync(mark), "the MCP command of a directory that is not trusted ran");
  const note = "The directory is trusted: its .codex is used.";
  await createSession(page, true, note);
  assert.ok(existsSync(mark), "the MCP command of a directory that is trusted did not run");
  // A reload shows the same.
  await page.reload();
  await waitUntil(page, hasNote, note);
});
