/**
 * Arithmetic with error bounds. A ball (v, r) stands for a number whose exact value is v and of which a float32
 * implementation may hold anything in [v - r, v + r]. Every operation carries the errors of its operands through and adds
 * its own rounding, so the radius that comes out bounds the error of the whole expression, for inputs of any size
 * (running error analysis; Higham, Accuracy and Stability of Numerical Algorithms, 3.3). See docs/numerics.md.
 */
import { sigmoid, siluGrad } from '../../src/backend/reference/math.ts';

/** Unit roundoff of float32: one correctly rounded operation has this relative error. */
export const EPS = 2 ** -24;
/** The smallest normal float32. Results below it may be flushed to zero. */
export const TINY = 2 ** -126;

/**
 * Promised accuracy of the vector mathematics, in units in the last place (2 EPS, relative to the result). Where a
 * function has a zero or an inner rounding that it amplifies, the error counts relative to the size given instead.
 */
export const ULPS = {
  /** exp, and exp2 of a product, which computes the decays. */
  exp: 2.5,
  log: 2,
  rsqrt: 2,
  sigmoid: 3,
  silu: 4,
  softplus: 4,
  tanh: 4,
  /** Of |gelu(x)| (1 + x^2/4): e^(-x^2/2) amplifies the roundings of its argument. */
  gelu: 4,
  /** Of (cdf(x) + |x| pdf(x)) (1 + x^2/4): a zero at -0.75. */
  geluGrad: 4,
  /** Of min(1, |x|). */
  sin: 2,
  /** Of 1. */
  cos: 2,
  /** Of s (1 + |x|), s the sigmoid: s (1 + x (1 - s)) has a zero at -1.28. */
  siluGrad: 4,
} as const;

export interface Ball {
  readonly v: number;
  readonly r: number;
  /** Of an angle: its distances count modulo this. */
  readonly period?: number;
}

/** The ball of every element of an output. */
export type Estimate = Ball[];
export type Estimates = Record<string, Estimate>;

export const ZERO: Ball = { v: 0, r: 0 };

/** A number every implementation has as it is: an operand. */
export function exact(v: number): Ball {
  return { v, r: 0 };
}

/** Element i of an operand; `missing` where there is no such operand. */
export function at(x: ArrayLike<number> | null, i: number, missing = 0): Ball {
  return exact(x ? x[i]! : missing);
}

/** A float64 constant, rounded to float32 once. */
export function constant(v: number): Ball {
  return { v, r: Math.fround(v) === v ? 0 : EPS * Math.abs(v) };
}

/** `roundings` more relative errors of EPS. */
export function rounded(x: Ball, roundings = 1): Ball {
  if (x.v === 0 && x.r === 0) return x;
  return { v: x.v, r: x.r + roundings * EPS * (Math.abs(x.v) + x.r) + TINY };
}

export function add(a: Ball, b: Ball): Ball {
  return rounded({ v: a.v + b.v, r: a.r + b.r });
}

export function sub(a: Ball, b: Ball): Ball {
  return rounded({ v: a.v - b.v, r: a.r + b.r });
}

export function mul(a: Ball, b: Ball): Ball {
  return rounded({ v: a.v * b.v, r: Math.abs(a.v) * b.r + Math.abs(b.v) * a.r + a.r * b.r });
}

/** A product of several, in any order. */
export function product(...factors: Ball[]): Ball {
  return factors.reduce(mul);
}

export function div(a: Ball, b: Ball): Ball {
  const v = a.v / b.v;
  return rounded({ v, r: (a.r + Math.abs(v) * b.r) / (Math.abs(b.v) - b.r) });
}

/** A sum in any order, of any tree of partial sums: gamma(n) times the sum of absolute values (Higham, 4.2). */
export function sum(terms: readonly Ball[]): Ball {
  let [v, r, size] = [0, 0, 0];
  for (const term of terms) {
    v += term.v;
    r += term.r;
    size += Math.abs(term.v) + term.r;
  }
  return { v, r: r + gamma(terms.length - 1) * size };
}

/** The relative error of n roundings in a row. */
export function gamma(n: number): number {
  return n <= 0 ? 0 : (n * EPS) / (1 - n * EPS);
}

/** A function computed to `ulps` units in the last place, of `size(x)` where that is not |f(x)|. */
export function apply(
  f: (x: number) => number,
  ulps: number,
  x: Ball,
  size: (x: number) => number = f,
): Ball {
  const v = f(x.v);
  if (!Number.isFinite(v)) return exact(v); // an infinity or NaN must come out as such
  const carried = x.r === 0 ? 0 : Math.max(Math.abs(f(x.v + x.r) - v), Math.abs(f(x.v - x.r) - v));
  return { v, r: carried + 2 * EPS * ulps * Math.abs(size(x.v)) + TINY };
}

export function siluGradBall(x: Ball): Ball {
  return apply(siluGrad, ULPS.siluGrad, x, (a) => sigmoid(a) * (1 + Math.abs(a)));
}
