/** linearNarrow in balls, and how far rounded activations may take a product. See docs/numerics.md. */
import { NARROW } from '../../src/backend/kernels.ts';
import { bf16ToF32, f32ToBf16 } from '../../src/base/dtype.ts';
import { PRECISIONS } from '../../src/tensor/precision.ts';
import { at, type Estimate, type Estimates, exact, mul, rounded, sum } from './ball.ts';
import { quantAt, widened } from './cases/narrow.ts';
import type { Operands } from './harness.ts';

type Product = Operands<'linearNarrow'>;

const levelsOf = (o: Product): number => (PRECISIONS[o.precision] === 'int8' ? 127 : 32512);

/** Block b of row i of the activations as integers with a scale, in float32 at every step. */
function quantised(o: Product, i: number, b: number): { q: number[]; scale: number } {
  const a = Array.from(o.a.subarray(i * o.k + 32 * b, i * o.k + 32 * (b + 1)));
  const top = Math.max(2 ** -110, ...a.map(Math.abs));
  const inverse = Math.fround(levelsOf(o) / top);
  const q = a.map((x) => {
    const y = Math.fround(x * inverse);
    const [below, rest] = [Math.floor(y), y - Math.floor(y)];
    return rest < 0.5 || (rest === 0.5 && below % 2 === 0) ? below : below + 1;
  });
  return { q, scale: Math.fround(top / levelsOf(o)) };
}

export function linearNarrowBound(o: Product): Estimates {
  const c: Estimate = [];
  const rows = o.row + o.n;
  const blocks = NARROW[o.format]!.startsWith('q');
  const operand = (x: number) => (PRECISIONS[o.precision] === 'bf16' ? bf16ToF32(f32ToBf16(x)) : x);
  const w = blocks ? null : widened(o.format, o.w, rows, o.k);
  const a = blocks
    ? Array.from({ length: (o.m * o.k) / 32 }, (_, i) =>
        quantised(o, Math.floor(i / (o.k / 32)), i % (o.k / 32)),
      )
    : [];
  for (let i = 0; i < o.m * o.n; i++) {
    const [row, column] = [Math.floor(i / o.n), i % o.n];
    const terms = o.bias ? [at(o.bias, column)] : [];
    if (w) {
      for (let p = 0; p < o.k; p++) {
        const [x, y] = [o.a[row * o.k + p]!, w[(o.row + column) * o.k + p]!];
        terms.push(mul(exact(operand(x)), exact(operand(y))));
      }
    } else {
      for (let b = 0; b < o.k / 32; b++) {
        const { q, scale } = a[row * (o.k / 32) + b]!;
        const first = quantAt(o.format, o.w, o.k, o.row + column, 32 * b);
        const dot = q.reduce(
          (total, x, p) => total + x * quantAt(o.format, o.w, o.k, o.row + column, 32 * b + p).q,
          0,
        );
        // The integer, which may have more digits than a float, then both scales.
        const size = Math.fround(dot) === dot ? exact(dot) : rounded(exact(dot));
        terms.push(mul(exact(scale), mul(exact(first.scale), size)));
      }
    }
    c.push(sum(terms));
  }
  return { c };
}

/**
 * What rounding the activations of q8 and q4 products changes: c with activations as they are, and the
 * largest distance from there. An activation is off by at most half a step of its block's scale; the rounded
 * reciprocal and scale add three roundings of the integer, and what lies below 2^-110 is rounded as if it
 * were that.
 */
export function activationBound(o: Product): { v: number; r: number }[] {
  const w = widened(o.format, o.w, o.row + o.n, o.k);
  return Array.from({ length: o.m * o.n }, (_, i) => {
    const [row, column] = [Math.floor(i / o.n), i % o.n];
    let [v, r] = [o.bias ? o.bias[column]! : 0, 0];
    for (let b = 0; b < o.k / 32; b++) {
      let [top, weights] = [2 ** -110, 0];
      for (let p = 32 * b; p < 32 * (b + 1); p++) {
        const [x, y] = [o.a[row * o.k + p]!, w[(o.row + column) * o.k + p]!];
        v += x * y;
        top = Math.max(top, Math.abs(x));
        weights += Math.abs(y);
      }
      r += top * (0.5 / levelsOf(o) + 3.01 * 2 ** -24) * weights;
    }
    return { v, r };
  });
}
