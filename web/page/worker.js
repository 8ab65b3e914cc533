// Everything that takes time or holds a key: the page itself only shows.
//
// Messages in: { id, act, ... }; out: { id, result } or { id, error } or { id, event }.

import { failure } from "./failure.js";
import { Guest, KeyedClient, load, softmax } from "./jali.js";
import { forget, keep, kept } from "./store.js";

/** Most bytes of a message that the page draws. */
const SHOWN = 1 << 16;

let party = null;
/** Counts what was opened: a picture is for one of them. */
let opened = 0;

async function bytesAt(path) {
  const response = await fetch(path, { cache: "no-store" });
  if (!response.ok) throw failure("unreachable", `${path}: ${response.status}`);
  return response.blob();
}

/** A file that was chosen, or one of the demonstration's by its path. */
const fileOf = (file) => (typeof file === "string" ? bytesAt(file) : file);

function described(kind) {
  const facts = { kind, number: opened, modelId: party.modelId, imageSize: party.imageSize, layers: party.layers };
  if (kind === "keyed") return facts;
  const { name, left, until, outputBits, ticketBytes, owner } = party;
  return { ...facts, name, left, until, outputBits, ticketBytes, owner };
}

const acts = {
  load: () => load().then(() => true),

  kept: async () => (await kept()) ?? null,

  forget,

  async open({ kind, files, options, remember }, event) {
    party?.close();
    party = null;
    opened += 1;
    const names = kind === "keyed" ? ["bundle"] : ["manifest", "tickets", "key", "identity"];
    const blobs = Object.fromEntries(await Promise.all(names.map(async (name) => [name, await fileOf(files[name])])));
    const onProgress = (done, of) => event({ done, of });
    party =
      kind === "keyed"
        ? await KeyedClient.open(blobs.bundle, { ...options, onProgress })
        : await Guest.open(blobs, options);
    const facts = described(kind);
    if (!remember) return facts;
    // Neither passphrase nor token; and what cannot be kept is open all the same.
    const { server, owner } = options;
    const warning = await keep({ kind, files: blobs, options: { server, owner } }).then(
      () => null,
      (error) => `The files could not be kept: ${error.message}.`,
    );
    return { ...facts, isKept: !warning, warning };
  },

  /** Classifies an image file. Events: every message, with some of its bytes. */
  async infer({ file, number }, event) {
    if (party && number !== opened) throw failure("usage", "something else was opened meanwhile");
    if (!party) throw failure("usage", "nothing is open yet");
    const begun = performance.now();
    const input = party.read(new Uint8Array(await file.arrayBuffer()));
    const readMs = performance.now() - begun;
    const onMessage = ({ isUp, bytes, layer }) =>
      event({ isUp, layer, length: bytes.length, bytes: bytes.slice(0, SHOWN) });
    const { output, ms, layers } = await party.infer(input, { onMessage });
    const probabilities = party.tellsClassAlone ? null : softmax(output);
    return { output, probabilities, ms, readMs, layers, left: party.left };
  },
};

async function answer({ id, act, ...rest }) {
  try {
    const result = await acts[act](rest, (event) => self.postMessage({ id, event }));
    self.postMessage({ id, result });
  } catch (error) {
    const message = String(error?.message ?? error);
    self.postMessage({ id, error: { kind: error?.kind ?? "other", message, left: party?.left } });
  }
}

// One after the other: what is opened while something else is being opened would not be closed.
let last = Promise.resolve();
self.onmessage = ({ data }) => {
  last = last.then(() => answer(data));
};
