/** A growing list of ids, 4 bytes each, without a copy of what is there already. */
const CHUNK = 16_384;

export class IdList {
  readonly #chunks: Int32Array[] = [];
  #length = 0;

  push(ids: readonly number[]): void {
    for (const id of ids) {
      const at = this.#length++ % CHUNK;
      if (at === 0) this.#chunks.push(new Int32Array(CHUNK));
      this.#chunks.at(-1)![at] = id;
    }
  }

  *fromEnd(): Generator<number> {
    for (let i = this.#length - 1; i >= 0; i--) yield this.#chunks[Math.floor(i / CHUNK)]![i % CHUNK]!;
  }
}
