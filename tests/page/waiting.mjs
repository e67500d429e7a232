// Requests, sessions and messages around the conversation: what waits, the list, the menu, the message field.

import assert from "node:assert/strict";
import { basename } from "node:path";
import { callApi, checkAxe, newSession, openPage, runTest, waitUntil, url, workspace } from "./browser.mjs";

const OLD_SESSIONS = 120;
const IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

const rowNames = (page) => page.$$eval(".session .name", (all) => all.map((one) => one.textContent));
const sessionOf = (page) => decodeURIComponent(new URL(page.url()).hash.slice(1));
await runTest(async (page) => {
  // The oldest of many sessions asks: it is in the list and one key away.
  const asking = await newSession({ cwd: workspace });
  for (let count = 0; count < OLD_SESSIONS; count += 1) await newSession();
  await callApi("/v1/codexd/turn", { sessionId: asking, input: "The oldest ask=command" });
  await page.context().grantPermissions(["notifications"]);
  await page.addInitScript(() => {
    window.notified = [];
    window.Notification = class extends EventTarget {
      static permission = "default";
      static async requestPermission() {
        return (Notification.permission = "granted");
      }
      constructor(title, options) {
        super();
        this.title = title;
        window.notified.push({ title, tag: options.tag, shown: this });
      }
      close() {
        this.isClosed = true;
      }
    };
  });
  await openPage(page);
  await waitUntil(page, () => document.querySelector("#waiting").textContent === "1 waits");
  assert.equal((await page.$$(".session")).length, 100);
  assert.equal(await page.textContent("#sessions li:first-child"), "Asks");
  assert.equal((await rowNames(page))[0], "The oldest ask=command");
  assert.equal(await page.title(), `(1) ${basename(workspace)}: Run touch? – codexd`);
  assert.ok((await page.getAttribute("#icon", "href")).includes("circle"));
  await page.keyboard.press("Alt+KeyR");
  await waitUntil(page, () => document.activeElement.matches(".request"));
  assert.equal(sessionOf(page), asking);
  assert.ok(await page.$("#working:text('Waits for your answer')"));

  // Another one asks while the page is hidden: a notification, which ends with the request.
  await page.click("#notify");
  await waitUntil(page, () => document.querySelector("#notify").ariaPressed === "true");
  await page.evaluate(() => Object.defineProperty(document, "hidden", { value: true, configurable: true }));
  const other = await newSession();
  await callApi("/v1/codexd/turn", { sessionId: other, input: "Another ask=file" });
  await waitUntil(page, () => document.querySelector("#waiting").textContent === "2 wait");
  assert.equal(await page.evaluate(() => window.notified[0].title), "Another ask=file: Change these files?");
  await page.evaluate(() => Object.defineProperty(document, "hidden", { value: false }));
  await page.keyboard.press("Alt+KeyR");
  await waitUntil(page, (id) => decodeURIComponent(location.hash) === `#${id}`, other);
  await page.click('.request button:has-text("Decline")');
  await waitUntil(page, () => window.notified[0].shown.isClosed);
  await page.click("#waiting");
  await page.click('.request button:has-text("Decline")');
  await page.waitForSelector("#waiting", { state: "hidden" });
  assert.ok(!(await page.getAttribute("#icon", "href")).includes("circle"));

  // Search, the menu, fork.
  await page.focus("#conversation");
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement.id), "search");
  await page.fill("#search", "oldest");
  await waitUntil(page, () => document.querySelectorAll(".session").length === 1);
  await page.fill("#search", "");
  await page.click("#show-menu");
  await checkAxe(page, "the menu");
  await page.keyboard.press("Escape");
  await page.waitForSelector("#menu", { state: "hidden" });
  // The error of a change is said in its dialog.
  await page.click("#show-menu");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.fill("#action-field", "A better name");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#action-problem:not(:empty)");
  await checkAxe(page, "the dialog of an action");
  await page.click("#action-cancel");
  await page.click("#show-menu");
  await page.click("#fork-session");
  await waitUntil(page, (id) => decodeURIComponent(location.hash) !== `#${id}`, asking);
  await page.goBack();
  await waitUntil(page, () => document.querySelector("#session-title").textContent === "The oldest ask=command");

  // A draft survives a reload, Enter sends, an image is pasted, the settings are sent.
  await page.fill("#prompt", "text=hello");
  await page.reload();
  await waitUntil(page, () => document.querySelector("#prompt").value === "text=hello");
  await page.selectOption("#turn-sandbox", "read-only");
  await page.selectOption("#turn-effort", "high");
  await page.evaluate((data) => {
    const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], "a.png", { type: "image/png" }));
    document.querySelector("#prompt").dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true }));
  }, IMAGE);
  await page.waitForSelector("#images img");
  await checkAxe(page, "an attached image");
  const [sent] = await Promise.all([
    page.waitForRequest((request) => request.method() === "POST" && request.url().endsWith("/turn")),
    page.press("#prompt", "Enter"),
  ]);
  const input = [{ type: "text", text: "text=hello", text_elements: [] }, { type: "image", url: `data:image/png;base64,${IMAGE}` }];
  assert.deepEqual(sent.postDataJSON(), { sessionId: asking, input, whenBusy: "refuse", effort: "high", sandboxPolicy: { type: "readOnly" } });
  await waitUntil(page, () => document.querySelector("#prompt").value === "" && document.querySelector("#images").hidden);
  await waitUntil(page, () => document.querySelector("#session-state").textContent === "idle");
  assert.match(await page.textContent(".turn:last-child .user"), /text=hello\s*\[image\]/);
  await page.press("#prompt", "ArrowUp");
  assert.equal(await page.inputValue("#prompt"), "text=hello");
  await page.press("#prompt", "ArrowDown");
  assert.equal(await page.inputValue("#prompt"), "");

  // Later, taken back, and interrupted by Escape.
  await page.fill("#prompt", "text=tomorrow");
  await page.click("#send-later");
  await page.click("#action-submit");
  await page.waitForSelector("#queued time");
  await page.fill("#prompt", "a draft");
  await page.click('#queued button:has-text("Take back")');
  await waitUntil(page, () => document.querySelector("#prompt").value === "text=tomorrow\na draft");
  await page.fill("#prompt", "hang");
  await page.press("#prompt", "Enter");
  await waitUntil(page, () => /^Working · \d+ s$/.test(document.querySelector("#working").textContent));
  await page.click("#show-menu");
  await page.keyboard.press("Escape");
  await page.press("#prompt", "Escape");
  await waitUntil(page, () => document.querySelector("#working").textContent === "");
  await waitUntil(page, () => document.querySelector(".turn:last-child .turn-status").dataset.state === "interrupted");

  // The address of a turn leads to it.
  const { session } = await callApi(`/v1/codexd/sessions/${asking}`);
  await page.goto(`${url}/#${asking}/${session.lastTurnId}`);
  await page.reload();
  await waitUntil(page, () => document.querySelector("#turns:not([aria-busy])") && document.querySelector(".turn:last-child .turn-status"));
  assert.equal(await page.textContent("#notice"), "");

  // A crash loop is said where one looks, and so is a daemon that is gone.
  let sockets = [];
  await page.routeWebSocket(/events/, (socket) => {
    sockets.push(socket);
    socket.connectToServer().onMessage((message) => {
      const json = JSON.parse(message);
      const child = json.snapshot?.daemon.child;
      if (child) Object.assign(child, { state: "crash_loop", lastError: "It exited with code 1." });
      if (child) json.snapshot.account.rateLimits = { primary: { usedPercent: 87, windowDurationMins: 300, resetsAt: null }, secondary: null };
      socket.send(JSON.stringify(json));
    });
  });
  await page.reload();
  await waitUntil(page, () => document.querySelector("#trouble-text").textContent.includes("exits repeatedly. It exited with code 1."));
  assert.equal(await page.textContent("#limit"), "5 h limit 87 % used");
  await checkAxe(page, "a crash loop");
  await page.click("#trouble-action");
  await page.waitForSelector("#health:not([hidden]) #no-hooks");
  assert.match(await page.textContent("#child-facts"), /Sleepcodexd does not keep the machine awake/);
  await page.route("**/describe", (route) => route.abort());
  for (const socket of sockets) await socket.close();
  await waitUntil(page, () => document.body.hasAttribute("data-lost") && /^No connection to codexd since/.test(document.querySelector("#trouble-text").textContent));
  await checkAxe(page, "a lost connection");
  await page.unroute("**/describe");
  sockets = [];
  await page.click("#trouble-action");
  await page.waitForSelector('#connection[data-state="good"]');
  assert.ok(!(await page.evaluate(() => document.body.hasAttribute("data-lost"))));
}, { expected: ["status of 502", "status of 400", "status of 409", "ERR_FAILED"] });
