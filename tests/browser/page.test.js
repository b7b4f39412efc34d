// The web page in a real browser: search, crop, click through, filter, compare, browse, add, delete, errors, sign-in.
// SHOTS=DIR keeps pictures of it. CHROMIUM names the browser, SEMBLANCE the program.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { serve } from "./server.js";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const DESKTOP = { width: 1280, height: 860 };
const PHONE = { width: 390, height: 844 };
const LIMIT = 20_000;

let server;
let browser;

before(async () => {
  server = await serve();
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

/** A fresh page; whatever goes wrong in it fails the test. */
async function open(options = {}, url = server.url) {
  const { path = "/", ...rest } = options;
  const context = await browser.newContext({ viewport: DESKTOP, ...rest });
  const page = await context.newPage();
  page.setDefaultTimeout(LIMIT);
  page.faults = [];
  page.on("pageerror", (error) => page.faults.push(String(error)));
  page.on("console", (message) => {
    const text = message.text();
    // The browser tells of every answer that is no success; the page is tested for what it makes of it.
    if (message.type() === "error" && !text.startsWith("Failed to load resource")) page.faults.push(text);
  });
  await page.goto(url + path, { waitUntil: "networkidle" });
  return page;
}

async function close(page) {
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

const tiles = (page, list = "#hits") => page.locator(`${list} .tile`);

async function searched(page) {
  await page.locator("#hits .tile, #hits .empty").first().waitFor();
  await page.waitForFunction(() => !document.getElementById("hits").hasAttribute("aria-busy"));
}

async function choose(page, at) {
  await page.setInputFiles("#choose", server.photo(at));
  await page.locator("#stage img").waitFor();
  await searched(page);
}

/** The key that the first hit's dialog tells. */
async function firstKey(page) {
  await tiles(page).first().getByRole("button", { name: /^More about/ }).click();
  const key = await page.locator("#item-dialog dt", { hasText: "Key" }).locator("xpath=following-sibling::dd[1]").innerText();
  await page.locator("#item-dialog").getByRole("button", { name: "Close" }).click();
  return key;
}

async function accessible(page) {
  // The page's policy lets no script in that is not its own, so it is handed to the debugger.
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run(document));
  const serious = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  assert.deepEqual(serious.map(({ id, nodes }) => [id, nodes.map(({ html }) => html).slice(0, 3)]), []);
}

async function shot(page, name) {
  if (!process.env.SHOTS) return;
  mkdirSync(process.env.SHOTS, { recursive: true });
  await page.screenshot({ path: join(process.env.SHOTS, `${name}.png`) });
}

test("a photo finds its product first, a crop searches again, a click goes on and back", async () => {
  const page = await open();
  await accessible(page);
  await choose(page, 5);
  assert.equal(await firstKey(page), server.photos[5]);
  const score = await page.locator(".score").first().innerText();
  assert.equal(score, "1.000");

  const frame = await page.locator("#stage").boundingBox();
  await page.mouse.move(frame.x + frame.width * 0.3, frame.y + frame.height * 0.3);
  await page.mouse.down();
  await page.mouse.move(frame.x + frame.width * 0.7, frame.y + frame.height * 0.75, { steps: 4 });
  await Promise.all([page.waitForResponse(/search\/photo/), page.mouse.up()]);
  await page.locator("#stage .crop").waitFor();
  await searched(page);
  assert.notEqual(await page.locator(".score").first().innerText(), "1.000");
  await accessible(page);
  await page.getByRole("button", { name: "Whole photo" }).click();
  await page.waitForFunction(() => document.querySelector(".score")?.textContent === "1.000");

  // By keyboard: the third hit.
  await tiles(page).nth(2).locator(".open").focus();
  await page.keyboard.press("Enter");
  await page.waitForURL(/#search\/\d+$/);
  await searched(page);
  assert.equal(await tiles(page).count(), 24);
  await page.goBack();
  await page.waitForFunction(() => document.querySelector(".score")?.textContent === "1.000");
  await close(page);
});

test("it works below the path of a proxy that takes the path off", async () => {
  const outside = [];
  const proxy = createServer((asked, answer) => {
    if (!asked.url.startsWith("/tools/shop/")) {
      outside.push(asked.url);
      answer.writeHead(404).end();
      return;
    }
    const { method, headers } = asked;
    const forwarded = request(server.url + asked.url.slice("/tools/shop".length), { method, headers }, (got) => {
      answer.writeHead(got.statusCode, got.headers);
      got.pipe(answer);
    });
    asked.pipe(forwarded);
  });
  await new Promise((done) => proxy.listen(0, "127.0.0.1", done));
  const page = await open({ path: "/tools/shop/" }, `http://127.0.0.1:${proxy.address().port}`);
  await choose(page, 5);
  assert.equal(await firstKey(page), server.photos[5]);
  await page.waitForFunction(() => document.querySelector("#hits .tile img")?.naturalWidth > 0);
  await tiles(page).nth(2).locator(".open").click();
  await page.waitForURL(/#search\/\d+$/);
  await searched(page);
  await page.waitForFunction(() => document.querySelector("#stage img")?.naturalWidth > 0);
  await page.getByRole("link", { name: "About" }).click();
  await page.getByRole("link", { name: "API" }).waitFor();
  const [docs] = await Promise.all([page.context().waitForEvent("page"), page.getByRole("link", { name: "API" }).click()]);
  await docs.getByText("Search with a photograph").first().waitFor();
  assert.deepEqual(outside.filter((url) => url !== "/favicon.ico"), []);
  await close(page);
  proxy.closeAllConnections();
  proxy.close();
});

test("photos can be dropped and pasted", async () => {
  const page = await open();
  const bytes = readFileSync(server.photo(9)).toString("base64");
  for (const kind of ["drop", "paste"]) {
    await page.evaluate(([kind, bytes]) => {
      const data = new DataTransfer();
      data.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], "photo.jpg", { type: "image/jpeg" }));
      const event = kind === "drop"
        ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
        : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
      document.getElementById("drop").dispatchEvent(event);
    }, [kind, bytes]);
    await page.locator("#stage img").waitFor();
    await searched(page);
    assert.equal(await firstKey(page), server.photos[9], kind);
    await page.getByRole("button", { name: "Clear" }).click();
    await page.locator("#hits .empty").waitFor();
  }
  await close(page);
});

test("results are filtered, grouped and compared", async () => {
  const page = await open();
  await choose(page, 5);
  const name = await tiles(page).first().locator(".name").innerText();
  await page.locator("#search-filter select").first().selectOption({ index: 1 });
  await page.waitForFunction(() => document.querySelectorAll("#hits .tile").length === 4);
  await page.locator("#search-filter select").first().selectOption("");
  await page.getByLabel("Best photo of each class only").check();
  await page.waitForFunction(() => document.querySelectorAll("#hits .tile").length === 12);
  assert.equal(await tiles(page).first().locator(".name").innerText(), name);
  for (const at of [0, 1]) await tiles(page).nth(at).getByRole("checkbox").check();
  await page.getByRole("button", { name: "Compare 2" }).click();
  await page.locator("#compare-dialog[open]").waitFor();
  assert.equal(await page.locator("#compare-dialog img").count(), 3);
  await accessible(page);
  await shot(page, "compare");
  await page.keyboard.press("Escape");
  await close(page);
});

test("items are browsed, added, found, and deleted", async () => {
  const page = await open({ path: "/#browse" });
  await page.locator("#items .tile").first().waitFor();
  assert.equal(await tiles(page, "#items").count(), 48);
  await accessible(page);

  await page.getByRole("link", { name: "Add", exact: true }).click();
  const photo = join(server.dir, "new.png");
  const canvas = await page.evaluate(() => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [90, 70];
    const pen = canvas.getContext("2d");
    pen.fillStyle = "#f0f"; pen.fillRect(0, 0, 90, 70);
    pen.fillStyle = "#0f0"; pen.fillRect(20, 10, 30, 40);
    return canvas.toDataURL("image/png").split(",")[1];
  });
  writeFileSync(photo, Buffer.from(canvas, "base64"));
  await page.setInputFiles("#add-photo", photo);
  const evil = "<img src=x onerror=alert(1)>";
  await page.getByLabel("Class", { exact: true }).fill(evil);
  await page.getByLabel("Key", { exact: true }).fill("new/one");
  await page.getByLabel("More, one per line").fill("colour: red\nprice: 12.5");
  await accessible(page);
  await shot(page, "add");
  await page.getByRole("button", { name: "Add", exact: true }).click();
  await page.getByRole("link", { name: "Search with it" }).waitFor();

  await page.getByRole("link", { name: "Search", exact: true }).click();
  await page.setInputFiles("#choose", photo);
  await page.waitForFunction((evil) => document.querySelector("#hits .name")?.textContent === evil, evil);
  assert.equal(await tiles(page).first().locator(".more").innerText(), "colour: red, price: 12.5");
  assert.equal(await page.locator("#hits img[src=x]").count(), 0, "metadata is text, never HTML");

  await tiles(page).first().getByRole("button", { name: /^More about/ }).click();
  await page.getByRole("button", { name: "Delete" }).click();
  await page.getByRole("button", { name: "Really delete it?" }).click();
  await page.waitForFunction((evil) => document.querySelector("#hits .name")?.textContent !== evil, evil);
  await page.getByRole("link", { name: "Browse" }).click();
  await page.waitForFunction(() => document.getElementById("browse-status").textContent === "48 items in all");
  await close(page);
});

