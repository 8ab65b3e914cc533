// What the tests share: the native command, servers of it, and arrays as it writes them.
//
// Variables of the environment: JALI, the command; DIST, the folder that scripts/build-web has made.

import { execFileSync, spawn } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

export const root = resolve(import.meta.dirname, "../..");
export const jali = resolve(process.env.JALI ?? join(root, "target/release/jali"));
export const dist = resolve(process.env.DIST ?? join(root, "web/dist"));
export const images = join(root, "assets/images");

/** A folder in which the command is run; `servers` end with it. */
export class Work {
  folder = mkdtempSync(join(tmpdir(), "jali-web-"));
  #servers = [];
  #names = 0;

  run(...args) {
    return execFileSync(jali, args, { cwd: this.folder, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  }

  /** A name that is not used yet. */
  fresh(name) {
    this.#names += 1;
    return `${name}-${this.#names}`;
  }

  at(...parts) {
    return join(this.folder, ...parts);
  }

  /** Starts `jali serve` on a free port, or whatever else prints a URL. */
  async serve(...args) {
    const server = spawn(jali, args, { cwd: this.folder, stdio: ["ignore", "pipe", "ignore"] });
    this.#servers.push(server);
    const url = await new Promise((found, failed) => {
      let text = "";
      server.stdout.on("data", (data) => {
        text += data;
        const match = /https?:\/\/[^\s]+/.exec(text);
        if (match) found(match[0]);
      });
      server.once("exit", (code) => failed(new Error(`jali ${args.join(" ")} ended with ${code}: ${text}`)));
    });
    return { url: url.replace(/\/$/, ""), stop: () => new Promise((ended) => server.once("exit", ended).kill("SIGKILL")) };
  }

  /** Seals mnist for guests and deals a batch to `me.key`; copies it, for a native guest with the same tickets. */
  deal(tickets) {
    for (const name of ["me.key", "other.key"]) this.run("guest", "key", "--out", name);
    this.run("seal", "--network", "mnist", "--for", "guests", "--out", "guests");
    const recipient = /age1\w+/.exec(readFileSync(this.at("me.key"), "utf8"))[0];
    this.run("deal", "guests/owner", "--to", recipient, "--tickets", String(tickets), "--out", "batch");
    cpSync(this.at("batch"), this.at("native"), { recursive: true });
    return recipient;
  }

  /** The arrays that `jali infer --outputs FOLDER` has written, in the order of names. */
  outputs(folder) {
    const names = readdirSync(this.at(folder), { recursive: true }).filter((name) => name.endsWith(".npy"));
    return names.sort().map((name) => floats(this.at(folder, name)));
  }

  end() {
    this.#servers.forEach((server) => server.kill("SIGKILL"));
    rmSync(this.folder, { recursive: true });
  }
}

/** An array of NumPy's. */
export function floats(path) {
  const bytes = readFileSync(path);
  const start = 10 + bytes.readUInt16LE(8);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset + start, bytes.byteOffset + bytes.length));
}

/** Bytes of such an array. */
export function npy(values, shape) {
  const header = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape.join(", ")}), }`.padEnd(117) + "\n";
  const head = Buffer.alloc(10);
  head.write("\x93NUMPY\x01\x00", "latin1");
  head.writeUInt16LE(header.length, 8);
  return Buffer.concat([head, Buffer.from(header, "latin1"), Buffer.from(values.buffer)]);
}

export function median(values) {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}
