// The page in Chromium: labels, the native client's logits, servers that end, other people's wallets, altered answers,
// reloads, a narrow screen, the keyboard. Screenshots go to SHOTS (target/screenshots), for people to look at.
//
// CHROMIUM names the browser (/usr/bin/chromium). Skipped, loudly, where there is none.

import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Work, dist, images, root } from "./native.mjs";

const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
const shots = process.env.SHOTS ?? join(root, "target/screenshots");
const playwright = await import("playwright-core").catch(() => null);
const skip = !playwright ? "playwright-core is not installed: npm ci --prefix web/test" : !existsSync(executablePath) && `there is no ${executablePath}`;
if (skip) console.log(`SKIPPED: the page in a browser: ${skip}`);

const LONG = 120_000;
const work = new Work();
let browser;

before(async () => {
  if (skip) return;
  mkdirSync(shots, { recursive: true });
  // Without the last ones it looks for its maker's hosts, which has nothing to do with the page.
  const args = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
  browser = await playwright.chromium.launch({ executablePath, args });
});
after(async () => {
  await browser?.close();
  work.end();
});

/** The demonstration. Its wallets belong to the browser that uses them first, so every test has its own. */
const demonstration = () => work.serve("demo", "--browser", "--no-open", "--network", "vgg3", "--pages", dist);

/** A page with storage of its own, which notes its requests and faults. */
class Page {
  requests = [];
  faults = [];

  static async open(url, options = {}) {
    const opened = new Page();
    opened.context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
    opened.page = await opened.context.newPage();
    opened.page.setDefaultTimeout(LONG);
    opened.page.on("request", (request) => opened.requests.push(request.url()));
    opened.page.on("websocket", (socket) => opened.requests.push(socket.url()));
    opened.page.on("pageerror", (error) => opened.faults.push(error.message));
    opened.page.on("console", (message) => message.type() === "error" && opened.faults.push(message.text()));
    await opened.page.goto(url);
    return opened;
  }

  async opened(kind) {
    await this.page.waitForSelector(`body[data-open=${kind}]`);
    await this.page.waitForFunction(() => document.getElementById("status").textContent.includes("layers"));
  }

  async choose(kind, plan = 0) {
    await this.page.evaluate(() => delete document.body.dataset.open);
    await this.page.locator(`input[name=plan]`).nth(plan).check();
    await this.page.locator(`input[name=kind][value=${kind}]`).check();
    await this.opened(kind);
  }

  async forget() {
    await this.page.evaluate(() => {
      document.body.dataset.answer = "";
    });
  }

  /** Waits for an answer or a problem; returns the label, the logits and the problem's words. */
  async answer() {
    await this.page.waitForFunction(() => document.body.dataset.answer && document.getElementById("progress").hidden);
    return this.page.evaluate(() => {
      const { answer, output } = document.body.dataset;
      return { label: answer, output: JSON.parse(output ?? "null"), problem: document.getElementById("problem").textContent };
    });
  }

  async sample(index) {
    await this.forget();
    await this.page.locator("#samples button").nth(index).click();
    return this.answer();
  }

  async file(...paths) {
    await this.forget();
    await this.page.locator("#picture").setInputFiles(paths.length === 1 ? paths[0] : paths);
    return this.answer();
  }

  left() {
    return this.page.evaluate(() => Number(/(\d+) tickets left/.exec(document.getElementById("status").textContent)[1]));
  }

  shot(name) {
    return this.page.screenshot({ path: join(shots, `${name}.png`), fullPage: true });
  }

  async close() {
    await this.context.close();
    return this;
  }
}

const within = { skip, timeout: 4 * LONG };

test("a guest's sample becomes its label, and what each party sees is shown", within, async () => {
  const demo = await demonstration();
  const page = await Page.open(demo.url);
  await page.opened("guest");
  const before = await page.left();
  assert.equal((await page.sample(1)).label, "ship");
  assert.equal(await page.left(), before - 1);
  const text = (id) => page.page.locator(`#${id}`).textContent();
  assert.match(await text("received-text"), /kB in \d+ messages.*7\.9\d+ of 8 bits/s);
  assert.match(await text("held-text"), /100\.0 % of the weights hidden/);
  assert.match(await text("owner-text"), /32 filters, of 549,984 weights/);
  assert.equal(await page.page.locator("#layers tbody tr").count(), 8);
  const greys = await page.page.evaluate(() => {
    const canvas = document.getElementById("received");
    return new Set(canvas.getContext("2d").getImageData(0, 0, 128, 128).data).size;
  });
  assert.ok(greys > 250, `${greys} values in the picture of the server's bytes`);
  await page.shot("guest");
  await page.page.emulateMedia({ colorScheme: "dark" });
  await page.shot("guest-dark");
  const { requests, faults } = await page.close();
  const host = new URL(demo.url).host;
  assert.deepEqual([...new Set(requests.map((url) => new URL(url).host))], [host], "no request leaves for another host");
  assert.deepEqual(faults, []);
});

