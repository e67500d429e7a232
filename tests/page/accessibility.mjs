// Accessibility: keyboard, screen reader, dark colours, phone; and external text that looks like markup.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { callApi, checkAxe, openPage, newSession, runTest, waitUntil, url, workspace } from "./browser.mjs";

const screenshots = process.env.CODEXD_PAGE_SHOTS;
const screenshot = async (page, name) => screenshots && page.screenshot({ path: join(screenshots, `${name}.png`) });
const completed = (page, wanted) => waitUntil(page, (count) => document.querySelectorAll('.turn-status[data-state="completed"]').length >= count, wanted);

// The minimum width and height of every visible control, in CSS pixels.
const MIN_TARGET_PX = 44;

async function assertFits(page, what) {
  const { wide, small } = await page.evaluate((smallest) => {
    const seen = [...document.querySelectorAll("button, input:not([type=checkbox]), select, textarea, label.check")].filter((one) => one.checkVisibility());
    const boxes = seen.map((one) => [one.id || one.textContent, one.getBoundingClientRect()]);
    return {
      wide: document.documentElement.scrollWidth - innerWidth,
      small: boxes.filter(([, box]) => box.height < smallest || box.width < smallest).map(([name, box]) => `${name}: ${box.width} x ${box.height}`),
    };
  }, MIN_TARGET_PX);
  assert.ok(wide <= 0, `${what}: ${wide} px too wide`);
  assert.deepEqual(small, [], what);
}

async function assertInnerFits(page, what) {
  const wide = await page.$$eval(".pane, #conversation, #requests, .sessions, .item", (all) =>
    all.filter((one) => one.checkVisibility() && one.scrollWidth > one.clientWidth + 1).map((one) => `${one.id} ${one.className}`),
  );
  assert.deepEqual(wide, [], what);
}

// Presses Tab until the element has the focus, and checks that it shows the focus.
async function tabTo(page, selector) {
  for (let count = 0; count < 60; count += 1) {
    if (await page.evaluate((wanted) => document.activeElement?.matches(wanted), selector)) {
      const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
      assert.notEqual(outline, "none", `${selector} does not show that it has the focus`);
      return;
    }
    await page.keyboard.press("Tab");
  }
  assert.fail(`${selector} cannot be reached by keyboard`);
}

