// A person with a real Chromium. What the browser complains of is counted, and nothing may come from elsewhere.

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
const PATIENCE = 30_000;

// Measures frames and long tasks from the first script on.
function measure() {
  const found = { longestFrame: 0, longestTask: 0, violations: [] };
  window.found = found;
  document.addEventListener("securitypolicyviolation", (event) => found.violations.push(`${event.violatedDirective}: ${event.blockedURI}`));
  new PerformanceObserver((list) => {
    for (const task of list.getEntries()) found.longestTask = Math.max(found.longestTask, task.duration);
  }).observe({ type: "longtask", buffered: true });
  let before = performance.now();
  const look = (now) => {
    found.longestFrame = Math.max(found.longestFrame, now - before);
    before = now;
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}

// Plays a scene, then checks what the browser noted. `expected` are complaints that belong to the scene.
export async function play(scene, { expected = [], ...options } = {}) {
  const browser = await chromium.launch({ executablePath: process.env.CODEXD_CHROMIUM, args: ["--no-sandbox"] });
  const complaints = [];
  const addresses = [];
  const open = async (more = {}) => {
    const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, locale: "en-GB", ...options, ...more });
    context.setDefaultTimeout(PATIENCE);
    await context.addInitScript(measure);
    const page = await context.newPage();
    page.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()));
    page.on("pageerror", (error) => complaints.push(String(error.stack ?? error)));
    page.on("request", (request) => addresses.push(request.url()));
    page.on("websocket", (socket) => addresses.push(socket.url()));
    return page;
  };
  try {
    const page = await open();
    await scene(page, open, addresses);
    for (const one of page.context().pages()) assert.deepEqual(await one.evaluate(() => window.found.violations), []);
    assert.deepEqual(complaints.filter((text) => !expected.some((word) => text.includes(word))), []);
    const own = [url, url.replace("http:", "ws:"), "data:"];
    assert.deepEqual(addresses.filter((address) => !own.some((start) => address.startsWith(start))), [], "fetched from elsewhere");
  } finally {
    await browser.close();
  }
}

export async function live(page, address = url) {
  await page.goto(address);
  await page.waitForSelector('#connection[data-state="good"]');
}

// Asks the daemon as a program does.
export async function ask(path, body) {
  const answer = await fetch(url + path, body && { method: "POST", body: JSON.stringify(body) });
  const json = await answer.json();
  assert.ok(answer.ok, JSON.stringify(json));
  return json.data;
}

export async function newSession(fields = {}) {
  return (await ask("/v1/codexd/sessions", fields)).session.sessionId;
}

// All text that the agent said in a session, as the log has it.
export async function saidInLog(sessionId) {
  let text = "";
  let after = "0";
  for (;;) {
    const page = await ask(`/v1/codexd/events?limit=1000&sessionId=${sessionId}&after=${after}`);
    for (const event of page.events) if (event.type === "app-server.turn.message.delta") text += event.detail.delta;
    after = page.cursor;
    if (Number(after.split("-").pop()) >= page.latest) return text;
  }
}

// All text of the agent that stands in the page.
export const saidOnPage = (page) => page.$$eval(".agent .words", (all) => all.map((one) => one.textContent).join(""));

// Waits until this holds in the page.
export const until = (page, condition, argument) => page.waitForFunction(condition, argument, { polling: 50 });

// Has the machine end the daemon without a warning and start it again.
export async function restart() {
  const lines = createInterface({ input: process.stdin });
  console.log("restart");
  await lines[Symbol.asyncIterator]().next();
  lines.close();
}

// What axe finds that is serious.
export async function axe(page, what) {
  await page.evaluate(readFileSync(join(tools, "node_modules/axe-core/axe.min.js"), "utf8"));
  const { violations, passes } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  const grave = violations.filter((one) => ["serious", "critical"].includes(one.impact));
  const told = grave.map((one) => `${one.id}: ${one.nodes.map((node) => `${node.html} ${node.failureSummary}`).join("; ")}`);
  assert.deepEqual(told, [], what);
  console.log(`axe, ${what}: ${passes.length} rules hold, ${violations.length} minor ones do not (${violations.map((one) => one.id)})`);
}
