// Client and guest for browsers: the library in WebAssembly, with `fetch`, WebSockets and IndexedDB.
// See jali.d.ts for what everything takes and gives.

import { failure } from "./failure.js";
import init, { Guest as GuestCore, KeyedClient as KeyedCore, batchOf } from "./jali_web.js";
import { PATIENCE, connect } from "./line.js";
import { alone, storedKey, storeKey } from "./store.js";

let loaded = null;

export function load(module) {
  loaded ??= init(module === undefined ? undefined : { module_or_path: module });
  return loaded;
}

const bytesOf = async (file) => (file instanceof Uint8Array ? file : new Uint8Array(await file.arrayBuffer()));

/** Adds what the messages of an inference took, layer by layer. */
class Meter {
  constructor(layers, observe) {
    this.begun = performance.now();
    this.layers = layers.map((layer) => ({ ...layer, bytesUp: 0, bytesDown: 0, waitedMs: 0 }));
    this.observe = (message) => {
      const layer = this.layers[message.layer];
      if (layer) {
        layer[message.isUp ? "bytesUp" : "bytesDown"] += message.bytes.length;
        layer.waitedMs += message.waited ?? 0;
      }
      observe?.(message);
    };
  }

  end(output) {
    return { output, ms: performance.now() - this.begun, layers: this.layers };
  }
}

export class KeyedClient {
  #core;
  #server;
  #headers;

  constructor(core, server, token) {
    this.#core = core;
    this.#server = server.replace(/\/+$/, "");
    this.#headers = token ? { authorization: `Bearer ${token}` } : {};
  }

  static async open(bundle, { server = "", passphrase, token, onProgress } = {}) {
    await load();
    const client = new KeyedClient(new KeyedCore(await bytesOf(bundle), passphrase), server, token);
    const core = client.#core;
    const count = core.operators;
    for (let operator = 0; operator < count; operator += 1) {
      onProgress?.(operator, count);
      core.acceptHints(operator, await client.#fetch(`/operators/${operator}/hints`));
    }
    core.ready();
    onProgress?.(count, count);
    return client;
  }

  get modelId() {
    return this.#core.modelId;
  }

  get imageSize() {
    return [...this.#core.imageSize];
  }

  get layers() {
    return this.#core.layers;
  }

  async #fetch(path, body) {
    const request = {
      method: body ? "POST" : "GET",
      headers: body ? { ...this.#headers, "content-type": "application/octet-stream" } : this.#headers,
      body,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      signal: AbortSignal.timeout(PATIENCE),
    };
    let response;
    try {
      response = await fetch(`${this.#server}/v2/models/${this.modelId}${path}`, request);
      if (response.ok || response.headers.get("content-type") === "application/octet-stream") {
        // A refusal is a message like others: the library reads it.
        return new Uint8Array(await response.arrayBuffer());
      }
    } catch (cause) {
      const why = cause?.name === "TimeoutError" ? "the server did not answer in time" : "the server cannot be reached";
      throw Object.assign(failure("unreachable", why), { cause });
    }
    if (response.status === 401) throw failure("refused", "it asks for a token, and got none or another one");
    const isText = response.headers.get("content-type")?.startsWith("text/plain");
    const why = isText ? `: ${(await response.text()).trim().slice(0, 200)}` : "";
    throw failure("refused", `it answered with status ${response.status}${why}`);
  }

  read(file) {
    return this.#core.read(file);
  }

  async infer(input, { onMessage } = {}) {
    const meter = new Meter(this.layers, onMessage);
    const send = async (layer, bytes) => {
      meter.observe({ isUp: true, bytes, layer });
      const begun = performance.now();
      const answer = await this.#fetch(`/operators/${layer}`, bytes);
      meter.observe({ isUp: false, bytes: answer, layer, waited: performance.now() - begun });
      return answer;
    };
    return meter.end(await this.#core.infer(input, send));
  }

  close() {
    this.#core.free();
  }
}

/** A file that is read piece by piece; only workers can. */
class Pieces {
  #blob;
  #reader;

  constructor(blob) {
    this.#blob = blob;
    this.#reader = new FileReaderSync();
  }

  get size() {
    return this.#blob.size;
  }

  read(offset, length) {
    return new Uint8Array(this.#reader.readAsArrayBuffer(this.#blob.slice(offset, offset + length)));
  }
}

/** Bytes as such a file. */
class Whole {
  #bytes;

  constructor(bytes) {
    this.#bytes = bytes;
  }

  get size() {
    return this.#bytes.length;
  }

  read(offset, length) {
    return this.#bytes.subarray(offset, offset + length);
  }
}

export class Guest {
  #core;
  #server;
  #free;

  constructor(core, server, free) {
    this.#core = core;
    this.#server = server;
    this.#free = free;
  }

  static async open(files, { server = "", owner } = {}) {
    await load();
    const [manifest, key] = await Promise.all([bytesOf(files.manifest), bytesOf(files.key)]);
    const identity = typeof files.identity === "string" ? files.identity : new TextDecoder().decode(await bytesOf(files.identity));
    const isPieces = globalThis.FileReaderSync && files.tickets instanceof Blob;
    const tickets = isPieces ? new Pieces(files.tickets) : new Whole(await bytesOf(files.tickets));
    const batch = batchOf(manifest);
    const free = await alone(batch);
    try {
      const stored = await storedKey(batch);
      const keys = stored ? [key, stored] : [key];
      return new Guest(new GuestCore(manifest, tickets, keys, identity, owner), server, free);
    } catch (error) {
      free();
      throw error;
    }
  }

  get name() {
    return this.#core.name;
  }

  get modelId() {
    return this.#core.modelId;
  }

  get batchId() {
    return this.#core.batchId;
  }

  get owner() {
    return this.#core.owner;
  }

  get left() {
    return this.#core.left;
  }

  get until() {
    return this.#core.until;
  }

  get outputBits() {
    return this.#core.outputBits;
  }

  get tellsClassAlone() {
    return this.#core.tellsClassAlone;
  }

  get ticketBytes() {
    return this.#core.ticketBytes;
  }

  get imageSize() {
    return [...this.#core.imageSize];
  }

  get layers() {
    return this.#core.layers;
  }

  read(file) {
    return this.#core.read(file);
  }

  async infer(input, { onMessage } = {}) {
    const meter = new Meter(this.layers, onMessage);
    const base = new URL(this.#server || globalThis.location.origin);
    base.protocol = base.protocol === "https:" ? "wss:" : "ws:";
    const line = await connect(`${base.origin}/v2/models/${this.modelId}/guests`, meter.observe);
    try {
      return meter.end(await this.#core.infer(input, line, (key) => storeKey(this.batchId, key)));
    } finally {
      line.close();
    }
  }

  close() {
    try {
      this.#core.free();
    } finally {
      this.#free();
    }
  }
}

export function softmax(output) {
  const most = Math.max(...output);
  const weights = Array.from(output, (value) => Math.exp(value - most));
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / sum);
}
