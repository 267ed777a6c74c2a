/** From the hidden states of a text's tokens to one vector: at once, or piece by piece for texts of any length. */
import { add, amax, matmul, reshape } from '../tensor/primitives.ts';
import { Tensor } from '../tensor/tensor.ts';
import type { Pooling } from './classifier-config.ts';
import { lastTokens } from './inputs.ts';

/** Added to padding, so that it is never the largest. Finite: an infinity times a zero gradient would be NaN. */
const BELOW_ALL = -1e30;

/**
 * h (b, l, d) of rows with the given numbers of real tokens in front (null: all of them) -> (b, d): the last, the sum or the largest
 * over the real ones. Padding adds exact zeros.
 */
export function poolPiece(h: Tensor, pooling: Pooling, lengths: readonly number[] | null): Tensor {
  const [b, l, d] = h.dims(3);
  if (pooling === 'last') return reshape(lastTokens(h, lengths), [b, d]);
  if (pooling === 'mean') return reshape(matmul(perToken(h, lengths, 1, 0, [b, 1, l]), h), [b, d]);
  const shifted = lengths ? add(h, perToken(h, lengths, 0, BELOW_ALL, [b, l, 1])) : h;
  return reshape(amax(shifted, 1), [b, d]);
}

/** poolPiece, with the mean in place of the sum. */
export function pool(h: Tensor, pooling: Pooling, lengths: readonly number[] | null): Tensor {
  if (pooling !== 'mean') return poolPiece(h, pooling, lengths);
  const [b, l, d] = h.dims(3);
  const weights = Float32Array.from({ length: b * l }, (_, at) => {
    const count = lengths?.[Math.floor(at / l)] ?? l;
    return at % l < count ? 1 / count : 0;
  });
  return reshape(matmul(Tensor.from(weights, [b, 1, l], { device: h.device }), h), [b, d]);
}

function perToken(
  h: Tensor,
  lengths: readonly number[] | null,
  real: number,
  padding: number,
  shape: readonly number[],
): Tensor {
  const [b, l] = h.dims(3);
  const values = new Float32Array(b * l).fill(real);
  for (const [row, count] of (lengths ?? []).entries()) values.fill(padding, row * l + count, (row + 1) * l);
  return Tensor.from(values, [...shape], { device: h.device });
}

/** The pooled vector of one text that is read in pieces, in double precision so that its length does not matter. */
export class RunningPool {
  /** Tokens so far. */
  tokens = 0;
  readonly #pooling: Pooling;
  readonly #value: Float64Array;

  constructor(pooling: Pooling, d: number) {
    this.#pooling = pooling;
    this.#value = new Float64Array(d).fill(pooling === 'max' ? Number.NEGATIVE_INFINITY : 0);
  }

  /** Takes what poolPiece gave for the next `tokens` > 0 tokens. */
  add(piece: ArrayLike<number>, tokens: number): void {
    const value = this.#value;
    for (let i = 0; i < value.length; i++) {
      if (this.#pooling === 'mean') value[i]! += piece[i]!;
      else value[i] = this.#pooling === 'max' ? Math.max(value[i]!, piece[i]!) : piece[i]!;
    }
    this.tokens += tokens;
  }

  /** (d), of all tokens so far; there must be one. */
  value(): Float32Array {
    const scale = this.#pooling === 'mean' ? this.tokens : 1;
    return Float32Array.from(this.#value, (x) => x / scale);
  }

  clone(): RunningPool {
    const copy = new RunningPool(this.#pooling, this.#value.length);
    copy.#value.set(this.#value);
    copy.tokens = this.tokens;
    return copy;
  }
}