await runTest(async (page, open) => {
  // With the keyboard only: create a session, send a message, answer a request.
  await openPage(page);
  await tabTo(page, "#new-session");
  await page.keyboard.press("Enter");
  await waitUntil(page, () => document.activeElement.id === "cwd");
  await page.keyboard.type(workspace);
  await tabTo(page, "#first");
  await page.keyboard.type("plan diff ask=command");
  await tabTo(page, "#session-create");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".request");
  assert.match(await page.textContent("#announcer"), /^Codex asks: Run this command\?/);
  assert.match(await page.textContent(".request .command"), /touch approved/);
  await screenshot(page, "request-light");
  await checkAxe(page, "a request");
  await page.keyboard.press("Alt+KeyR");
  assert.ok(await page.evaluate(() => document.activeElement.matches(".request")));
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Allow");
  // A second request is open; a user who answers the first one has not read it.
  const list = "**/v1/codexd/requests";
  await page.route(list, async (route) => {
    const response = await route.fetch();
    const json = await response.json();
    const params = { command: "rm -rf /", additionalPermissions: { write: ["/home/\u202eelif"] } };
    json.data.requests.push({ requestId: "other", status: "pending", sessionId: null, method: "execCommandApproval", decisions: ["accept"], params });
    await route.fulfill({ response, json });
  });
  await page.reload();
  await waitUntil(page, () => document.querySelectorAll(".request").length === 2);
  assert.match(await page.textContent(".request:last-child"), /additionalPermissions[^]*\\u\{202e\}elif/);
  await page.focus(".request:first-child .main");
  await page.keyboard.press("Enter");
  await waitUntil(page, () => document.querySelectorAll(".request").length === 1);
  assert.ok(await page.evaluate(() => document.activeElement.matches(".request")), "no decision gets the focus automatically");
  await page.unroute(list);
  await page.reload();
  await completed(page, 1);
  await page.focus("#prompt");
  // Lines of a file that look like the header of a patch.
  const source = ["elements.js", "diff.js"].map((name) => readFileSync(new URL(`../../src/http/web/${name}`, import.meta.url), "utf8"));
  const kinds = await page.evaluate(`(() => {
    ${source.join("\n")}
    const sessions = { current: null };
    const kinds = (kind, diff) => [...fileView(fileOfChange({ path: "a", kind: { type: kind }, diff }), true).querySelectorAll(".patch span")].map((line) => line.className);
    return [kinds("add", "---\\ntitle\\n@@\\n- one\\n"), kinds("update", "--- a/b\\n+++ b/b\\n@@ -1,2 +1,2 @@\\n--- gone\\n+++new\\n same\\n"), kinds("update", "-gone\\n+new\\n")];
  })()`);
  assert.deepEqual(kinds, [["added", "added", "added", "added"], ["removed", "added", "same"], ["removed", "added"]]);
  await page.keyboard.type("deltas=3 reasoning command=ls");
  await page.keyboard.press("Control+Enter");
  await completed(page, 2);
  assert.equal(await page.inputValue("#prompt"), "");
  await page.keyboard.press("Shift+Tab");
  await tabTo(page, "#show-help");
  await page.keyboard.press("?");
  await page.waitForSelector("#help-dialog[open]");
  await checkAxe(page, "the shortcuts");
  await page.keyboard.press("Escape");

  // Steer, queue, interrupt.
  await page.focus("#prompt");
  await page.keyboard.type("deltas=5 hang");
  await page.keyboard.press("Control+Enter");
  await page.waitForSelector("#interrupt:not([hidden])");
  await page.keyboard.type("deltas=2 text=queued");
  await page.keyboard.press("Control+Enter");
  await waitUntil(page, () => document.querySelector("#queued span")?.textContent === "deltas=2 text=queued");
  await page.keyboard.type("text=unwanted");
  await page.keyboard.press("Control+Enter");
  await waitUntil(page, () => document.querySelectorAll("#queued li").length === 2);
  await checkAxe(page, "queued turns");
  await screenshot(page, "queue-light");
  await page.focus("#queued li:last-child button");
  await page.keyboard.press("Enter");
  await waitUntil(page, () => document.querySelectorAll("#queued li").length === 1);
  await waitUntil(page, () => document.activeElement.id === "prompt");
  await page.keyboard.type("more input hang");
  await page.keyboard.press("Control+Shift+Enter");
  await waitUntil(page, () => [...document.querySelectorAll(".user")].some((one) => one.textContent.includes("more input")));
  await tabTo(page, "#interrupt");
  await page.keyboard.press("Enter");
  await waitUntil(page, () => document.querySelector('.turn-status[data-state="interrupted"]') && document.querySelector("#queue").hidden);
  await completed(page, 3);

  // A question with a form.
  await page.fill("#prompt", "ask=input");
  await page.press("#prompt", "Control+Enter");
  await page.waitForSelector(".request input");
  await checkAxe(page, "a question");
  await page.fill(".request input", "blue");
  await page.click('.request button:has-text("Answer")');
  await completed(page, 4);

  // A confirmation without fields.
  await page.fill("#prompt", "ask=leave");
  await page.press("#prompt", "Control+Enter");
  await page.waitForSelector(".request");
  assert.equal(await page.locator(".request textarea").count(), 0);
  await page.click('.request button:has-text("Allow")');
  await completed(page, 5);

  // A form of an MCP server.
  await page.fill("#prompt", "ask=form");
  await page.press("#prompt", "Control+Enter");
  await page.waitForSelector(".request select");
  await checkAxe(page, "a form");
  await page.click('.request button:has-text("Answer")');
  await waitUntil(page, () => document.querySelector(".request .problem").textContent === "“Painter” is required.");
  await page.getByLabel("Painter: Who paints").fill("Ada");
  await page.getByLabel("coats").fill("2");
  await page.getByLabel("colour").selectOption("Blue");
  await screenshot(page, "form-light");
  const [posted] = await Promise.all([
    page.waitForRequest((request) => request.method() === "POST" && request.url().includes("/requests/")),
    page.click('.request button:has-text("Answer")'),
  ]);
  const content = { painter: "Ada", coats: 2, colour: "blue", wash: true };
  assert.deepEqual(posted.postDataJSON(), { result: { action: "accept", content, _meta: null } });
  await completed(page, 6);

  // Markup is shown as text.
  const session = decodeURIComponent(new URL(page.url()).hash.slice(1));
  const markup = "<img/src=x/onerror=window.broken=1><script>window.broken=1</script>";
  await callApi("/v1/codexd/turn?wait=30", { sessionId: session, input: `text=${markup} command=${markup}` });
  await completed(page, 7);
  assert.ok((await page.textContent(".turn:last-child .agent .text")).includes(markup));
  assert.equal(await page.evaluate(() => window.broken), undefined);
  await checkAxe(page, "a conversation in light colours");
  await screenshot(page, "conversation-light");

  // A lost response: the message that is sent again is executed once.
  const turns = "**/v1/codexd/turn";
  await page.route(turns, async (route) => {
    await route.fetch();
    await route.abort();
  });
  await page.fill("#prompt", "text=once");
  await page.press("#prompt", "Control+Enter");
  await completed(page, 8);
  await waitUntil(page, () => document.querySelector("#composer-state").textContent.includes("may not have been executed"));
  await page.unroute(turns);
  await callApi("/v1/codexd/turn", { sessionId: session, input: "hang" });
  await page.waitForSelector("#interrupt:not([hidden])");
  await page.press("#prompt", "Control+Enter");
  await waitUntil(page, () => document.querySelector("#prompt").value === "");
  await page.click("#interrupt");
  await page.waitForSelector("#interrupt", { state: "hidden" });
  const { events } = await callApi(`/v1/codexd/events?limit=1000&after=0&sessionId=${session}&type=turn.`);
  assert.equal(events.filter((event) => event.type === "turn.queued").length, 2, "executed twice");

  // A turn that is accepted after its end is not running.
  await page.fill("#prompt", "text=late answer-late=700");
  await page.press("#prompt", "Control+Enter");
  await completed(page, 9);
  await waitUntil(page, () => document.querySelector("#composer-state").textContent === "");
  await waitUntil(page, () => document.querySelector("#interrupt").hidden);

  // A draft stays with its session.
  await page.fill("#prompt", "a draft");
  const first = page.url();
  const other = await newSession();
  await page.evaluate((name) => (location.hash = name), other);
  await waitUntil(page, () => document.querySelector("#prompt").value === "");
  await page.evaluate((name) => (location.hash = new URL(name).hash), first);
  await waitUntil(page, () => document.querySelector("#prompt").value === "a draft");
  await page.fill("#prompt", "");
  await fetch(`${url}/v1/codexd/sessions/${other}`, { method: "DELETE" });

  await page.click("#show-health");
  await waitUntil(page, () => document.querySelector("#restarts").children.length > 0);
  await checkAxe(page, "the health of Codex");
  await screenshot(page, "health-light");
  await page.click("#show-health");

  // Dark colours.
  const dark = await open({ colorScheme: "dark" });
  await openPage(dark, page.url());
  await completed(dark, 9);
  const [light, night] = await Promise.all([page, dark].map((one) => one.evaluate(() => getComputedStyle(document.body).backgroundColor)));
  assert.notEqual(light, night);
  await checkAxe(dark, "a conversation in dark colours");
  await screenshot(dark, "conversation-dark");

  // A phone.
  const phone = await open({ viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true });
  await openPage(phone);
  await assertFits(phone, "the sessions on a phone");
  await checkAxe(phone, "the sessions on a phone");
  await screenshot(phone, "phone-sessions");
  await newSession({ cwd: workspace });
  await phone.locator(".session").last().tap();
  await completed(phone, 9);
  await phone.fill("#prompt", "plan diff ask=file");
  await phone.tap("#send");
  await phone.waitForSelector(".request .patch");
  await assertFits(phone, "a request on a phone");
  await assertInnerFits(phone, "a request on a phone");
  const box = await phone.locator("#send, #interrupt").last().boundingBox();
  assert.ok(box.y + box.height <= 740, `the message field ends at ${box.y + box.height}`);
  await checkAxe(phone, "a request on a phone");
  await screenshot(phone, "phone-request");
  await phone.tap('.request button:has-text("Decline")');
  await completed(phone, 10);
  await assertInnerFits(phone, "a conversation on a phone");
  await phone.tap("#to-sessions");
  await phone.waitForSelector(".sessions", { state: "visible" });
  await phone.tap("#new-session");
  await assertFits(phone, "the form on a phone");
  await checkAxe(phone, "the form on a phone");
}, { expected: ["ERR_FAILED"] });
