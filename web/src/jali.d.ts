/** Bytes, or a file that a person chose. */
export type Bytes = Uint8Array | Blob;

/** What a failure is about; `error.kind`. */
export type FailureKind =
  | "damaged" // a file that is damaged, or another one than it should be
  | "locked" // a key or passphrase that is missing or another one
  | "used-up" // no ticket is left
  | "expired" // the tickets' time is over
  | "refused" // the server refuses
  | "wrong-answer" // the server's answer is not what it has to be
  | "unreachable" // the server is not there, or went away
  | "storage" // this browser cannot store what must outlast a crash
  | "image" // bytes that are no image for this network
  | "usage"; // the call makes no sense now

export interface Failure extends Error {
  kind: FailureKind;
}

/** A message of an inference, as it goes over the line. */
export interface Message {
  isUp: boolean;
  bytes: Uint8Array;
  /** Which of `layers`; none for what is not a layer's. */
  layer?: number;
  /** Time that was waited for it, in ms. */
  waited?: number;
}

export interface Layer {
  name: string;
  kind: string;
  /** Whether the guest computes it alone, in the clear. */
  isOpen?: boolean;
  bytesUp: number;
  bytesDown: number;
  /** Time that was waited for the server, in ms. */
  waitedMs: number;
}

export interface Answer {
  /** The network's output: logits; or 100 at a class and 0 elsewhere, if a guest is told the class alone. */
  output: Float32Array;
  /** From the input to the output, in ms. */
  ms: number;
  layers: Layer[];
}

export interface InferOptions {
  /** Hears of every message before it is sent, or when it has come. */
  onMessage?(message: Message): void;
}

/** Loads the WebAssembly; `module` is where it is, if it is not beside this file. */
export function load(module?: string | URL | BufferSource | WebAssembly.Module): Promise<unknown>;

/** Somebody who holds keys from which the network can be recovered. */
export class KeyedClient {
  /**
   * Opens a client's bundle and takes its hints from the server; `server` is such as
   * `https://host:8433`, or this page's own. Rejects with a `Failure`.
   */
  static open(
    bundle: Bytes,
    options?: { server?: string; passphrase?: string; token?: string; onProgress?(done: number, of: number): void },
  ): Promise<KeyedClient>;
  /** Public id of the sealed network. */
  readonly modelId: string;
  /** Channels, height and width. */
  readonly imageSize: number[];
  readonly layers: Pick<Layer, "name" | "kind">[];
  /** Decodes a PNG, JPEG or .npy file as the owner said. Throws a `Failure` of the kind `image`. */
  read(file: Uint8Array): Float32Array;
  /** Runs the network; fresh masks for every call. Rejects with a `Failure`. */
  infer(input: Float32Array, options?: InferOptions): Promise<Answer>;
  /** Wipes the keys. */
  close(): void;
}

/** The files of a wallet, and the guest's own key. */
export interface WalletFiles {
  manifest: Bytes;
  /** In a worker a `Blob` is read piece by piece, and is not in memory. */
  tickets: Bytes;
  key: Bytes;
  /** What `jali guest key` wrote. */
  identity: Bytes | string;
}

/** Somebody who uses a network and must not have it. */
export class Guest {
  /**
   * Opens a wallet, alone: no other tab of this origin opens it meanwhile. `owner` is the public
   * key, in hexadecimal digits, that must have signed it. Rejects with a `Failure`.
   *
   * A ticket is used up in IndexedDB, with strict durability, before its first byte is sent. The
   * wallet belongs to this browser from then on: used elsewhere too, its tickets would come twice.
   */
  static open(files: WalletFiles, options?: { server?: string; owner?: string }): Promise<Guest>;
  readonly name: string;
  readonly modelId: string;
  readonly batchId: string;
  /** The owner's public key. */
  readonly owner: string;
  /** Tickets that are not used. */
  readonly left: number;
  /** The last day on which they are valid, `YYYY-MM-DD`. */
  readonly until: string;
  /** Bits that an inference tells the guest at most. */
  readonly outputBits: number;
  /** Whether the output tells the class alone. */
  readonly tellsClassAlone: boolean;
  readonly ticketBytes: number;
  readonly imageSize: number[];
  readonly layers: Pick<Layer, "name" | "kind" | "isOpen">[];
  read(file: Uint8Array): Float32Array;
  /** Uses up a ticket, unless the server cannot be reached. Rejects with a `Failure`. */
  infer(input: Float32Array, options?: InferOptions): Promise<Answer>;
  /** Wipes the keys, and frees the wallet. */
  close(): void;
}

/** Probabilities of classes. */
export function softmax(output: ArrayLike<number>): number[];
