/**
 * Dropout (Srivastava et al. 2014): in training some values are zero and the others
 * larger, so that the mean stays.
 */
import type { Rng } from '../base/rng.ts';
import { sizeOf } from '../base/shape.ts';
import { mul } from '../tensor/primitives.ts';
import { Tensor } from '../tensor/tensor.ts';

/**
 * x with each element zero with probability `rate` (0 <= rate < 1) and divided by 1 - rate
 * otherwise. `shape`, by default that of x, is what the choices are made over: (b, l, 1) for
 * x (b, l, d) drops whole tokens.
 */
export function dropout(x: Tensor, rate: number, rng: Rng, shape = x.shape): Tensor {
  if (rate === 0) return x;
  const scale = 1 / (1 - rate);
  const threshold = rate * 2 ** 32;
  const mask = Float32Array.from({ length: sizeOf(shape) }, () => (rng.uint32() < threshold ? 0 : scale));
  return mul(x, Tensor.from(mask, [...shape], { device: x.device }));
}
