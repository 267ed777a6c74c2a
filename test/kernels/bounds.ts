/**
 * How far a float32 backend may be from the float64 result, for every output of every kernel: the only place. Bounds are
 * derived, not chosen: a kernel is written down once more in balls (ball.ts), or, where it is a sum of products, run on
 * absolute values. An output that is not mentioned must be equal after rounding to float32. See docs/numerics.md.
 */
import type { KernelName } from '../../src/backend/backend.ts';
import { UNARY, type UnaryOp } from '../../src/backend/kernels.ts';
import { normalCdf, normalPdf, sigmoid, silu, softplus } from '../../src/backend/reference/math.ts';
import { attentionBound, attentionGradBound } from './attention-bounds.ts';
import {
  add,
  apply,
  at,
  type Ball,
  constant,
  div,
  type Estimate,
  type Estimates,
  exact,
  gamma,
  mul,
  product,
  rounded,
  siluGradBall,
  sub,
  sum,
  ULPS,
  ZERO,
} from './ball.ts'; // prettier-ignore
import { gatedNormBound, gatedNormGradBound } from './gated-norm-bounds.ts';
import { type Case, magnitude, type Operands, type Result } from './harness.ts';
import { turnHeadsBound, turnHeadsGradBound } from './heads-bounds.ts';
import { linearNarrowBound } from './narrow-bounds.ts';
import { angleScanBound, angleScanGradBound, rotateBound, rotateGradBound } from './rotation-bounds.ts';
import { scanBound, scanGradBound } from './scan-bounds.ts';
import { ssdBound, ssdGradBound } from './ssd-bounds.ts';

/** Kernels that add up products: the output, and how many roundings a term meets at most. */
type Sums = { [N in KernelName]?: { output: string; roundings: (operands: Operands<N>) => number } };
/** Kernels written down again in balls. */
type Twins = { [N in KernelName]?: (operands: Operands<N>) => Estimates };

const SUMS: Sums = {
  affine: { output: 'y', roundings: () => 3 }, // coefficient, product, sum
  axpy: { output: 'y', roundings: () => 3 },
  sum: { output: 'y', roundings: ({ axis }) => axis },
  sumSquares: { output: 'y', roundings: () => 2 }, // added up in float64; one rounding stores it, one is spare
  scatter: { output: 'y', roundings: ({ accumulate }) => (accumulate ? 1 : 0) },
  scatterAddRows: { output: 'table', roundings: ({ count }) => count },
  matmul: { output: 'c', roundings: ({ k }) => k + 2 }, // k products, the bias, what was there before
};

const SQRT = (x: number) => Math.sqrt(Math.max(0, x));

function unaryBall(op: UnaryOp, x: Ball): Ball | null {
  if (op === 'exp') return apply(Math.exp, ULPS.exp, x);
  if (op === 'log') return apply(Math.log, ULPS.log, x);
  if (op === 'rsqrt') return apply((a) => 1 / Math.sqrt(a), ULPS.rsqrt, x);
  if (op === 'sigmoid') return apply(sigmoid, ULPS.sigmoid, x);
  if (op === 'silu') return apply(silu, ULPS.silu, x);
  if (op === 'softplus') return apply(softplus, ULPS.softplus, x);
  if (op === 'tanh') return apply(Math.tanh, ULPS.tanh, x);
  if (op === 'gelu')
    return apply(
      (a) => a * normalCdf(a),
      ULPS.gelu,
      x,
      (a) => a,
    );
  if (op === 'sin') return apply(Math.sin, ULPS.sin, x, (a) => Math.min(1, Math.abs(a)));
  if (op === 'cos') return apply(Math.cos, ULPS.cos, x, () => 1);
  return null; // one correctly rounded operation
}

