/**
 * The gated norm of Mamba-2: RMSNorm over groups of channels with a silu gate in front of it or behind it;
 * and the gate alone, which takes its place in models without it. Source: state-spaces/mamba,
 * ops/triton/layernorm_gated.py.
 */
import { kernelOf } from '../backend/backend.ts';
import { NORM_BLOCKS } from '../backend/kernels.ts';
import { ConfigError } from '../base/errors.ts';
import { expectShape, type Shape, sizeOf } from '../base/shape.ts';
import { mul, reshape, silu } from '../tensor/primitives.ts';
import * as raw from '../tensor/raw.ts';
import { record } from '../tensor/tape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { normRef, scalesAreConstant } from './norm.ts';

export interface GatedNormOptions {
  /** Gate, x's shape; null = none. */
  z?: Tensor | null;
  /** Channels per normalised group; all of them when omitted. */
  groupSize?: number;
  /** true: norm(x) * silu(z); false (default): norm(x * silu(z)). */
  normBeforeGate?: boolean;
  /** Added to the mean square, default 1e-5. */
  eps?: number;
}

/**
 * RMSNorm over groups of channels, times weight, with a silu gate before or after. x (..., d), weight (d).
 */
export function gatedRmsNorm(x: Tensor, weight: Tensor, options: GatedNormOptions = {}): Tensor {
  const { z = null, normBeforeGate = false, eps = 1e-5 } = options;
  const groupSize = check(x, weight, options);
  if (!x.device.kernels.gatedNorm || scalesAreConstant()) return gatedRmsNormRef(x, weight, options);
  return run('gatedRmsNorm', x, z, weight, { groupSize, normBeforeGate: normBeforeGate ? 1 : 0, eps });
}

/** The same from primitives. */
export function gatedRmsNormRef(x: Tensor, weight: Tensor, options: GatedNormOptions = {}): Tensor {
  const { z = null, normBeforeGate = false, eps = 1e-5 } = options;
  const groupSize = check(x, weight, options);
  const gated = z && !normBeforeGate ? mul(x, silu(z)) : x;
  const groups = reshape(gated, [...x.shape.slice(0, -1), x.shape.at(-1)! / groupSize, groupSize]);
  const y = mul(reshape(normRef(groups, null, null, { eps }).y, x.shape), weight);
  return z && normBeforeGate ? mul(y, silu(z)) : y;
}

/** x * silu(z), of one shape, in one pass. */
export function siluGate(x: Tensor, z: Tensor): Tensor {
  expectShape('siluGate', 'z like x', z.shape, x.shape);
  raw.requireF32('siluGate', x, z);
  if (!x.device.kernels.gatedNorm) return siluGateRef(x, z);
  return run('siluGate', x, z, null, { groupSize: 1, normBeforeGate: 0, eps: 0 });
}

/** The same from primitives. */
export function siluGateRef(x: Tensor, z: Tensor): Tensor {
  return mul(x, silu(z));
}

/** The kernel and its backward. Without a weight, the gate alone. */
function run(
  op: string,
  x: Tensor,
  z: Tensor | null,
  weight: Tensor | null,
  settings: { groupSize: number; normBeforeGate: number; eps: number },
): Tensor {
  const { device } = x;
  const d = x.shape.at(-1) ?? 1;
  const rows = sizeOf(x.shape) / Math.max(1, d);
  const make = (shape: Shape) => Tensor.empty(shape, 'f32', device);
  const y = make(x.shape);
  const sizes = { rows, d, ...settings };
  if (y.size > 0) kernelOf(device, 'gatedNorm')({ x, z, weight, y, ...sizes });
  record(op, [x, z, weight], [y], { x, z, weight }, ([dy], saved, needs) => {
    const dx = make(x.shape);
    const dz = z && make(x.shape);
    const dweight = needs[2] ? raw.full([d], 0, device) : null;
    if (y.size > 0) {
      const partial = make([NORM_BLOCKS * d]);
      kernelOf(device, 'gatedNormGrad')({ ...saved, dy: dy!, dx, dz, dweight, partial, ...sizes });
    }
    return [dx, dz, dweight];
  });
  return y;
}

/** The size of a group. */
function check(x: Tensor, weight: Tensor, { z, groupSize }: GatedNormOptions): number {
  const op = 'gatedRmsNorm';
  const d = x.shape.at(-1) ?? 0;
  const size = groupSize ?? d;
  if (!(size > 0 && d % size === 0)) {
    throw new ConfigError(`${op}: expected groupSize to divide ${d} channels, got ${size}.`);
  }
  expectShape(op, 'weight (d)', weight.shape, [d]);
  if (z) expectShape(op, 'z like x', z.shape, x.shape);
  raw.requireF32(op, x, weight, ...(z ? [z] : []));
  return size;
}
