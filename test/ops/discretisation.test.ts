/**
 * What a discretisation is worth: a known differential equation, followed with steps D, D / 2, D / 4 by the scan of Mamba-3 in float64.
 *   h'(t) = a h(t) + x(t),   h(0) = 0,   x(t) = cos t
 * Halving the step halves the error of Euler's rule (Mamba-2: an input counts at the end of its step) and quarters that of the trapezoidal
 * rule (Mamba-3: it counts at both ends, by half). With complex a the state turns as it decays: that is what the angles are for.
 */
import { describe, expect, test } from 'vitest';
import { withDevice } from '../../src/backend/backend.ts';
import { angleScan, rotate } from '../../src/ops/rotation.ts';
import { trapezoid } from '../../src/ops/trapezoid.ts';
import { Tensor } from '../../src/tensor/tensor.ts';
import { f64 } from '../support/f64.ts';

interface Complex {
  re: number;
  im: number;
}
const times = (u: Complex, v: Complex): Complex => ({
  re: u.re * v.re - u.im * v.im,
  im: u.re * v.im + u.im * v.re,
});
const over = (u: Complex, v: Complex): Complex => {
  const size = v.re ** 2 + v.im ** 2;
  return { re: (u.re * v.re + u.im * v.im) / size, im: (u.im * v.re - u.re * v.im) / size };
};

/** h(t): with cos s = (e^is + e^-is) / 2, h(t) = sum over w = 1, -1 of (e^iwt - e^at) / (2 (iw - a)). */
function exact(a: Complex, t: number): Complex {
  const decayed = {
    re: Math.exp(a.re * t) * Math.cos(a.im * t),
    im: Math.exp(a.re * t) * Math.sin(a.im * t),
  };
  const parts = [1, -1].map((w) => {
    const difference = { re: Math.cos(w * t) - decayed.re, im: Math.sin(w * t) - decayed.im };
    return over(difference, { re: -2 * a.re, im: 2 * (w - a.im) });
  });
  return { re: parts[0]!.re + parts[1]!.re, im: parts[0]!.im + parts[1]!.im };
}

/** Re h after each of `steps` steps up to `end`, by one call: one head, one channel, one pair of state elements. */
function integrate(a: Complex, lambda: number, steps: number, end: number): Float64Array {
  const dt = end / steps;
  const input = Float64Array.from({ length: steps }, (_, i) => Math.cos((i + 1) * dt));
  const y = withDevice(f64, () => {
    const perToken = (value: number) => Tensor.full([1, steps, 1], value);
    // Key and query (1, 0): the state starts at angle 0 and is read at the angle it has turned to.
    const one = Tensor.from(
      Float64Array.from({ length: 2 * steps }, (_, i) => (i % 2 === 0 ? 1 : 0)),
      [1, steps, 1, 1, 2],
    );
    // pi tanh(angle) is how far the state turns in a unit of time.
    const { theta } = angleScan(perToken(Math.atanh(a.im / Math.PI)), perToken(dt));
    const turned = rotate(one, theta, { pairing: 'adjacent' });
    const start = {
      ssm: Tensor.zeros([1, 1, 1, 2]),
      k: Tensor.from(Float64Array.of(1, 0), [1, 1, 1, 2]), // x(0) = 1, before any turning
      v: Tensor.ones([1, 1, 1, 1]),
    };
    const x = Tensor.from(input, [1, steps, 1, 1, 1]);
    return trapezoid(x, perToken(dt), perToken(a.re), perToken(lambda), turned, turned, { state: start }).y;
  });
  return f64.readF64(y, steps);
}

/** How the largest error over [0, 8] shrinks when the step is halved, as a power of 2; twice. */
function slopes(a: Complex, lambda: number): number[] {
  const end = 8;
  const errors = [128, 256, 512].map((steps) => {
    const states = integrate(a, lambda, steps, end);
    return states.reduce(
      (worst, h, i) => Math.max(worst, Math.abs(h - exact(a, ((i + 1) * end) / steps).re)),
      0,
    );
  });
  return [Math.log2(errors[0]! / errors[1]!), Math.log2(errors[1]! / errors[2]!)];
}

describe.each([
  { name: 'a decaying state', a: { re: -0.7, im: 0 } },
  { name: 'a state that turns as it decays', a: { re: -0.4, im: 2 } },
])('$name', ({ a }) => {
  test('the exact solution solves the equation', () => {
    // Central differences of a function whose third derivative is below 10: off by 1e-10 10 / 6, and by rounding 1e-16 / 1e-5.
    const [t, step] = [1.3, 1e-5];
    const [before, now, after] = [exact(a, t - step), exact(a, t), exact(a, t + step)];
    const right = times(a, now);
    expect(Math.abs((after.re - before.re) / (2 * step) - right.re - Math.cos(t))).toBeLessThan(1e-9);
    expect(Math.abs((after.im - before.im) / (2 * step) - right.im)).toBeLessThan(1e-9);
    expect(exact(a, 0)).toEqual({ re: 0, im: 0 });
  });

  test.each([
    ['Euler, all weight on the end of a step: first order', 1, 1],
    ['trapezoid, half at each end: second order', 0.5, 2],
    ['any other weights: first order', 0.3, 1],
  ])('%s', (_, lambda, order) => {
    for (const slope of slopes(a, lambda)) {
      expect(slope).toBeGreaterThan(order - 0.1);
      expect(slope).toBeLessThan(order + 0.1);
    }
  });
});
