// A daemon that wants a token: it is asked for once, and is in no address.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { play, until, url } from "./browser.mjs";

const token = process.env.CODEXD_TOKEN;

await play(
  async (page, open, addresses) => {
    await page.goto(url);
    await page.waitForSelector("#token-dialog[open]");
    assert.ok(await page.$eval("#token", (field) => field === document.activeElement), "the field has no focus");
    await page.keyboard.press("Escape");
    assert.ok(await page.$("#token-dialog[open]"), "there is nothing to see without a token");
    await page.fill("#token", "not-the-token");
    await page.keyboard.press("Enter");
    await until(page, () => document.querySelector("#token-problem").textContent.includes("does not take"));
    await page.fill("#token", token);
    await page.keyboard.press("Enter");
    await page.waitForSelector('#connection[data-state="good"]');
    assert.equal(await page.$("#token-dialog[open]"), null);

    // A reload of this tab has it; another tab does not, unless it was to be remembered.
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

    // The token changes: who is connected is asked for the new one and goes on.
    const next = [...token].reverse().join("");
    writeFileSync(process.env.CODEXD_TOKEN_FILE, next);
    await third.waitForSelector("#token-dialog[open]");
    assert.match(await third.textContent("#token-problem"), /does not take/);
    await third.fill("#token", next);
    await third.keyboard.press("Enter");
    await third.waitForSelector('#connection[data-state="good"]');

    assert.deepEqual(addresses.filter((address) => address.includes(token.slice(0, 16))), []);
    const log = await third.evaluate(() => performance.getEntriesByType("resource").map((entry) => entry.name).join("\n"));
    assert.ok(!log.includes(token));
    console.log(`asked once a tab, ${addresses.length} addresses without the token`);
  },
  // The browser notes each 401.
  { expected: ["status of 401"] },
);