test("a text file and a server that is gone are told, and nothing breaks", async () => {
  const page = await open();
  const text = join(server.dir, "notes.txt");
  writeFileSync(text, "no photograph at all");
  await page.setInputFiles("#choose", text);
  await page.locator("#search-error:not([hidden])").waitFor();
  assert.match(await page.locator("#search-error").innerText(), /none of the image formats known/);
  await page.route("**/search/photo", (route) => route.abort());
  await page.setInputFiles("#choose", server.photo(3));
  await page.getByText("The server cannot be reached.").waitFor();
  await accessible(page);
  await page.unroute("**/search/photo");
  await page.getByRole("button", { name: "Try again" }).click();
  await searched(page);
  assert.equal(await firstKey(page), server.photos[3]);
  await close(page);
});

test("warnings of the server are shown, and go with the next answer", async () => {
  const page = await open({ path: "/#add" });
  await page.setInputFiles("#add-photo", server.photo(2));
  await page.locator("#add-key").fill("shadowed");
  await page.locator("#add-more").fill("class: OTHER");
  await page.getByRole("button", { name: "Add", exact: true }).click();
  await page.locator("#add-warnings:not([hidden])").waitFor();
  assert.match(await page.locator("#add-warnings").innerText(), /"metadata\.class"/);
  await accessible(page);
  await page.evaluate(() => fetch("v1/indexes/shop/items?key=shadowed", { method: "DELETE" }));

  const warned = async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, json: { ...await response.json(), warnings: ["no item has the field \"<b>prise</b>\""] } });
  };
  // With an item: the browser does not hand out the body of a form with a photo.
  const id = await page.evaluate(async () => (await (await fetch("v1/indexes/shop/items?limit=1")).json()).items[0].id);
  for (const [path, list, place] of [["**/search", "search", `#search/${id}`], ["**/items?*", "browse", "#browse"]]) {
    await page.route(path, warned);
    await page.evaluate((place) => { location.hash = place; }, place);
    await page.locator(`#${list}-warnings:not([hidden])`).waitFor();
    assert.equal(await page.locator(`#${list}-warnings`).innerText(), "No item has the field \"<b>prise</b>\"");
    await page.unroute(path);
  }
  await page.getByRole("link", { name: "Search", exact: true }).click();
  await choose(page, 6);
  await page.locator("#search-warnings[hidden]").waitFor({ state: "attached" });
  await close(page);
});

