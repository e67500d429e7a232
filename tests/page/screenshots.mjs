// Screenshots of the page with the demo: screenshots.mjs CODEXD DIRECTORY. Two of them are docs/page*.png.

import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const [codexd, directory] = process.argv.slice(2);
const { chromium } = createRequire(join(process.env.CODEXD_PAGE_TOOLS, "package.json"))("playwright-core");

// What the pictures show instead of the directory of the projects.
const SHOWN_HOME = "/home/me";
const PROJECTS = {
  greeter: ["Say hello in three languages.", "hello"],
  parser: ["Why does the parser drop the last line?", "Make the parser keep the last line."],
  website: ["Is every image of the site compressed?"],
};
const WIDE = { viewport: { width: 1280, height: 860 } };
const NARROW = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 };

const home = mkdtempSync(join(tmpdir(), "codexd-screenshots-"));
const daemon = spawn(codexd, ["start", "--demo", "--local-api-base", "http://127.0.0.1:0", "--state-dir", join(home, "state"), "--logs-dir", join(home, "logs")], { stdio: ["ignore", "pipe", "pipe"] });

// Reads the address of the daemon from what it prints.
async function addressOf(process) {
  for await (const line of createInterface({ input: process.stderr })) {
    const address = line.match(/http:\/\/127\.0\.0\.1:[1-9]\d*/);
    if (address) return address[0];
  }
  throw new Error("codexd ended without its address");
}

const url = await addressOf(daemon);
daemon.stderr.resume();

async function callApi(path, body) {
  const response = await fetch(url + path, body && { method: "POST", body: JSON.stringify(body) });
  const json = await response.json();
  if (!response.ok) throw new Error(JSON.stringify(json));
  return json.data;
}

async function newSession(project) {
  const cwd = join(home, project);
  mkdirSync(cwd, { recursive: true });
  return (await callApi("/v1/codexd/sessions", { cwd })).session.sessionId;
}

const submit = (sessionId, input, more = {}) => callApi("/v1/codexd/turn", { sessionId, input, ...more });

// The open request of a session.
async function requestOf(sessionId) {
  for (;;) {
    const { requests } = await callApi(`/v1/codexd/requests?sessionId=${sessionId}`);
    const open = requests.find((request) => request.status === "pending");
    if (open) return open.requestId;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const browser = await chromium.launch({ executablePath: process.env.CODEXD_CHROMIUM, args: ["--no-sandbox"] });

// Takes a picture once the page shows `ready`; `act` does what leads to its state.
async function take(name, address, options, ready, act = async () => {}) {
  const context = await browser.newContext({ locale: "en-GB", ...options });
  const page = await context.newPage();
  await page.goto(`${url}/${address}`);
  await page.waitForSelector('#connection[data-state="good"]', { state: "attached" });
  await act(page);
  await page.waitForSelector(ready);
  await page.evaluate(() => document.fonts.ready);
  await page.evaluate(
    ([from, to]) => {
      const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(from, to);
    },
    [home, SHOWN_HOME],
  );
  await page.screenshot({ path: join(directory, `${name}.png`) });
  console.log(`${name}.png`);
  await context.close();
}

try {
  mkdirSync(directory, { recursive: true });
  const sessions = {};
  const turns = [];
  for (const [project, prompts] of Object.entries(PROJECTS)) {
    for (const prompt of prompts) {
      const id = await newSession(project);
      sessions[prompt] = id;
      turns.push([id, (await submit(id, prompt)).turnId]);
      if (prompt !== "hello") await callApi(`/v1/codexd/requests/${await requestOf(id)}`, { decision: "accept" });
    }
  }
  for (const [id, turn] of turns) await callApi(`/v1/codexd/sessions/${id}/turns/${turn}?wait=60`);
  const busy = await newSession("website");
  await submit(busy, "long");
  const asking = await newSession("greeter");
  await submit(asking, "Run the tests of the greeter.");
  await requestOf(asking);

  await take("page", `#${asking}`, WIDE, ".request");
  await take("page-narrow", `#${asking}`, { ...NARROW, colorScheme: "dark" }, ".request");
  await take("sessions-narrow", "", NARROW, "#waiting:not([hidden])");
  const answered = sessions["Why does the parser drop the last line?"];
  await take("answer", `#${answered}`, WIDE, '.turn-status[data-state="completed"]');
  await take("answer-dark", `#${answered}`, { ...WIDE, colorScheme: "dark" }, '.turn-status[data-state="completed"]');
  await submit(busy, "Then write down what was compressed.", { whenBusy: "queue" });
  await submit(busy, "Look for new images.", { notBefore: new Date(Date.now() + 86_400_000).toISOString() });
  await take("queue", `#${busy}`, WIDE, "#queued li:nth-child(2)", (page) => page.click("#show-menu"));
  await take("state", `#${answered}`, { ...WIDE, colorScheme: "dark" }, "#restarts li", (page) => page.click("#show-health"));
  await take("lost", `#${answered}`, WIDE, "#trouble:not([hidden])", async (page) => {
    await page.waitForSelector('.turn-status[data-state="completed"]');
    daemon.kill("SIGKILL");
  });
} finally {
  await browser.close();
  daemon.kill("SIGKILL");
  rmSync(home, { recursive: true, force: true });
}
