/** Kernels that treat every element alone: maps, broadcasting arithmetic, the optimizer step. */
import type { Kernels } from '../backend.ts';
import { BINARY, type BinaryOp, UNARY, type UnaryOp } from '../kernels.ts';
import { normalCdf, normalPdf, sigmoid, silu, siluGrad, softplus, softplusGrad } from './math.ts';
import { input, optionalInput, output } from './storage.ts';

const VALUE: Record<UnaryOp, (x: number) => number> = {
  neg: (x) => -x,
  exp: Math.exp,
  log: Math.log,
  sqrt: Math.sqrt,
  rsqrt: (x) => 1 / Math.sqrt(x),
  square: (x) => x * x,
  abs: Math.abs,
  reciprocal: (x) => 1 / x,
  sigmoid,
  silu,
  softplus,
  tanh: Math.tanh,
  relu: (x) => Math.max(x, 0),
  gelu: (x) => x * normalCdf(x),
  sin: Math.sin,
  cos: Math.cos,
};

/** op'(x), from x or from y = op(x), whichever says it with fewer operations. */
const SLOPE: Record<UnaryOp, (x: number, y: number) => number> = {
  neg: () => -1,
  exp: (_x, y) => y,
  log: (x) => 1 / x,
  sqrt: (_x, y) => 0.5 / y,
  rsqrt: (_x, y) => -0.5 * y * y * y,
  square: (x) => 2 * x,
  abs: Math.sign,
  reciprocal: (_x, y) => -y * y,
  sigmoid: (_x, y) => y * (1 - y),
  silu: siluGrad,
  softplus: softplusGrad,
  tanh: (_x, y) => 1 - y * y,
  relu: (x) => (x > 0 ? 1 : 0),
  gelu: (x) => normalCdf(x) + x * normalPdf(x),
  sin: Math.cos,
  cos: (x) => -Math.sin(x),
};

const COMBINE: Record<BinaryOp, (a: number, b: number) => number> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => a / b,
  max: Math.max,
  min: Math.min,
};

export const elementwise = {
  unary({ op, count, ...refs }) {
    const x = input(refs.x);
    const y = output(refs.y);
    const f = VALUE[UNARY[op]!];
    for (let i = 0; i < count; i++) y[i] = f(x[i]!);
  },

  unaryGrad({ op, count, ...refs }) {
    const [x, y, dy] = [input(refs.x), input(refs.y), input(refs.dy)];
    const dx = output(refs.dx);
    const slope = SLOPE[UNARY[op]!];
    for (let i = 0; i < count; i++) dx[i] = dy[i]! * slope(x[i]!, y[i]!);
  },

  binary({ op, d0, d1, d2, d3, a0, a1, a2, a3, b0, b1, b2, b3, ...refs }) {
    const [a, b] = [input(refs.a), input(refs.b)];
    const y = output(refs.y);
    const f = COMBINE[BINARY[op]!];
    let i = 0;
    for (let i0 = 0; i0 < d0; i0++) {
      for (let i1 = 0; i1 < d1; i1++) {
        for (let i2 = 0; i2 < d2; i2++) {
          const aRow = i0 * a0 + i1 * a1 + i2 * a2;
          const bRow = i0 * b0 + i1 * b1 + i2 * b2;
          for (let i3 = 0; i3 < d3; i3++) y[i++] = f(a[aRow + i3 * a3]!, b[bRow + i3 * b3]!);
        }
      }
    }
  },

  affine({ scale, shift, count, ...refs }) {
    const x = input(refs.x);
    const y = output(refs.y);
    for (let i = 0; i < count; i++) y[i] = x[i]! * scale + shift;
  },

  axpy({ alpha, count, ...refs }) {
    const x = input(refs.x);
    const y = output(refs.y);
    for (let i = 0; i < count; i++) y[i] = y[i]! + alpha * x[i]!;
  },

  fill({ value, count, ...refs }) {
    output(refs.y).fill(value, 0, count);
  },

  adamw({ count, lr, beta1, beta2, eps, weightDecay, correction1, correction2, maxNorm, ...refs }) {
    const grad = input(refs.grad);
    const sumSquares = optionalInput(refs.sumSquares);
    const [param, m, v] = [output(refs.param), output(refs.m), output(refs.v)];
    const clip = sumSquares ? Math.min(1, maxNorm / (Math.sqrt(sumSquares[0]!) + 1e-6)) : 1;
    for (let i = 0; i < count; i++) {
      const g = grad[i]! * clip;
      const mNew = m[i]! + (1 - beta1) * (g - m[i]!);
      const vNew = beta2 * v[i]! + (1 - beta2) * g * g;
      const step = mNew / correction1 / (Math.sqrt(vNew) / Math.sqrt(correction2) + eps);
      param[i] = param[i]! * (1 - lr * weightDecay) - lr * step;
      m[i] = mNew;
      v[i] = vNew;
    }
  },
} satisfies Partial<Kernels>;
