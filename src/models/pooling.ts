/**
 * From the hidden states of a text's tokens to one vector: at once, or piece by
 * piece for texts of any length.
 */
import { add, amax, concat, matmul, reshape } from '../tensor/primitives.ts';
import { Tensor } from '../tensor/tensor.ts';
import type { Pooling } from './classifier-config.ts';
import { lastTokens } from './inputs.ts';

/**
 * Added to padding, so that it is never the largest. Finite: an infinity times a zero gradient would be NaN.
 */
const BELOW_ALL = -1e30;

/** What a vector is made of, in order. */
const PARTS = {
  last: ['last'],
  mean: ['mean'],
  max: ['max'],
  'mean-max': ['mean', 'max'],
} as const satisfies Record<Pooling, readonly string[]>;
type Part = (typeof PARTS)[Pooling][number];

/**
 * h (b, l, d) of rows with the given numbers of real tokens in front (null: all of them) -> (b,
 * width): the last, the sum, the largest over the real ones, or the sum and the largest side by
 * side. Padding adds exact zeros.
 */
export function poolPiece(h: Tensor, pooling: Pooling, lengths: readonly number[] | null): Tensor {
  return poolWith(h, pooling, lengths, () => 1);
}

/** poolPiece, with the mean in place of the sum. */
export function pool(h: Tensor, pooling: Pooling, lengths: readonly number[] | null): Tensor {
  return poolWith(h, pooling, lengths, (count) => 1 / count);
}

/** `weight` of each token in sums, by the number of tokens in its row. */
function poolWith(
  h: Tensor,
  pooling: Pooling,
  lengths: readonly number[] | null,
  weight: (count: number) => number,
): Tensor {
  const [b, l, d] = h.dims(3);
  const perToken = (real: (count: number) => number, padding: number, shape: readonly number[]): Tensor => {
    const values = new Float32Array(b * l).fill(padding);
    for (let row = 0; row < b; row++) {
      const count = lengths?.[row] ?? l;
      values.fill(real(count), row * l, row * l + count);
    }
    return Tensor.from(values, [...shape], { device: h.device });
  };
  const pools: Record<Part, () => Tensor> = {
    last: () => reshape(lastTokens(h, lengths), [b, d]),
    mean: () => reshape(matmul(perToken(weight, 0, [b, 1, l]), h), [b, d]),
    max: () =>
      amax(
        lengths
          ? add(
              h,
              perToken(() => 0, BELOW_ALL, [b, l, 1]),
            )
          : h,
        1,
      ),
  };
  const parts = PARTS[pooling].map((part) => pools[part]());
  return parts.length === 1 ? parts[0]! : concat(parts, 1);
}

/**
 * The pooled vector of one text that is read in pieces, in double precision so
 * that its length does not matter.
 */
export class RunningPool {
  /** Tokens so far. */
  tokens = 0;
  readonly #pooling: Pooling;
  readonly #d: number;
  readonly #value: Float64Array;

  constructor(pooling: Pooling, d: number) {
    this.#pooling = pooling;
    this.#d = d;
    this.#value = new Float64Array(PARTS[pooling].length * d);
    for (const [i, part] of PARTS[pooling].entries())
      if (part === 'max') this.#value.fill(Number.NEGATIVE_INFINITY, i * d, (i + 1) * d);
  }

  /** Takes what poolPiece gave for the next `tokens` > 0 tokens. */
  add(piece: ArrayLike<number>, tokens: number): void {
    const value = this.#value;
    for (const [part, from, to] of this.#parts()) {
      for (let i = from; i < to; i++) {
        if (part === 'mean') value[i]! += piece[i]!;
        else value[i] = part === 'max' ? Math.max(value[i]!, piece[i]!) : piece[i]!;
      }
    }
    this.tokens += tokens;
  }

  /** (width), of all tokens so far; there must be one. */
  value(): Float32Array {
    const result = Float32Array.from(this.#value);
    for (const [part, from, to] of this.#parts())
      if (part === 'mean') for (let i = from; i < to; i++) result[i] = this.#value[i]! / this.tokens;
    return result;
  }

  clone(): RunningPool {
    const copy = new RunningPool(this.#pooling, this.#d);
    copy.#value.set(this.#value);
    copy.tokens = this.tokens;
    return copy;
  }

  #parts(): [part: Part, from: number, to: number][] {
    return PARTS[this.#pooling].map((part, i) => [part, i * this.#d, (i + 1) * this.#d]);
  }
}
