// A WebSocket, message by message.

import { failure } from "./failure.js";

/** How long a server may be silent, in ms. */
export const PATIENCE = 60_000;

/**
 * Connects. `observe(message)` hears of every message: `{ isUp, bytes, layer, waited }`. A server that is silent for
 * `patience` ms has ended the connection.
 */
export function connect(url, observe, patience = PATIENCE) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    const line = new Line(socket, observe, patience);
    const late = setTimeout(() => {
      reject(failure("unreachable", "the server did not answer in time"));
      line.close();
    }, patience);
    socket.onopen = () => {
      clearTimeout(late);
      resolve(line);
    };
    socket.onerror = () => reject(failure("unreachable", "the server cannot be reached, is full, or does not serve this network to guests of this page"));
  });
}

class Line {
  #socket;
  #observe;
  #patience;
  #messages = [];
  #waiting = null;
  #ended = null;

  constructor(socket, observe, patience) {
    this.#socket = socket;
    this.#observe = observe;
    this.#patience = patience;
    socket.onmessage = ({ data }) => {
      if (typeof data === "string") {
        this.#end(failure("wrong-answer", "the server sent text to a guest"));
        return;
      }
      const waiting = this.#waiting;
      this.#waiting = null;
      if (waiting) waiting.resolve(new Uint8Array(data));
      else this.#messages.push(new Uint8Array(data));
    };
    socket.onclose = () => this.#end(failure("unreachable", "the server ended the connection; the ticket is used"));
  }

  #end(error) {
    this.#ended ??= error;
    this.#waiting?.reject(this.#ended);
    this.#waiting = null;
    this.#socket.close();
  }

  send(message, layer) {
    if (this.#ended) throw this.#ended;
    this.#observe?.({ isUp: true, bytes: message, layer });
    this.#socket.send(message);
  }

  async receive(layer) {
    const begun = performance.now();
    const bytes = this.#messages.shift() ?? (await this.#next());
    this.#observe?.({ isUp: false, bytes, layer, waited: performance.now() - begun });
    return bytes;
  }

  #next() {
    if (this.#ended) throw this.#ended;
    const silent = () => this.#end(failure("unreachable", "the server did not answer in time; the ticket is used"));
    const late = setTimeout(silent, this.#patience);
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    }).finally(() => clearTimeout(late));
  }

  close() {
    this.#ended ??= failure("usage", "the connection is closed");
    this.#socket.close();
  }
}
