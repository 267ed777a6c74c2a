/**
 * RMSNorm and LayerNorm over the last axis, optionally of a sum x + residual that is handed on
 * (the pre-norm residual stream). Source: state-spaces/mamba, ops/triton/layer_norm.py. The gated
 * norm of Mamba-2 is gated-norm.ts.
 */
import { kernelOf } from '../backend/backend.ts';
import { NORM_BLOCKS } from '../backend/kernels.ts';
import { ShapeError } from '../base/errors.ts';
import { expectShape, sizeOf } from '../base/shape.ts';
import { add, div, mean, mul, sub, unary } from '../tensor/primitives.ts';
import * as raw from '../tensor/raw.ts';
import { record } from '../tensor/tape.ts';
import { Tensor } from '../tensor/tensor.ts';

export interface NormOptions {
  /** Added to x before normalising; x's shape. */
  residual?: Tensor | null;
  /** Added to the mean square, default 1e-5. */
  eps?: number;
}

export interface NormResult {
  /** The normalised (and scaled) values, x's shape. */
  y: Tensor;
  /** x + residual (x itself without one): the residual stream after this point. */
  residual: Tensor;
}

let areScalesConstant = false;

/** Internal: whether norms are inside withConstantScales, which kernels do not know. */
export function scalesAreConstant(): boolean {
  return areScalesConstant;
}

/**
 * Runs `fn`; what norms inside divide by counts as a constant in their gradients, in forward passes and in
 * those that backward() repeats. A norm does not see how long its input is, so the true gradient is at right
 * angles to it and gradient x input says nothing; with the scale held, as the LN rule of Ali et al. 2022
 * (arXiv 2202.07304) has it, it says what each input adds.
 */
export function withConstantScales<T>(fn: () => T): T {
  const before = areScalesConstant;
  areScalesConstant = true;
  try {
    return fn();
  } finally {
    areScalesConstant = before;
  }
}

/** s = x + residual; y = s * rsqrt(mean(s^2) + eps) * weight. x (..., d), weight (d) or null (ones). */
export function rmsNorm(x: Tensor, weight: Tensor | null, options: NormOptions = {}): NormResult {
  return norm('rmsNorm', x, weight, null, options, false);
}

/**
 * s = x + residual; y = (s - mean) * rsqrt(var + eps) * weight + bias. x (...,
 * d), weight and bias (d) or null.
 */
export function layerNorm(
  x: Tensor,
  weight: Tensor | null,
  bias: Tensor | null,
  options: NormOptions = {},
): NormResult {
  return norm('layerNorm', x, weight, bias, options, true);
}

/** The twin of both from primitives. */
export function normRef(
  x: Tensor,
  weight: Tensor | null,
  bias: Tensor | null,
  options: NormOptions = {},
  center = false,
): NormResult {
  const { residual = null, eps = 1e-5 } = options;
  const s = residual ? add(x, residual) : x;
  const centered = center ? sub(s, mean(s, -1, true)) : s;
  const varying = areScalesConstant ? centered.detach() : centered;
  const scale = unary('sqrt', add(mean(mul(varying, varying), -1, true), eps));
  let y = div(centered, scale);
  if (weight) y = mul(y, weight);
  if (bias) y = add(y, bias);
  return { y, residual: s };
}

function norm(
  op: string,
  x: Tensor,
  weight: Tensor | null,
  bias: Tensor | null,
  options: NormOptions,
  center: boolean,
): NormResult {
  const { residual = null, eps = 1e-5 } = options;
  const d = x.shape.at(-1);
  if (d === undefined || d === 0)
    throw new ShapeError(`${op}: expected x (..., d) with d > 0, got [${x.shape.join(', ')}].`);
  if (weight) expectShape(op, 'weight (d)', weight.shape, [d]);
  if (bias) expectShape(op, 'bias (d)', bias.shape, [d]);
  if (residual) expectShape(op, 'residual like x', residual.shape, x.shape);
  raw.requireF32(op, x, ...[weight, bias, residual].filter((t) => t !== null));
  if (!x.device.kernels.norm || areScalesConstant) return normRef(x, weight, bias, options, center);

  const rows = sizeOf(x.shape) / d;
  const y = Tensor.empty(x.shape, 'f32', x.device);
  const s = residual ? Tensor.empty(x.shape, 'f32', x.device) : x.alias();
  const mean = center ? Tensor.empty([rows], 'f32', x.device) : null;
  const rstd = Tensor.empty([rows], 'f32', x.device);
  if (rows > 0) {
    const sum = residual ? s : null;
    x.device.kernels.norm({
      x,
      residual,
      weight,
      bias,
      y,
      sum,
      mean,
      rstd,
      rows,
      d,
      eps,
      center: center ? 1 : 0,
    });
  }
  record(op, [x, residual, weight, bias], [y, s], { s, weight, mean, rstd }, ([dy, dsum], saved, needs) => {
    const device = saved.s.device;
    const ds = Tensor.empty(x.shape, 'f32', device);
    const dweight = needs[2] ? raw.full([d], 0, device) : null;
    const dbias = needs[3] ? raw.full([d], 0, device) : null;
    if (rows > 0) {
      kernelOf(
        device,
        'normGrad',
      )({
        s: saved.s,
        weight: saved.weight,
        mean: saved.mean,
        rstd: saved.rstd,
        dy: dy ?? raw.full(x.shape, 0, device),
        dsum: dsum ?? null,
        ds,
        dweight,
        dbias,
        partial: Tensor.empty([NORM_BLOCKS * 2 * d], 'f32', device),
        rows,
        d,
        center: center ? 1 : 0,
      });
    }
    return [ds, residual ? ds : null, dweight, dbias];
  });
  return { y, residual: s };
}