/** op'(x). An implementation may use the y it is given or compute it again. */
function slopeBall(op: UnaryOp, x: Ball, y: Ball): Ball {
  if (op === 'neg') return exact(-1);
  if (op === 'exp') return y;
  if (op === 'log') return div(exact(1), x);
  if (op === 'sqrt') return div(exact(0.5), y);
  if (op === 'rsqrt') return product(exact(-0.5), y, y, y);
  if (op === 'square') return mul(exact(2), x);
  if (op === 'abs') return exact(Math.sign(x.v));
  if (op === 'reciprocal') return product(exact(-1), y, y);
  if (op === 'sigmoid') return mul(y, sub(exact(1), y));
  if (op === 'silu') return siluGradBall(x);
  if (op === 'softplus') return x.v > 20 ? exact(1) : apply(sigmoid, ULPS.sigmoid, x);
  if (op === 'tanh') return sub(exact(1), mul(y, y));
  if (op === 'relu') return exact(x.v > 0 ? 1 : 0);
  if (op === 'gelu') {
    return apply(
      (a) => normalCdf(a) + a * normalPdf(a),
      ULPS.geluGrad,
      x,
      (a) => 1 + Math.abs(a),
    );
  }
  if (op === 'sin') return apply(Math.cos, ULPS.cos, x, () => 1);
  return apply(
    (a) => -Math.sin(a),
    ULPS.sin,
    x,
    (a) => Math.min(1, Math.abs(a)),
  );
}

