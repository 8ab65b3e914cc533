/** An `Error` with the `kind` by which a page chooses its words: see jali.d.ts. */
export function failure(kind, message) {
  return Object.assign(new Error(message), { kind });
}