test("the facts of the index are told", async () => {
  const page = await open({ path: "/#about" });
  await page.locator("#facts dd").first().waitFor();
  assert.match(await page.locator("#facts").innerText(), /resnet10_tiny/);
  await accessible(page);
  await close(page);
});

test("where a token is wanted the page asks for it", async () => {
  const token = "a-token-that-is-long-enough";
  const guarded = await serve([], { SEMBLANCE_TOKEN: token });
  try {
    const page = await open({}, guarded.url);
    await page.locator("#sign-in[open]").waitFor();
    await accessible(page);
    await page.getByLabel("Token").fill("a-token-that-is-not-right");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByText("That is not the token.").waitFor();
    await page.getByLabel("Token").fill(token);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("link", { name: "Browse" }).click();
    await page.locator("#items img").first().waitFor();
    await page.waitForFunction(() => document.querySelector("#items img").naturalWidth > 0);
    await close(page);
  } finally {
    await guarded.stop();
  }
});

for (const [size, viewport] of [["desktop", DESKTOP], ["phone", PHONE]]) {
  for (const colorScheme of ["light", "dark"]) {
    test(`it fits a ${size} in the ${colorScheme}`, async () => {
      const page = await open({ viewport, colorScheme });
      await shot(page, `${size}-${colorScheme}-empty`);
      await choose(page, 5);
      await page.waitForLoadState("networkidle");
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(overflow <= 0, `${overflow} pixels too wide`);
      await accessible(page);
      await shot(page, `${size}-${colorScheme}-hits`);
      await page.getByRole("link", { name: "Browse" }).click();
      await page.locator("#items .tile").first().waitFor();
      await page.waitForLoadState("networkidle");
      await shot(page, `${size}-${colorScheme}-browse`);
      await tiles(page, "#items").first().getByRole("button", { name: /^More about/ }).click();
      await page.locator("#item-dialog[open]").waitFor();
      await accessible(page);
      await shot(page, `${size}-${colorScheme}-item`);
      await page.locator("#item-dialog").getByRole("button", { name: "Close" }).click();
      await page.getByRole("link", { name: "About" }).click();
      await page.locator("#facts dd").first().waitFor();
      await shot(page, `${size}-${colorScheme}-about`);
      await close(page);
    });
  }
}

test("the page is under 100 kB before images", async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  const session = await context.newCDPSession(page);
  await session.send("Network.enable");
  let bytes = 0;
  session.on("Network.loadingFinished", ({ encodedDataLength }) => { bytes += encodedDataLength; });
  await page.goto(server.url, { waitUntil: "networkidle" });
  console.log(`${bytes} bytes transferred till the page could be used`);
  assert.ok(bytes > 1000 && bytes < 100_000, `${bytes} bytes`);
  await context.close();
});
