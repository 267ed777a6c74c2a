/**
 * The scan of Mamba-2 (Dao and Gu 2024, arXiv 2405.21060; mamba_chunk_scan_combined in state-spaces/mamba,
 * ops/triton/ssd_combined.py):
 *   dt    = clamp(f(dt + dtBias), dtLimit)                 f = softplus or identity
 *   S[t]  = exp(dt[t] A) S[t-1] + dt[t] x[t] B[t]^T        per head, S (p, n); A is one number per head
 *   y[t]  = (S[t] C[t] + D x[t]) * silu(z[t])
 * It is the selective scan with the same A for all channels and states of a head, which is what lets it be
 * computed as matrix products (ssd-core.ts). Everything in front of and behind that recurrence is composed
 * here.
 */
import { ConfigError, ShapeError } from '../base/errors.ts';
import { expectShape, showShape } from '../base/shape.ts';
import { add, clamp, mul, reshape, softplus } from '../tensor/primitives.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { siluGate } from './gated-norm.ts';
import { type SsdCoreOptions, type SsdResult, ssdCore, ssdCoreRef } from './ssd-core.ts';

export interface SsdOptions extends Omit<SsdCoreOptions, 'own' | 'last'> {
  /** Gate, x's shape. */
  z?: Tensor | null;
  /** Added to dt (h). */
  dtBias?: Tensor | null;
  /** Default false, as upstream. The identity above 20. */
  dtSoftplus?: boolean;
  /**
   * Bounds of dt after softplus, default [0, Infinity]. Outside them no gradient flows into dt. Decoding
   * applies them too.
   */
  dtLimit?: readonly [number, number];
}

/**
 * x (b, l, h, p), dt (b, l, h), A (h), negative for a stable recurrence; B and C (b, l, g, n) with head i in
 * group floor(i / (h / g)). The state goes in and out as (b, h, p, n), and gradients flow through both. With
 * l = 1 it is a step of decoding.
 */
export function ssd(
  x: Tensor,
  dt: Tensor,
  A: Tensor,
  B: Tensor,
  C: Tensor,
  options: SsdOptions = {},
): SsdResult {
  return compose(ssdCore, x, dt, A, B, C, options);
}

/** The same over `ssdCoreRef`. */
export function ssdRef(
  x: Tensor,
  dt: Tensor,
  A: Tensor,
  B: Tensor,
  C: Tensor,
  options: SsdOptions = {},
): SsdResult {
  return compose(ssdCoreRef, x, dt, A, B, C, options);
}

function compose(
  core: typeof ssdCore,
  x: Tensor,
  dt: Tensor,
  A: Tensor,
  B: Tensor,
  C: Tensor,
  options: SsdOptions,
): SsdResult {
  const { z = null, dtBias = null, dtSoftplus = false, dtLimit = [0, Number.POSITIVE_INFINITY] } = options;
  const [b, l, h, p] = x.dims(4);
  check(x, dt, A, B, C, options);
  const [low, high] = dtLimit;
  let step = dtBias ? add(dt, dtBias) : dt; // (b, l, h)
  if (dtSoftplus) step = softplus(step);
  if (!(dtSoftplus && low <= 0 && high === Number.POSITIVE_INFINITY)) step = clamp(step, low, high);
  // One rank.
  const [g, n] = [B.shape[2]!, B.shape[3]!];
  const { y, state } = core(
    reshape(x, [b, l, 1, h, p]),
    mul(step, A),
    step,
    reshape(B, [b, l, 1, g, n]),
    reshape(C, [b, l, 1, g, n]),
    {
      D: options.D,
      state: options.state,
      sequenceIds: options.sequenceIds,
      lengths: options.lengths,
      chunkSize: options.chunkSize,
    },
  );
  const out = reshape(y, x.shape);
  return { y: z ? siluGate(out, z) : out, state };
}

function check(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, options: SsdOptions): void {
  const op = 'ssd';
  const [b, l, h] = x.dims(4);
  const { z, dtBias, dtLimit } = options;
  expectShape(op, 'dt (b, l, h)', dt.shape, [b, l, h]);
  expectShape(op, 'A (h)', A.shape, [h]);
  if (B.shape.length !== 4 || C.shape.length !== 4) {
    throw new ShapeError(
      `${op}: expected B and C (b, l, g, n), got ${showShape(B.shape)} and ${showShape(C.shape)}. ` +
        'With one group, reshape (b, l, n) to (b, l, 1, n).',
    );
  }
  const [, , g, n] = B.dims(4);
  expectShape(op, 'B (b, l, g, n)', B.shape, [b, l, g, n]);
  expectShape(op, 'C (b, l, g, n)', C.shape, [b, l, g, n]);
  if (z) expectShape(op, 'z like x', z.shape, x.shape);
  if (dtBias) expectShape(op, 'dtBias (h)', dtBias.shape, [h]);
  if (dtLimit && !(dtLimit[0] <= dtLimit[1])) {
    throw new ConfigError(`${op}: expected dtLimit [low, high], got [${dtLimit.join(', ')}].`);
  }
}