test("with keys the label is the same, for every choice of what is hidden", within, async () => {
  const page = await Page.open((await demonstration()).url);
  await page.opened("guest");
  for (const plan of [0, 1]) {
    await page.choose("keyed", plan);
    assert.equal((await page.sample(3)).label, "airplane");
    await page.choose("guest", plan);
    assert.equal((await page.sample(3)).label, "airplane");
  }
  await page.choose("keyed", 1);
  await page.sample(6);
  await page.shot("keyed-last-layers");
  assert.deepEqual((await page.close()).faults, []);
});

test("what is chosen while a picture is classified takes effect behind it", within, async () => {
  const page = await Page.open((await demonstration()).url);
  await page.opened("guest");
  await page.page.evaluate(() => {
    document.body.dataset.answer = "";
    delete document.body.dataset.open;
    document.querySelectorAll("#samples button")[1].click();
  });
  await page.page.waitForFunction(() => !document.getElementById("progress").hidden);
  await page.page.evaluate(() => {
    for (const [name, value] of [["plan", 1], ["kind", "keyed"], ["plan", 0], ["kind", "guest"], ["kind", "keyed"]]) {
      document.querySelector(`input[name=${name}][value="${value}"]`).click();
    }
  });
  const { label, problem } = await page.answer();
  assert.deepEqual([label, problem], ["ship", ""]);
  await page.opened("keyed");
  assert.equal((await page.sample(3)).label, "airplane");
  assert.deepEqual((await page.close()).faults, []);
});

test("pictures of any size and kind can be dropped and chosen", within, async () => {
  const page = await Page.open((await demonstration()).url);
  await page.opened("guest");
  // A photograph, larger than the network's: the browser makes one of the sample, as a WebP file.
  const large = await page.page.evaluate(async () => {
    const image = await createImageBitmap(await (await fetch("demo/sample-1.png")).blob());
    const canvas = new OffscreenCanvas(900, 700);
    canvas.getContext("2d").drawImage(image, 0, 0, 900, 700);
    const bytes = async (type) => [...new Uint8Array(await (await canvas.convertToBlob({ type })).arrayBuffer())];
    return { jpeg: await bytes("image/jpeg"), webp: await bytes("image/webp") };
  });
  for (const [kind, bytes] of Object.entries(large)) {
    const { label } = await page.file({ name: `ship.${kind}`, mimeType: `image/${kind}`, buffer: Buffer.from(bytes) });
    assert.equal(label, "ship", kind);
  }
  await page.forget();
  await page.page.evaluate(async () => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([await (await fetch("demo/sample-3.png")).blob()], "dropped.png", { type: "image/png" }));
    document.getElementById("drop").dispatchEvent(new DragEvent("drop", { bubbles: true, dataTransfer: transfer }));
  });
  assert.equal((await page.answer()).label, "airplane");
  const sample = await page.page.evaluate(async () => [...new Uint8Array(await (await (await fetch("demo/sample-3.png")).blob()).arrayBuffer())]);
  assert.equal((await page.file({ name: "a.png", mimeType: "image/png", buffer: Buffer.from(sample) })).label, "airplane");
  const none = await page.file({ name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("no picture") });
  assert.match(none.problem, /The picture cannot be used.*this browser cannot read the file as a picture/);
  const cut = readFileSync(join(images, "cifar10/00-cat.png")).subarray(0, 600);
  assert.match((await page.file({ name: "cut.png", mimeType: "image/png", buffer: cut })).problem, /cannot be used/);
  await page.close();
});

/** A relay to a server that cuts a guest's connection after so many bytes from the server, until it is healed. */
async function cutting(url, most) {
  const to = Number(new URL(url).port);
  let isHealed = false;
  const relay = createServer((near) => {
    const far = connect(to, "127.0.0.1");
    let isGuest = false;
    let carried = 0;
    near.on("data", (data) => {
      isGuest ||= data.includes("/guests HTTP");
      far.write(data);
    });
    far.on("data", (data) => {
      carried += data.length;
      if (isGuest && !isHealed && carried > most) near.destroy();
      else near.write(data);
    });
    for (const [one, other] of [[near, far], [far, near]]) {
      one.on("close", () => other.destroy());
      one.on("error", () => other.destroy());
    }
  });
  await new Promise((listens) => relay.listen(0, "127.0.0.1", listens));
  const heal = () => {
    isHealed = true;
  };
  return { url: `http://127.0.0.1:${relay.address().port}`, heal, end: () => relay.close() };
}

