// Chromium by its own protocol, with nothing but `Runtime.evaluate`: what drives it for tests watches the network, and
// so takes longer than half of an inference.

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const sleep = (ms) => new Promise((over) => setTimeout(over, ms));

/** A browser with one page. */
export class Chromium {
  #folder = mkdtempSync(join(tmpdir(), "jali-chromium-"));
  #process;
  #socket;
  #waiting = new Map();

  static async open(url, path = process.env.CHROMIUM ?? "/usr/bin/chromium") {
    const chromium = new Chromium();
    const args = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"];
    const quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"];
    const own = ["--remote-debugging-port=0", `--user-data-dir=${chromium.#folder}`];
    chromium.#process = spawn(path, [...args, ...quiet, ...own, url], { stdio: "ignore" });
    const port = join(chromium.#folder, "DevToolsActivePort");
    while (!existsSync(port)) await sleep(100);
    const list = `http://127.0.0.1:${readFileSync(port, "utf8").split("\n")[0]}/json`;
    let page;
    while (!(page = (await (await fetch(list)).json()).find((target) => target.url === url))) await sleep(100);
    chromium.#socket = new WebSocket(page.webSocketDebuggerUrl);
    await new Promise((opened) => chromium.#socket.addEventListener("open", opened));
    chromium.#socket.addEventListener("message", ({ data }) => {
      const { id, result } = JSON.parse(data);
      chromium.#waiting.get(id)?.(result);
    });
    const isThere = () => chromium.run(() => document.readyState === "complete").catch(() => false);
    while (!(await isThere())) await sleep(50);
    return chromium;
  }

  /** Runs a function in the page and returns what it gives. */
  async run(act, ...args) {
    const id = this.#waiting.size + 1;
    const expression = `(${act})(...${JSON.stringify(args)})`;
    const params = { expression, awaitPromise: true, returnByValue: true };
    const answer = await new Promise((answered) => {
      this.#waiting.set(id, answered);
      this.#socket.send(JSON.stringify({ id, method: "Runtime.evaluate", params }));
    });
    if (!answer) throw new Error("the page went away");
    if (answer.exceptionDetails) throw new Error(JSON.stringify(answer.exceptionDetails));
    return answer.result.value;
  }

  async close() {
    const ended = new Promise((over) => this.#process.once("exit", over));
    this.#process.kill();
    await ended;
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
