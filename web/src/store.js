// What must outlast a crash or a reload: a wallet's `key`, in which the used tickets are missing.
//
// IndexedDB with strict durability: the browser says that a transaction is complete once its bytes
// are on the disk. The bytes are locked for the guest, whose own key is stored only with files that
// are kept.

import { failure } from "./failure.js";

const DATABASE = "jali";
const KEYS = "keys";
const KEPT = "kept";

function open() {
  return new Promise((resolve, reject) => {
    if (!globalThis.indexedDB) {
      reject(failure("storage", "this browser has no IndexedDB here, and without it a used ticket could come again"));
      return;
    }
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore(KEYS);
      request.result.createObjectStore(KEPT);
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(failure("storage", `IndexedDB does not open: ${request.error?.message}`));
    request.onblocked = () => reject(failure("storage", "another tab holds an older version of this page"));
  });
}

async function transact(store, mode, act) {
  const database = await open();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction(store, mode, { durability: "strict" });
      const request = act(transaction.objectStore(store));
      const fail = () =>
        reject(failure("storage", `this browser could not store it: ${transaction.error?.message ?? "no reason given"}`));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onerror = fail;
      transaction.onabort = fail;
    });
  } finally {
    database.close();
  }
}

/** The latest `key` of a batch's wallet that was stored here, if there is one. */
export async function storedKey(batch) {
  return transact(KEYS, "readonly", (store) => store.get(batch));
}

/** Stores a wallet's new `key`. Fulfilled when it would be there after a crash. */
export async function storeKey(batch, key) {
  await transact(KEYS, "readwrite", (store) => store.put(key, batch));
}

/** Files that a person wants to find again on this device. */
export async function keep(files) {
  await transact(KEPT, "readwrite", (store) => store.put(files, "files"));
}

export async function kept() {
  return transact(KEPT, "readonly", (store) => store.get("files"));
}

/** Forgets the files, and nothing about used tickets. */
export async function forget() {
  await transact(KEPT, "readwrite", (store) => store.delete("files"));
}

/**
 * Makes sure that no other tab uses a batch's wallet. Returns what frees it again.
 *
 * Without this, two tabs would take the same ticket.
 */
export function alone(batch) {
  if (!navigator.locks) {
    throw failure("storage", "this page is not a secure context: open it over https, or on this machine");
  }
  return new Promise((resolve, reject) => {
    const taken = (lock) => {
      if (!lock) {
        reject(failure("usage", "another tab has this wallet open"));
        return undefined;
      }
      return new Promise((free) => resolve(free));
    };
    navigator.locks.request(`jali ${batch}`, { ifAvailable: true }, taken).catch(reject);
  });
}