const TWINS: Twins = {
  unary({ op, x, count }): Estimates {
    const name = UNARY[op]!;
    const y = Array.from({ length: count }, (_, i) => unaryBall(name, at(x, i)));
    return y.every((ball) => ball !== null) ? { y } : {};
  },

  unaryGrad({ op, x, y, dy, count }) {
    const name = UNARY[op]!;
    const dx = Array.from({ length: count }, (_, i) => {
      const given = at(y, i);
      const again = unaryBall(name, at(x, i)) ?? rounded(given);
      return mul(at(dy, i), slopeBall(name, at(x, i), { v: given.v, r: again.r }));
    });
    return { dx };
  },

  adamw(o) {
    let clip = exact(1);
    if (o.sumSquares) {
      const length = add(apply(SQRT, 0.5, at(o.sumSquares, 0)), constant(1e-6));
      const ratio = div(constant(o.maxNorm), length);
      clip = ratio.v < 1 ? ratio : { v: 1, r: ratio.v - ratio.r < 1 ? ratio.r : 0 };
    }
    const estimates: Estimates = { param: [], m: [], v: [] };
    for (let i = 0; i < o.count; i++) {
      const g = mul(at(o.grad, i), clip);
      const m = add(at(o.m, i), mul(constant(1 - o.beta1), sub(g, at(o.m, i))));
      const v = add(mul(constant(o.beta2), at(o.v, i)), product(constant(1 - o.beta2), g, g));
      const size = div(apply(SQRT, 0.5, v), constant(Math.sqrt(o.correction2)));
      const step = div(mul(constant(o.lr / o.correction1), m), add(size, constant(o.eps)));
      estimates.param!.push(sub(mul(at(o.param, i), constant(1 - o.lr * o.weightDecay)), step));
      estimates.m!.push(m);
      estimates.v!.push(v);
    }
    return estimates;
  },

  linearNarrow: linearNarrowBound,

  norm(o) {
    const estimates: Estimates = { y: [], rstd: [] };
    if (o.sum) estimates.sum = [];
    if (o.center && o.mean) estimates.mean = [];
    for (let row = 0; row < o.rows; row++) {
      const s = Array.from({ length: o.d }, (_, j) => {
        const x = at(o.x, row * o.d + j);
        return o.residual ? add(x, at(o.residual, row * o.d + j)) : x;
      });
      const mean = o.center ? mul(sum(s), constant(1 / o.d)) : ZERO;
      const centered = o.center ? s.map((value) => sub(value, mean)) : s;
      const variance = mul(sum(centered.map((value) => mul(value, value))), constant(1 / o.d));
      const rstd = apply((a) => 1 / Math.sqrt(a), ULPS.rsqrt, add(variance, constant(o.eps)));
      for (let j = 0; j < o.d; j++) {
        const xhat = mul(centered[j]!, rstd);
        const y = o.weight ? mul(xhat, at(o.weight, j)) : xhat;
        estimates.y!.push(o.bias ? add(y, at(o.bias, j)) : y);
      }
      estimates.sum?.push(...s);
      estimates.rstd!.push(rstd);
      estimates.mean?.push(mean);
    }
    return estimates;
  },

  normGrad(o) {
    const ds: Estimate = [];
    const dweight: Ball[][] = Array.from({ length: o.d }, () => []);
    const dbias: Ball[][] = Array.from({ length: o.d }, () => []);
    for (let row = 0; row < o.rows; row++) {
      const rstd = at(o.rstd, row);
      const mean = o.center ? at(o.mean, row) : ZERO;
      const xhat: Ball[] = [];
      const g: Ball[] = [];
      for (let j = 0; j < o.d; j++) {
        const dy = at(o.dy, row * o.d + j);
        const s = at(o.s, row * o.d + j);
        xhat.push(mul(o.center ? sub(s, mean) : s, rstd));
        g.push(o.weight ? mul(dy, at(o.weight, j)) : dy);
        dweight[j]!.push(mul(dy, xhat[j]!));
        dbias[j]!.push(dy);
      }
      const along = mul(sum(g.map((value, j) => mul(value, xhat[j]!))), constant(1 / o.d));
      const level = o.center ? mul(sum(g), constant(1 / o.d)) : ZERO;
      for (let j = 0; j < o.d; j++) {
        const terms = [
          mul(rstd, g[j]!),
          product(exact(-1), rstd, xhat[j]!, along),
          product(exact(-1), rstd, level),
        ];
        if (o.dsum) terms.push(at(o.dsum, row * o.d + j));
        ds.push(sum(terms));
      }
    }
    const estimates: Estimates = { ds };
    if (o.dweight) estimates.dweight = dweight.map(sum);
    if (o.dbias) estimates.dbias = dbias.map(sum);
    return estimates;
  },

  gatedNorm: gatedNormBound,
  gatedNormGrad: gatedNormGradBound,
  turnHeads: turnHeadsBound,
  turnHeadsGrad: turnHeadsGradBound,

  causalConv(o) {
    const y: Estimate = [];
    for (let i = 0; i < o.b * o.l * o.e; i++) {
      const tap = preActivation(o, i);
      const pre = tap && sum(tap.map(({ weight, input }) => mul(weight, input)).concat(at(o.bias, i % o.e)));
      const c = i % o.e;
      const [part, end] = c < o.cut1 ? [0, o.cut1] : c < o.cut2 ? [o.cut1, o.cut2] : [o.cut2, o.e];
      const place = o.b * o.l * part + Math.floor(i / o.e) * (end - part) + c - part;
      y[place] = !pre ? ZERO : o.silu ? apply(silu, ULPS.silu, pre) : pre;
    }
    return { y };
  },

  causalConvGrad(o) {
    const { b, l, e, k } = o;
    const lists = (size: number): Ball[][] => Array.from({ length: size }, () => []);
    const [dx, dwindow, dweight, dbias] = [lists(b * l * e), lists(b * e * k), lists(e * k), lists(e)];
    const inputGrad = (row: number, c: number, position: number) =>
      position < 0 ? dwindow[(row * e + c) * k + k + position]! : dx[(row * l + position) * e + c]!;
    for (let i = 0; i < b * l * e; i++) {
      const taps = preActivation(o, i);
      if (!taps) continue;
      const [row, t, c] = [Math.floor(i / (l * e)), Math.floor(i / e) % l, i % e];
      const pre = sum(taps.map(({ weight, input }) => mul(weight, input)).concat(at(o.bias, c)));
      const dpre = o.silu ? mul(at(o.dy, i), siluGradBall(pre)) : at(o.dy, i);
      dbias[c]!.push(dpre);
      for (const { j, weight, input } of taps) {
        dweight[c * k + j]!.push(mul(dpre, input));
        inputGrad(row, c, t - k + 1 + j).push(mul(dpre, weight));
      }
    }
    for (let i = 0; i < b * e * k && o.dwindowOut; i++) {
      const [row, c, j] = [Math.floor(i / (e * k)), Math.floor(i / k) % e, i % k];
      const length = o.lengths ? o.lengths[row]! : l;
      const document = (t: number) =>
        length > 0 && o.sequenceIds ? o.sequenceIds[row * l + Math.max(0, t)] : 0;
      const position = length - k + j;
      if (document(position) === document(length - 1)) inputGrad(row, c, position).push(at(o.dwindowOut, i));
    }
    const estimates: Estimates = { dx: dx.map(sum), dweight: dweight.map(sum) };
    if (o.dbias) estimates.dbias = dbias.map(sum);
    if (o.dwindow) estimates.dwindow = dwindow.map(sum);
    return estimates;
  },

  selectiveScan: scanBound,
  selectiveScanGrad: scanGradBound,

  angleScan: angleScanBound,
  angleScanGrad: angleScanGradBound,
  rotate: rotateBound,
  rotateGrad: rotateGradBound,

  ssd: ssdBound,
  ssdGrad: ssdGradBound,

  attention: attentionBound,
  attentionGrad: attentionGradBound,

  crossEntropy(o) {
    const estimates: Estimates = { loss: [], lse: [] };
    for (let row = 0; row < o.rows; row++) {
      const logits = Array.from({ length: o.v }, (_, j) => o.logits[row * o.v + j]!);
      const largest = exact(Math.max(...logits));
      const total = sum(logits.map((x) => apply(Math.exp, ULPS.exp, sub(exact(x), largest))));
      const lse = add(largest, apply(Math.log, ULPS.log, total));
      const target = o.targets[row]!;
      estimates.lse!.push(lse);
      estimates.loss!.push(target === o.ignore ? ZERO : sub(lse, exact(logits[target]!)));
    }
    return estimates;
  },

  crossEntropyGrad(o) {
    const dlogits: Estimate = [];
    for (let i = 0; i < o.rows * o.v; i++) {
      const row = Math.floor(i / o.v);
      const target = o.targets[row]!;
      const p = apply(Math.exp, ULPS.exp, sub(at(o.logits, i), at(o.lse, row)));
      const error = target === i % o.v ? sub(p, exact(1)) : p;
      dlogits.push(target === o.ignore ? ZERO : mul(at(o.dloss, row), error));
    }
    return { dlogits };
  },
};

