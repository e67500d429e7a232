// A daemon with a token: the page asks for it once and never puts it into a URL.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { runTest, waitUntil, url } from "./browser.mjs";

const token = process.env.CODEXD_TOKEN;

await runTest(
  async (page, open, addresses) => {
    await page.goto(url);
    await page.waitForSelector("#token-dialog[open]");
    assert.ok(await page.$eval("#token", (field) => field === document.activeElement), "the field has no focus");
    await page.keyboard.press("Escape");
    assert.ok(await page.$("#token-dialog[open]"), "the dialog stays open without a token");
    await page.fill("#token", "not-the-token");
    await page.keyboard.press("Enter");
    await waitUntil(page, () => document.querySelector("#token-problem").textContent.includes("rejected"));
    await page.fill("#token", token);
    await page.keyboard.press("Enter");
    await page.waitForSelector('#connection[data-state="good"]');
    assert.equal(await page.$("#token-dialog[open]"), null);

    // A reload keeps the token; another tab does not have it, unless “Remember” was selected.
    await page.reload();
    await page.waitForSelector('#connection[data-state="good"]');
    assert.equal(await page.$("#token-dialog[open]"), null);
    const other = await page.context().newPage();
    await other.goto(url);
    await other.waitForSelector("#token-dialog[open]");
    await other.fill("#token", token);
    await other.check("#token-remember");
    await other.keyboard.press("Enter");
    await other.waitForSelector('#connection[data-state="good"]');
    const third = await page.context().newPage();
    await third.goto(url);
    await third.waitForSelector('#connection[data-state="good"]');

    // The token changes: a connected page asks for the new one and continues.
    const next = [...token].reverse().join("");
    writeFileSync(process.env.CODEXD_TOKEN_FILE, next);
    await third.waitForSelector("#token-dialog[open]");
    assert.match(await third.textContent("#token-problem"), /rejected/);
    await third.fill("#token", next);
    await third.keyboard.press("Enter");
    await third.waitForSelector('#connection[data-state="good"]');

    assert.deepEqual(addresses.filter((address) => address.includes(token.slice(0, 16))), []);
    const log = await third.evaluate(() => performance.getEntriesByType("resource").map((entry) => entry.name).join("\n"));
    assert.ok(!log.includes(token));
    console.log(`asked once per tab, ${addresses.length} URLs without the token`);
  },
  // The browser reports each 401.
  { expected: ["status of 401"] },
);
