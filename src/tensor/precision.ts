/**
 * In which precision the products of projections and the head are computed. `linear` looks at it, and `ssd`
 * for its products with the state, where no gradient is asked for; everything else (norms, scans,
 * convolutions, attention, losses, the state) is float32 whatever it says.
 */
import { ConfigError } from '../base/errors.ts';

/**
 * f32: nothing is rounded. bf16: both factors of every product are rounded to bfloat16 (8 bits, at most 2^-8
 * of each), sums are float32. int8: activations are rounded to 8 bits per block of 32, and multiplied by q8
 * and q4 weights as integers. The order is that of the kernels' operand `precision`.
 */
export const PRECISIONS = ['f32', 'bf16', 'int8'] as const;
export type Precision = (typeof PRECISIONS)[number];

let current: Precision = 'f32';

/** What linear() computes in here: that of the innermost withPrecision, else f32. */
export function currentPrecision(): Precision {
  return current;
}

/**
 * Runs `fn` (synchronous) with another precision. What is recorded for backward() in it keeps that precision.
 * Throws ConfigError for an unknown one.
 */
export function withPrecision<T>(precision: Precision, fn: () => T): T {
  checkPrecision('withPrecision', precision, PRECISIONS);
  const before = current;
  current = precision;
  try {
    return fn();
  } finally {
    current = before;
  }
}

/** Throws ConfigError for one that is not among `choices`. */
export function checkPrecision(op: string, precision: unknown, choices: readonly Precision[]): void {
  if (choices.includes(precision as Precision)) return;
  throw new ConfigError(
    `${op}: expected precision ${choices.join(', ')}, got ${String(precision)}. Leave it out for f32.`,
  );
}