/** The taps of output i = (row, t, c) of a causal convolution that count; null where the token does not exist. */
function preActivation(o: Operands<'causalConv'> | Operands<'causalConvGrad'>, i: number) {
  const { l, e, k } = o;
  const [row, t, c] = [Math.floor(i / (l * e)), Math.floor(i / e) % l, i % e];
  if (o.lengths && t >= o.lengths[row]!) return null;
  const document = (at: number) => (o.sequenceIds ? o.sequenceIds[row * l + Math.max(0, at)] : 0);
  const taps: { j: number; weight: Ball; input: Ball }[] = [];
  for (let j = 0; j < k; j++) {
    const from = t - k + 1 + j;
    if (document(from) !== document(t)) continue;
    const input = from < 0 ? at(o.window, (row * e + c) * k + k + from) : at(o.x, (row * l + from) * e + c);
    taps.push({ j, weight: at(o.weight, c * k + j), input });
  }
  return taps;
}

/** The balls of all outputs that are not exact. */
export async function boundsOf<N extends KernelName>(test: Case<N>, truth: Result): Promise<Estimates> {
  const sums = SUMS[test.kernel];
  if (!sums) return TWINS[test.kernel]?.(test.operands) ?? {};
  const size = (await magnitude(test))[sums.output]!;
  const factor = gamma(sums.roundings(test.operands));
  return { [sums.output]: Array.from(truth[sums.output]!, (v, i) => ({ v, r: factor * size[i]! })) };
}

/** Whether a kernel's balls come from a second implementation of it. */
export function hasTwin(kernel: KernelName): boolean {
  return kernel in TWINS;
}
