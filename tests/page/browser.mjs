// Helpers of the page tests: they drive Chromium, collect its errors and warnings, and allow requests to the daemon only.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline/promises";

const tools = process.env.CODEXD_PAGE_TOOLS;
const require = createRequire(join(tools, "package.json"));
const { chromium } = require("playwright-core");

export const url = process.env.CODEXD_URL;
export const workspace = process.env.CODEXD_WORKSPACE;
const DEFAULT_TIMEOUT_MS = 30_000;

// Measures frames and long tasks; runs before the scripts of the page.
function measure() {
  const found = { longestFrame: 0, longestTask: 0, violations: [] };
  window.found = found;
  document.addEventListener("securitypolicyviolation", (event) => found.violations.push(`${event.violatedDirective}: ${event.blockedURI}`));
  new PerformanceObserver((list) => {
    for (const task of list.getEntries()) found.longestTask = Math.max(found.longestTask, task.duration);
  }).observe({ type: "longtask", buffered: true });
  let before = performance.now();
  const onFrame = (now) => {
    found.longestFrame = Math.max(found.longestFrame, now - before);
    before = now;
    requestAnimationFrame(onFrame);
  };
  requestAnimationFrame(onFrame);
}

// Runs a test, then checks the problems that the browser reported. `expected` are parts of the texts of expected problems.
export async function runTest(test, { expected = [], ...options } = {}) {
  const browser = await chromium.launch({ executablePath: process.env.CODEXD_CHROMIUM, args: ["--no-sandbox"] });
  const problems = [];
  const addresses = [];
  const open = async (more = {}) => {
    const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, locale: "en-GB", ...options, ...more });
    context.setDefaultTimeout(DEFAULT_TIMEOUT_MS);
    await context.addInitScript(measure);
    const page = await context.newPage();
    page.on("console", (message) => ["error", "warning"].includes(message.type()) && problems.push(message.text()));
    page.on("pageerror", (error) => problems.push(String(error.stack ?? error)));
    page.on("request", (request) => addresses.push(request.url()));
    page.on("websocket", (socket) => addresses.push(socket.url()));
    return page;
  };
  try {
    const page = await open();
    await test(page, open, addresses);
    for (const one of page.context().pages()) assert.deepEqual(await one.evaluate(() => window.found.violations), []);
    assert.deepEqual(problems.filter((text) => !expected.some((part) => text.includes(part))), []);
    const own = [url, url.replace("http:", "ws:"), "data:"];
    assert.deepEqual(addresses.filter((address) => !own.some((start) => address.startsWith(start))), [], "requests to other hosts");
  } catch (error) {
    console.log("problems that the browser reported:", problems);
    throw error;
  } finally {
    await browser.close();
  }
}

export async function openPage(page, address = url) {
  await page.goto(address);
  // On a narrow screen it is not shown.
  await page.waitForSelector('#connection[data-state="good"]', { state: "attached" });
}

// Sends a request to the daemon directly.
export async function callApi(path, body) {
  const response = await fetch(url + path, body && { method: "POST", body: JSON.stringify(body) });
  const json = await response.json();
  assert.ok(response.ok, JSON.stringify(json));
  return json.data;
}

export async function newSession(fields = {}) {
  return (await callApi("/v1/codexd/sessions", fields)).session.sessionId;
}

// The text of all agent messages of a session, from the log.
export async function messageTextInLog(sessionId) {
  let text = "";
  let after = "0";
  for (;;) {
    const page = await callApi(`/v1/codexd/events?limit=1000&sessionId=${sessionId}&after=${after}`);
    for (const event of page.events) if (event.type === "app-server.turn.message.delta") text += event.detail.delta;
    after = page.cursor;
    if (Number(after.split("-").pop()) >= page.latest) return text;
  }
}

// The text of all agent messages on the page.
export const messageTextOnPage = (page) => page.$$eval(".agent .text", (all) => all.map((one) => one.textContent).join(""));

// Waits until the condition is true in the page.
export const waitUntil = (page, condition, argument) => page.waitForFunction(condition, argument, { polling: 50 });

// Asks the Rust test to kill the daemon and start it again.
export async function restart() {
  const lines = createInterface({ input: process.stdin });
  console.log("restart");
  await lines[Symbol.asyncIterator]().next();
  lines.close();
}

// Checks the page with axe; any violation fails the test.
export async function checkAxe(page, what) {
  await page.evaluate(readFileSync(join(tools, "node_modules/axe-core/axe.min.js"), "utf8"));
  const { violations, passes } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  const failures = violations.map((one) => `${one.id}: ${one.nodes.map((node) => `${node.html} ${node.failureSummary}`).join("; ")}`);
  assert.deepEqual(failures, [], what);
  console.log(`axe, ${what}: ${passes.length} rules pass`);
}
