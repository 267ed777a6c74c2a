/**
 * What sequenceIds and lengths mean for one token, as factors of 0 and 1: for the twins that are composed
 * from primitives.
 */
import type { Backend } from '../backend/backend.ts';
import type { Shape } from '../base/shape.ts';
import { add, mul } from '../tensor/primitives.ts';
import { Tensor } from '../tensor/tensor.ts';
import { hostIds } from './causal-conv.ts';

export interface RowMasks {
  /** 1 where the token exists; null if it does in every row. */
  alive: Tensor | null;
  /** 1 where the token continues the document of the one before it; null if it does in every row. */
  continues: Tensor | null;
}

/** The masks of token t, of shape (b, 1, ...) with `rank` axes. */
export function rowMasks(
  b: number,
  l: number,
  options: { sequenceIds?: Tensor | null; lengths?: Tensor | null },
  rank: number,
  device: Backend,
): (t: number) => RowMasks {
  const ids = hostIds('sequenceIds', options.sequenceIds);
  const ends = hostIds('lengths', options.lengths);
  const shape: Shape = [b, ...new Array<number>(rank - 1).fill(1)];
  const mask = (keep: (row: number) => boolean) => {
    const values = Float32Array.from({ length: b }, (_, row) => (keep(row) ? 1 : 0));
    return Tensor.from(values, shape, { device });
  };
  return (t) => ({
    alive: ends && mask((row) => t < ends[row]!),
    continues: ids && t > 0 ? mask((row) => ids[row * l + t] === ids[row * l + t - 1]) : null,
  });
}

/** `next` where the mask is 1, `before` where it is 0; without a mask `next`. */
export function choose(mask: Tensor | null, next: Tensor, before: Tensor): Tensor {
  return mask ? add(mul(next, mask), mul(before, add(mul(mask, -1), 1))) : next;
}
