// A guest in WebAssembly under Node.js: the native guest's outputs, bit for bit, and what must not happen.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createHash } from "node:crypto";
import { createServer } from "node:net";
import { after, before, test } from "node:test";
import { Work, dist, images } from "./native.mjs";

const { load } = await import(join(dist, "jali.js"));
const { connect } = await import(join(dist, "line.js"));
const { Guest } = await import(join(dist, "jali_web.js"));
const work = new Work();
const picture = join(images, "mnist/00-7.png");
let server, url;

before(async () => {
  await load(readFileSync(join(dist, "jali_web_bg.wasm")));
  work.deal(20);
  // The same tickets for the native guest, at a server of its own.
  const serve = (batch) => work.serve("serve", "guests/server", "--tickets", batch, "--listen", "127.0.0.1:0", "--log", "none");
  server = await serve("batch/server");
  const native = await serve("native/server");
  url = native.url;
  device = new Device();
});
after(() => work.end());

const file = (name) => readFileSync(work.at("batch/wallet", name));
const pieces = (bytes) => ({ size: bytes.length, read: (offset, length) => new Uint8Array(bytes.subarray(offset, offset + length)) });

/** A wallet with what a browser would have stored of it. */
class Device {
  keys = [file("key")];
  stored = 0;

  open({ tickets = file("tickets"), identity = "me.key", owner } = {}) {
    return new Guest(file("manifest"), pieces(tickets), this.keys, readFileSync(work.at(identity), "utf8"), owner);
  }

  store = async (key) => {
    this.stored += 1;
    this.keys = [file("key"), key];
  };

  async infer(guest, { alter, observe } = {}) {
    const line = await connect(`${server.url.replace("http", "ws")}/v2/models/${guest.modelId}/guests`, observe);
    if (alter) {
      const receive = line.receive.bind(line);
      line.receive = async (layer) => alter(await receive(layer));
    }
    try {
      return await guest.infer(guest.read(readFileSync(picture)), line, this.store);
    } finally {
      line.close();
    }
  }
}

let device;

test("outputs are the native guest's, ticket by ticket", async () => {
  const guest = device.open();
  assert.deepEqual([...guest.imageSize], [1, 28, 28]);
  assert.equal(guest.left, 20);
  for (let ticket = 0; ticket < 2; ticket += 1) {
    const kept = work.fresh("kept");
    work.run("infer", "--guest", "native/wallet", "--key", "me.key", "--server", url, "--outputs", kept, picture);
    assert.deepEqual(await device.infer(guest), work.outputs(kept)[0]);
  }
  assert.equal(guest.left, 18);
  assert.equal(device.stored, 2);
});

test("a used ticket does not come again after a reload", async () => {
  assert.equal(device.open().left, 18);
  assert.equal((await device.infer(device.open())).length, 10);
  assert.equal(device.open().left, 17);
});

test("nothing of a ticket is sent before it is stored", async () => {
  const guest = device.open();
  const seen = [];
  const failing = async () => Promise.reject(new Error("the disk is full"));
  const line = await connect(`${server.url.replace("http", "ws")}/v2/models/${guest.modelId}/guests`, (m) => seen.push(m));
  await assert.rejects(guest.infer(guest.read(readFileSync(picture)), line, failing), /the disk is full/);
  line.close();
  assert.equal(seen.length, 0);
});

test("a restored wallet is refused by the server", async () => {
  const old = new Device();
  await assert.rejects(old.infer(old.open()), { kind: "refused", message: /was used before/ });
});

test("altered answers are noticed", async () => {
  let count = 0;
  const last = (message) => {
    count += 1;
    if (message.length > 64 && count > 2) message[message.length - 1] ^= 1;
    return message;
  };
  await assert.rejects(device.infer(device.open(), { alter: last }), { kind: "wrong-answer" });
  const short = (message) => (message.length > 1 ? message.subarray(1) : message);
  await assert.rejects(device.infer(device.open(), { alter: short }), { kind: "wrong-answer" });
  assert.equal((await device.infer(device.open())).length, 10);
});

test("a silent server is given up", async () => {
  const ends = [];
  const silent = createServer((socket) => {
    ends.push(socket);
    // It shakes hands and says nothing.
    socket.once("data", (head) => {
      const key = /sec-websocket-key: (.+)\r/i.exec(head.toString())[1];
      const accept = createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
      socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
    });
    socket.on("error", () => {});
  });
  await new Promise((listens) => silent.listen(0, "127.0.0.1", listens));
  const guest = device.open();
  const line = await connect(`ws://127.0.0.1:${silent.address().port}/`, undefined, 300);
  const asked = guest.infer(guest.read(readFileSync(picture)), line, device.store);
  await assert.rejects(asked, { kind: "unreachable", message: /did not answer in time/ });
  silent.close();
  // Its end of the line would keep this process.
  ends.forEach((end) => end.destroy());
});

test("other people's and damaged files are refused", () => {
  assert.throws(() => device.open({ identity: "other.key" }), { kind: "locked" });
  assert.throws(() => device.open({ owner: "00".repeat(32) }), { kind: "damaged" });
  assert.throws(() => device.open({ owner: "00" }), { kind: "usage" });
  assert.equal(device.open({ owner: device.open().owner }).left, device.open().left);
  const tickets = Buffer.from(file("tickets"));
  tickets[tickets.length - 5] ^= 1;
  assert.throws(() => device.open({ tickets }), { kind: "damaged" });
  assert.throws(() => device.open({ tickets: tickets.subarray(0, 1000) }), { kind: "damaged" });
});

test("what a layer takes is told", async () => {
  const guest = device.open();
  const seen = [];
  await device.infer(guest, { observe: (message) => seen.push(message) });
  const layers = guest.layers;
  assert.ok(layers.length > 2 && layers.every((layer) => layer.isOpen === false));
  // But for the greeting and its answer, every message is a layer's.
  assert.ok(seen.every(({ layer }, at) => (at < 2 ? layer === undefined : layer < layers.length)));
  assert.ok(layers.every((_, at) => seen.some(({ layer }) => layer === at)));
});