/** A server with the page, and files of one's own. */
const own = (...args) => work.serve("serve", ...args, "--pages", dist, "--listen", "127.0.0.1:0", "--log", "none");

async function openFiles(page, kind, files) {
  await page.page.waitForFunction(() => !document.getElementById("status").textContent.includes("Loading"));
  await page.page.locator(`input[name=kind][value=${kind}]`).check();
  const isOpen = await page.page.locator("#own").evaluate((details) => details.open);
  if (!isOpen) await page.page.locator("#own summary").click();
  for (const [id, paths] of Object.entries(files)) await page.page.locator(`#${id}`).setInputFiles(paths);
  await page.page.evaluate(() => delete document.body.dataset.open);
  await page.page.locator("#setup button[type=submit]").click();
}

test("with files of one's own, a guest has the native guest's logits", within, async () => {
  const recipient = work.deal(20);
  const server = await own("guests/server", "--tickets", "batch/server");
  const native = await work.serve("serve", "guests/server", "--tickets", "native/server", "--listen", "127.0.0.1:0", "--log", "none");
  const wallet = ["manifest", "tickets", "key"].map((name) => work.at("batch/wallet", name));
  const picture = join(images, "mnist/00-7.png");

  const page = await Page.open(server.url);
  await page.page.waitForFunction(() => document.getElementById("status").textContent.includes("Choose the files"));
  await openFiles(page, "guest", { wallet: wallet.slice(1), identity: work.at("me.key") });
  assert.match(await page.page.locator("#problem").textContent(), /choose “manifest” too/);
  await openFiles(page, "guest", { wallet, identity: work.at("other.key") });
  await page.page.waitForFunction(() => document.getElementById("problem").textContent);
  assert.match(await page.page.locator("#problem").textContent(), /does not open the file. .the wallet is locked for another/);
  await page.shot("wrong-wallet");
  work.run("deal", "guests/owner", "--to", recipient, "--tickets", "2", "--out", "second");
  const mixed = [...wallet.slice(0, 2), work.at("second/wallet/key")];
  await openFiles(page, "guest", { wallet: mixed, identity: work.at("me.key") });
  await page.page.waitForFunction(() => document.getElementById("problem").textContent.includes("belong together"));
  await openFiles(page, "guest", { wallet, identity: work.at("me.key") });
  await page.opened("guest");
  for (let ticket = 0; ticket < 2; ticket += 1) {
    work.run("infer", "--guest", "native/wallet", "--key", "me.key", "--server", native.url, "--outputs", `kept-${ticket}`, picture);
    const { label, output } = await page.file(picture);
    assert.equal(label, "class 7");
    assert.deepEqual(Float32Array.from(output), work.outputs(`kept-${ticket}`)[0]);
  }
  assert.equal(await page.left(), 18);

  // Another tab may not have the wallet at the same time.
  const second = await page.context.newPage();
  await second.goto(server.url);
  const tab = Object.assign(new Page(), { page: second, context: page.context });
  await openFiles(tab, "guest", { wallet, identity: work.at("me.key") });
  await second.waitForFunction(() => document.getElementById("problem").textContent);
  assert.match(await second.locator("#problem").textContent(), /another tab has this wallet open/);
  await second.close();

  // After a reload the used tickets stay used.
  await page.page.reload();
  await openFiles(page, "guest", { wallet, identity: work.at("me.key") });
  await page.opened("guest");
  assert.equal(await page.left(), 18);
  assert.equal((await page.file(picture)).label, "class 7");

  // A browser that knows nothing of it takes used tickets: the server refuses.
  const other = await Page.open(server.url);
  await openFiles(other, "guest", { wallet, identity: work.at("me.key") });
  await other.opened("guest");
  assert.match((await other.file(picture)).problem, /The server refuses.*was used before/);
  await other.close();

  // The server goes: before a ticket is shown, none is used.
  await server.stop();
  const left = await page.left();
  const { problem } = await page.file(picture);
  assert.match(problem, /cannot be reached, or went away/);
  await page.shot("server-gone");
  assert.equal(await page.left(), left);
  await page.close();
});

