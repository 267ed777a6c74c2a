/**
 * RMSNorm (Zhang and Sennrich 2019) and LayerNorm (Ba et al. 2016) of s = x + residual, row by row:
 *
 *   xhat = (s - mean) * rstd,   y = xhat * weight + bias,
 *   rstd = 1 / sqrt(mean((s - mean)^2) + eps),   mean = 0 for RMSNorm.
 *
 * Backward, with g = dy * weight, and bars for means over the row:
 *
 *   ds = dsum + rstd * (g - xhat * bar(g * xhat) - bar(g)),   the last term for LayerNorm only;
 *   dweight = sum over rows of dy * xhat,   dbias = sum over rows of dy.
 *
 * The gated norm of Mamba-2 is RMSNorm over each group of channels, with u = silu(z) on one side of it:
 *
 *   y = rms(x u) * weight, or y = rms(x) * weight * u,   and without a weight no norm: y = x u.
 *
 * Backward, with ds as above of what is normalised: dx = ds u and dz = ds x silu'(z) for the gate in front;
 * dx = ds and dz = dy xhat weight silu'(z) for the gate behind.
 */
import type { Kernels } from '../backend.ts';
import { silu, siluGrad } from './math.ts';
import { input, optionalInput, optionalOutput, output } from './storage.ts';

export const norm = {
  norm({ rows, d, eps, center, ...refs }) {
    const x = input(refs.x);
    const residual = optionalInput(refs.residual);
    const [weight, bias] = [optionalInput(refs.weight), optionalInput(refs.bias)];
    const [y, rstdOut] = [output(refs.y), output(refs.rstd)];
    const [sumOut, meanOut] = [optionalOutput(refs.sum), optionalOutput(refs.mean)];
    const s = new Float64Array(d);
    for (let row = 0; row < rows; row++) {
      const at = row * d;
      for (let j = 0; j < d; j++) s[j] = x[at + j]! + (residual ? residual[at + j]! : 0);
      const mean = center ? meanOf(s) : 0;
      const variance = meanOf(s.map((value) => (value - mean) ** 2));
      const rstd = 1 / Math.sqrt(variance + eps);
      for (let j = 0; j < d; j++) {
        const xhat = (s[j]! - mean) * rstd;
        y[at + j] = xhat * (weight ? weight[j]! : 1) + (bias ? bias[j]! : 0);
      }
      sumOut?.set(s, at);
      rstdOut[row] = rstd;
      if (center && meanOut) meanOut[row] = mean;
    }
  },

  normGrad({ rows, d, center, ...refs }) {
    const [s, rstdIn, dy] = [input(refs.s), input(refs.rstd), input(refs.dy)];
    const weight = optionalInput(refs.weight);
    const [meanIn, dsum] = [optionalInput(refs.mean), optionalInput(refs.dsum)];
    const ds = output(refs.ds);
    const dweight = new Float64Array(d);
    const dbias = new Float64Array(d);
    const xhat = new Float64Array(d);
    const g = new Float64Array(d);
    for (let row = 0; row < rows; row++) {
      const at = row * d;
      const rstd = rstdIn[row]!;
      const mean = center && meanIn ? meanIn[row]! : 0;
      for (let j = 0; j < d; j++) {
        xhat[j] = (s[at + j]! - mean) * rstd;
        g[j] = dy[at + j]! * (weight ? weight[j]! : 1);
        dweight[j]! += dy[at + j]! * xhat[j]!;
        dbias[j]! += dy[at + j]!;
      }
      const along = meanOf(g.map((value, j) => value * xhat[j]!));
      const level = center ? meanOf(g) : 0;
      for (let j = 0; j < d; j++) {
        ds[at + j] = rstd * (g[j]! - xhat[j]! * along - level) + (dsum ? dsum[at + j]! : 0);
      }
    }
    optionalOutput(refs.dweight)?.set(dweight);
    optionalOutput(refs.dbias)?.set(dbias);
  },

  gatedNorm({ rows, d, groupSize, normBeforeGate, eps, ...refs }) {
    const [x, z, weight] = [input(refs.x), optionalInput(refs.z), optionalInput(refs.weight)];
    const y = output(refs.y);
    const size = weight ? groupSize : d;
    const s = new Float64Array(size);
    for (let at = 0; at < rows * d; at += size) {
      const before = weight === null || !normBeforeGate;
      for (let j = 0; j < size; j++) s[j] = x[at + j]! * (z && before ? silu(z[at + j]!) : 1);
      const rstd = weight ? 1 / Math.sqrt(meanOf(s.map((value) => value * value)) + eps) : 1;
      for (let j = 0; j < size; j++) {
        const behind = z && !before ? silu(z[at + j]!) : 1;
        y[at + j] = s[j]! * rstd * (weight ? weight[(at + j) % d]! : 1) * behind;
      }
    }
  },

  gatedNormGrad({ rows, d, groupSize, normBeforeGate, eps, ...refs }) {
    const [x, dy] = [input(refs.x), input(refs.dy)];
    const [z, weight] = [optionalInput(refs.z), optionalInput(refs.weight)];
    const [dx, dz] = [output(refs.dx), optionalOutput(refs.dz)];
    const dweight = new Float64Array(d);
    const size = weight ? groupSize : d;
    const before = weight === null || !normBeforeGate;
    const xhat = new Float64Array(size);
    const g = new Float64Array(size);
    for (let at = 0; at < rows * d; at += size) {
      for (let j = 0; j < size; j++) xhat[j] = x[at + j]! * (z && before ? silu(z[at + j]!) : 1);
      const rstd = weight ? 1 / Math.sqrt(meanOf(xhat.map((value) => value * value)) + eps) : 1;
      for (let j = 0; j < size; j++) {
        const behind = dy[at + j]! * (z && !before ? silu(z[at + j]!) : 1);
        xhat[j]! *= rstd;
        g[j] = behind * (weight ? weight[(at + j) % d]! : 1);
        dweight[(at + j) % d]! += behind * xhat[j]!;
      }
      const along = weight ? meanOf(g.map((value, j) => value * xhat[j]!)) : 0;
      for (let j = 0; j < size; j++) {
        const i = at + j;
        const ds = rstd * (g[j]! - xhat[j]! * along);
        const slope = z ? siluGrad(z[i]!) : 0;
        if (dz) dz[i] = slope * (before ? ds * x[i]! : dy[i]! * xhat[j]! * weight[i % d]!);
        dx[i] = z && before ? ds * silu(z[i]!) : ds;
      }
    }
    optionalOutput(refs.dweight)?.set(dweight);
  },
} satisfies Partial<Kernels>;

function meanOf(values: Float64Array): number {
  let total = 0;
  for (const value of values) total += value;
  return total / values.length;
}
