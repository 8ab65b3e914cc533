// The keyed client in WebAssembly under Node.js: the native client's outputs, bit for bit, and lies are noticed.
//
//   node crates/web/tests/keyed.mjs PACKAGE JALI
//
// PACKAGE is the folder that `wasm-bindgen --target nodejs` has written, JALI the command.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createRequire } from "node:module";

const [folder, jali] = process.argv.slice(2).map((path) => resolve(path));
const { KeyedClient } = createRequire(import.meta.url)(join(folder, "jali_web.js"));
const work = mkdtempSync(join(tmpdir(), "jali-web-"));
const run = (...args) => execFileSync(jali, args, { cwd: work, encoding: "utf8" });

/** An array of NumPy's, as `jali infer --outputs` writes it. */
function floats(path) {
  const bytes = readFileSync(path);
  const start = 10 + bytes.readUInt16LE(8);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset + start, bytes.byteOffset + bytes.length));
}

/** Bytes of such an array. */
function npy(values, shape) {
  const header = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape.join(", ")}), }`.padEnd(117) + "\n";
  const head = Buffer.alloc(10);
  head.write("\x93NUMPY\x01\x00", "latin1");
  head.writeUInt16LE(header.length, 8);
  return Buffer.concat([head, Buffer.from(header, "latin1"), Buffer.from(values.buffer)]);
}

async function bytesOf(response) {
  assert.equal(response.status, 200);
  return new Uint8Array(await response.arrayBuffer());
}

/** A client that has its hints. */
async function connected(url, bundle) {
  const client = new KeyedClient(bundle);
  const paths = `${url}/v2/models/${client.modelId}/operators`;
  for (let i = 0, n = client.operators; i < n; i++) {
    client.acceptHints(i, await bytesOf(await fetch(`${paths}/${i}/hints`)));
  }
  client.ready();
  const send = async (operator, body) => bytesOf(await fetch(`${paths}/${operator}`, { method: "POST", body }));
  return { client, send };
}

const server = await (async () => {
  run("seal", "--network", "mnist", "--out", "sealed");
  const process = spawn(jali, ["serve", "sealed/server", "--listen", "127.0.0.1:0", "--log", "none"], { cwd: work });
  const line = await new Promise((done) => process.stdout.once("data", (data) => done(data.toString())));
  return { process, url: line.trim().split(" ").pop() };
})();

try {
  const bundle = readFileSync(join(work, "sealed/client"));
  const { client, send } = await connected(server.url, bundle);
  assert.deepEqual([...client.inputShape], [1, 28, 28]);

  // The same image by the native client.
  const image = Float32Array.from({ length: 784 }, (_, i) => ((i * 37) % 101) / 101);
  writeFileSync(join(work, "image.npy"), npy(image, [1, 28, 28]));
  run("infer", "--client", "sealed/client", "--server", server.url, "--outputs", "kept", "image.npy");
  const kept = readdirSync(join(work, "kept"), { recursive: true }).filter((name) => name.endsWith(".npy"));
  const want = floats(join(work, "kept", kept[0]));
  for (let again = 0; again < 2; again++) {
    assert.deepEqual(await client.infer(image, send), want);
  }

  // Mistakes and lies.
  await assert.rejects(client.infer(image.slice(1), send), /783 values/);
  await assert.rejects(client.infer(Float32Array.from(image, () => NaN), send), /finite|NaN/i);
  await assert.rejects(client.infer(image, async () => new Uint8Array(10)), /answer/);
  const altered = async (operator, body) => {
    const answer = await send(operator, body);
    answer[answer.length >> 1] ^= 1;
    return answer;
  };
  await assert.rejects(client.infer(image, altered), /was rejected/);
  await assert.rejects(client.infer(image, async () => Promise.reject(new Error("the line is cut"))), /the line is cut/);
  assert.deepEqual(await client.infer(image, send), want, "it is of use afterwards");
  assert.throws(() => new KeyedClient(bundle.subarray(0, 1000)), /bundle|damaged|truncated/);
  assert.throws(() => new KeyedClient(readFileSync(join(work, "sealed/server"))), /client|server/);
  const other = new KeyedClient(bundle);
  assert.throws(() => other.acceptHints(0, new Uint8Array(100)), /hints/);
  await assert.rejects(other.infer(image, send), /hints/);

  const times = [];
  for (let i = 0; i < 10; i++) {
    const begun = performance.now();
    await client.infer(image, send);
    times.push(performance.now() - begun);
  }
  console.log(`keyed client in WebAssembly: ok (mnist, median ${times.sort((a, b) => a - b)[5].toFixed(1)} ms)`);
} finally {
  server.process.kill();
  rmSync(work, { recursive: true });
}
