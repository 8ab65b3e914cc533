// The keyed client in WebAssembly under Node.js: the native client's outputs, bit for bit, and lies are noticed.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Work, dist, images, npy } from "./native.mjs";

const { KeyedClient, load } = await import(join(dist, "jali.js"));
const { KeyedClient: Core } = await import(join(dist, "jali_web.js"));
const work = new Work();
// An image of noise, in the form of a file.
const noise = Float32Array.from({ length: 784 }, (_, i) => ((i * 37) % 101) / 101);
let server, client;

before(async () => {
  await load(readFileSync(join(dist, "jali_web_bg.wasm")));
  work.run("seal", "--network", "mnist", "--out", "sealed");
  server = await work.serve("serve", "sealed/server", "--listen", "127.0.0.1:0", "--log", "none");
  client = await KeyedClient.open(readFileSync(work.at("sealed/client")), { server: server.url });
});
after(() => work.end());

/** The native client's output for a file. */
function native(path) {
  const kept = work.fresh("kept");
  work.run("infer", "--client", "sealed/client", "--server", server.url, "--outputs", kept, path);
  return work.outputs(kept)[0];
}

test("outputs are the native client's", async () => {
  assert.deepEqual(client.imageSize, [1, 28, 28]);
  writeFileSync(work.at("noise.npy"), npy(noise, [1, 28, 28]));
  const want = native("noise.npy");
  assert.deepEqual((await client.infer(noise)).output, want);
  assert.deepEqual((await client.infer(client.read(readFileSync(work.at("noise.npy"))))).output, want);
});

test("a picture becomes the numbers that the native client makes of it", async () => {
  const picture = join(images, "mnist/00-7.png");
  assert.deepEqual((await client.infer(client.read(readFileSync(picture)))).output, native(picture));
});

test("what a layer takes is told", async () => {
  const seen = [];
  const { layers, ms } = await client.infer(noise, { onMessage: (message) => seen.push(message) });
  assert.equal(layers.length, client.layers.length);
  assert.equal(seen.length, 2 * layers.length);
  assert.ok(layers.every((layer) => layer.bytesUp > 100 && layer.bytesDown > 50 && layer.waitedMs <= ms), JSON.stringify(layers));
});

test("images that do not fit are refused", async () => {
  await assert.rejects(client.infer(noise.slice(1)), { kind: "image", message: /783 values/ });
  await assert.rejects(client.infer(noise.map(() => NaN)), { kind: "image" });
  assert.throws(() => client.read(new Uint8Array(10)), { kind: "image", message: /is not an image/ });
});

test("lies and lost answers are noticed, and the client goes on", async () => {
  const { fetch } = globalThis;
  const altering = async (...args) => {
    const bytes = new Uint8Array(await (await fetch(...args)).arrayBuffer());
    bytes[bytes.length >> 1] ^= 1;
    return new Response(bytes);
  };
  try {
    globalThis.fetch = altering;
    await assert.rejects(client.infer(noise), { kind: "wrong-answer", message: /was rejected/ });
    await assert.rejects(KeyedClient.open(readFileSync(work.at("sealed/client")), { server: server.url }), {
      kind: "wrong-answer",
      message: /hints/,
    });
    globalThis.fetch = async () => new Response(new Uint8Array(10));
    await assert.rejects(client.infer(noise), { kind: "wrong-answer" });
    globalThis.fetch = async () => Promise.reject(new Error("cut"));
    await assert.rejects(client.infer(noise), { kind: "unreachable" });
  } finally {
    globalThis.fetch = fetch;
  }
  assert.equal((await client.infer(noise)).output.length, 10);
});

test("other files are refused", async () => {
  const bundle = readFileSync(work.at("sealed/client"));
  assert.throws(() => new Core(bundle.subarray(0, 1000)), { kind: "damaged" });
  assert.throws(() => new Core(readFileSync(work.at("sealed/server"))), { kind: "damaged", message: /client|server/ });
  assert.throws(() => new Core(bundle, "a passphrase"), { kind: "locked" });
  const early = new Core(bundle);
  assert.throws(() => early.acceptHints(0, new Uint8Array(100)), { kind: "wrong-answer" });
  await assert.rejects(early.infer(noise, () => {}), { kind: "usage", message: /hints/ });
});

test("a passphrase unlocks", async () => {
  writeFileSync(work.at("secret"), "a long passphrase of six words\n");
  work.run("seal", "--network", "mnist", "--out", "locked", "--passphrase-file", "secret");
  const bundle = readFileSync(work.at("locked/client"));
  assert.throws(() => new Core(bundle), { kind: "locked" });
  assert.throws(() => new Core(bundle, "another"), { kind: "locked" });
  assert.ok(new Core(bundle, "a long passphrase of six words").operators > 0);
});
