/**
 * Seeded random streams: xoshiro128** seeded through splitmix32. The state is four uint32 and can be saved,
 * so a resumed run continues the same stream. One stream per purpose: `rng.fork('data')`.
 * Source: D. Blackman, S. Vigna, "Scrambled Linear Pseudorandom Number Generators" (2021).
 */
export type RngState = [number, number, number, number];

export class Rng {
  #s: Uint32Array;

  constructor(seed: number | RngState) {
    if (typeof seed !== 'number') {
      this.#s = Uint32Array.from(seed);
      return;
    }
    this.#s = new Uint32Array(4);
    let x = (seed ^ Math.floor(seed / 2 ** 32)) >>> 0;
    for (let i = 0; i < 4; i++) {
      x = (x + 0x9e3779b9) >>> 0;
      let t = x ^ (x >>> 16);
      t = Math.imul(t, 0x21f0aaad);
      t ^= t >>> 15;
      t = Math.imul(t, 0x735a2d97);
      this.#s[i] = t ^ (t >>> 15);
    }
  }

  /** An independent stream for a named purpose; does not advance this one. */
  fork(purpose: string): Rng {
    let hash = 0x811c9dc5;
    for (const char of `${this.#s.join(',')}:${purpose}`)
      hash = Math.imul(hash ^ char.codePointAt(0)!, 0x01000193);
    return new Rng(hash >>> 0);
  }

  uint32(): number {
    const s = this.#s;
    const r = Math.imul(s[1]!, 5);
    const result = Math.imul((r << 7) | (r >>> 25), 9) >>> 0;
    const t = s[1]! << 9;
    s[2]! ^= s[0]!;
    s[3]! ^= s[1]!;
    s[1]! ^= s[2]!;
    s[0]! ^= s[3]!;
    s[2]! ^= t;
    s[3] = (s[3]! << 11) | (s[3]! >>> 21);
    return result;
  }

  /** Uniform in [0, 1), 53 bits. */
  float(): number {
    return ((this.uint32() >>> 5) * 67108864 + (this.uint32() >>> 6)) / 9007199254740992;
  }

  uniform(low: number, high: number): number {
    return low + (high - low) * this.float();
  }

  /** Standard normal (Box-Muller; the second value is dropped so that the state alone decides the stream). */
  normal(): number {
    const u = 1 - this.float();
    return Math.sqrt(-2 * Math.log(u)) * Math.cos(2 * Math.PI * this.float());
  }

  /** Uniform integer in [0, n), n <= 2^53. */
  below(n: number): number {
    return Math.floor(this.float() * n);
  }

  get state(): RngState {
    return [this.#s[0]!, this.#s[1]!, this.#s[2]!, this.#s[3]!];
  }
}
