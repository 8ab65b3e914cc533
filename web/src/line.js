// A WebSocket, message by message.

function failure(kind, message) {
  return Object.assign(new Error(message), { kind });
}

/** Connects. `observe(message)` hears of every message: `{ isUp, bytes, layer, waited }`. */
export function connect(url, observe) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    const line = new Line(socket, observe);
    socket.onopen = () => resolve(line);
    socket.onerror = () => reject(failure("unreachable", "the server cannot be reached, or does not serve this network for guests"));
  });
}

class Line {
  #socket;
  #observe;
  #messages = [];
  #waiting = null;
  #ended = null;

  constructor(socket, observe) {
    this.#socket = socket;
    this.#observe = observe;
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
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  close() {
    this.#ended ??= failure("usage", "the connection is closed");
    this.#socket.close();
  }
}