test("kept files come back after a reload, and are forgotten", within, async () => {
  work.run("seal", "--network", "mnist", "--out", "keyed");
  const server = await own("keyed/server");
  const page = await Page.open(server.url);
  const picture = join(images, "mnist/01-2.png");
  await page.page.locator("input[name=kind][value=keyed]").check();
  await page.page.locator("#remember").check();
  await openFiles(page, "keyed", { bundle: work.at("keyed/client") });
  await page.opened("keyed");
  work.run("infer", "--client", "keyed/client", "--server", server.url, "--outputs", "kept-keyed", picture);
  const { output } = await page.file(picture);
  assert.deepEqual(Float32Array.from(output), work.outputs("kept-keyed")[0]);
  await page.page.reload();
  await page.opened("keyed");
  assert.equal((await page.file(picture)).label, "class 2");
  await page.page.locator("#own summary").click();
  await page.page.locator("#forget").click();
  await page.page.waitForFunction(() => document.getElementById("forget").hidden);
  await page.page.reload();
  await page.page.waitForFunction(() => document.getElementById("status").textContent.includes("Choose the files"));
  await page.close();
});

test("a token is asked for, used and not kept", within, async () => {
  work.run("seal", "--network", "mnist", "--out", "guarded");
  writeFileSync(work.at("token"), "0123456789abcdef0123456789abcdef\n");
  const server = await own("guarded/server", "--token-file", work.at("token"));
  const page = await Page.open(server.url);
  await page.page.locator("input[name=kind][value=keyed]").check();
  await openFiles(page, "keyed", { bundle: work.at("guarded/client") });
  await page.page.waitForFunction(() => document.getElementById("problem").textContent);
  assert.match(await page.page.locator("#problem").textContent(), /it asks for a token/);
  await page.page.locator("#token").fill("0123456789abcdef0123456789abcdef");
  await page.page.locator("#remember").check();
  await openFiles(page, "keyed", { bundle: work.at("guarded/client") });
  await page.opened("keyed");
  const kept = await page.page.evaluate(
    () =>
      new Promise((found) => {
        indexedDB.open("jali").onsuccess = ({ target }) => {
          const request = target.result.transaction("kept").objectStore("kept").get("files");
          request.onsuccess = () => found(JSON.stringify(request.result.options));
        };
      }),
  );
  assert.ok(kept.includes(server.url) && !kept.includes("0123456789abcdef"), kept);
  await page.close();
});

test("an altered answer is noticed and not shown", within, async () => {
  const page = await Page.open((await demonstration()).url);
  await page.opened("guest");
  await page.choose("keyed");
  await page.page.route("**/operators/*", async (route) => {
    const response = await route.fetch();
    const body = await response.body();
    body[body.length >> 1] ^= 1;
    await route.fulfill({ response, body });
  });
  const { label, problem } = await page.sample(0);
  assert.equal(label, "problem");
  assert.match(problem, /not what it has to be. It was not used/);
  await page.shot("altered-answer");
  await page.page.unroute("**/operators/*");
  assert.equal((await page.sample(0)).label, "cat");
  await page.close();
});

test("a server that ends in the middle is told, and the next try works", within, async () => {
  // A line that breaks once it has carried this much of the server's messages to a guest.
  const line = await cutting((await demonstration()).url, 300_000);
  const page = await Page.open(line.url);
  await page.opened("guest");
  const left = await page.left();
  const { label, problem } = await page.sample(0);
  assert.equal(label, "problem");
  assert.match(problem, /went away.*the ticket is used/);
  line.heal();
  assert.equal((await page.sample(0)).label, "cat");
  assert.equal(await page.left(), left - 2);
  await page.close();
  line.end();
});

test("it fits a phone, and the keyboard suffices", within, async () => {
  const page = await Page.open((await demonstration()).url, { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });
  await page.opened("guest");
  await page.sample(4);
  const [width, shown] = await page.page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  assert.ok(width <= shown, `${width} pixels on a screen of ${shown}`);
  await page.shot("phone");
  await page.close();

  const keys = await Page.open((await demonstration()).url);
  await keys.opened("guest");
  const focused = () => keys.page.evaluate(() => document.activeElement.id || document.activeElement.name || document.activeElement.tagName);
  const seen = [];
  for (let press = 0; press < 12 && !seen.includes("BUTTON"); press += 1) {
    await keys.page.keyboard.press("Tab");
    seen.push(await focused());
  }
  for (const stop of ["kind", "plan", "picture", "BUTTON"]) assert.ok(seen.includes(stop), `${stop} in ${seen}`);
  await keys.forget();
  await keys.page.keyboard.press("Enter");
  assert.equal((await keys.answer()).label, "cat");
  const unnamed = await keys.page.evaluate(() =>
    [...document.querySelectorAll("input, button, canvas, progress")].filter(
      (element) =>
        !element.labels?.length && !element.getAttribute("aria-label") && !element.textContent.trim() && !element.querySelector("img[alt]"),
    ).map((element) => element.outerHTML),
  );
  assert.deepEqual(unnamed, [], "everything has a name that is read out");
  await keys.close();
});
