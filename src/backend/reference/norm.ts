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
 */
import type { Kernels } from '../backend.ts';
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
} satisfies Partial<Kernels>;

function meanOf(values: Float64Array): number {
  let total = 0;
  for (const value of values) total += value;
  return total / values.length;
}
