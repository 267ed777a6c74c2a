/** Cases of the kernels that treat every element alone. */
import { BINARY, UNARY, type UnaryOp } from '../../../src/backend/kernels.ts';
import { createReference } from '../../../src/backend/reference/index.ts';
import { type Case, inPlace, type Operands, out } from '../harness.ts';
import { define, pick, type Values } from './values.ts';

const COUNTS = [0, 1, 2, 3, 7, 15, 16, 17, 33, 65, 130, 1000, 20001];
const { NaN: nan, POSITIVE_INFINITY: inf } = Number;

const EVERYWHERE = [
  0, 1e-30, 1e-7, 1e-3, 0.1, 0.5, 0.7499, 1, 1.2784, 2, 3, 5, 8.3, 10, 16.6, 17.4, 19.999, 20, 20.001, 25, 40,
  80, 87,
]; // prettier-ignore

/** Arguments where a function is hard, and its special values; NaN must come out as NaN. */
function edges(op: UnaryOp): number[] {
  if (op === 'log') return [1e-38, 1e-30, 0.5, 0.9999999, 1, 1.0000001, 2, 3e38, inf, nan];
  if (op === 'sqrt' || op === 'rsqrt') return [1e-30, 1e-6, 0.25, 1, 2, 3e38, nan];
  if (op === 'reciprocal') return [1e-30, -0.3, 3, 1e30, -inf, nan];
  if (op === 'sin' || op === 'cos') {
    return [0, 1e-6, -0.7, Math.PI / 2, Math.PI, -Math.PI, 12.5, 355, -1000, 9999, nan].map(Math.fround);
  }
  const both = EVERYWHERE.flatMap((x) => [x, -x]);
  if (op === 'exp') return [...both, -100, -1000, 88.7, 1000, inf, -inf, nan];
  if (op === 'square') return [...both, nan];
  if (op === 'relu') return [...both, inf, -inf];
  const outer = op === 'silu' || op === 'gelu' ? [] : [inf, -inf];
  return [...both, 100, -100, 1000, -1000, nan, ...outer];
}

function samples(op: UnaryOp, values: Values, count: number): Float32Array {
  if (op === 'log' || op === 'sqrt' || op === 'rsqrt') return values.logUniform(count, 1e-20, 1e20);
  if (op === 'reciprocal') return values.logUniform(count, 1e-10, 1e10).map((x, i) => (i % 2 ? x : -x));
  return values.normal(count, op === 'sin' || op === 'cos' ? 30 : 4);
}

const reference = createReference({ storage: 'f64' });

/** op(x), rounded to float32: what unaryGrad is given. */
function roundedValue(op: number, x: Float32Array): Float32Array {
  const [from, to] = [reference.alloc(x.length * 4), reference.alloc(x.length * 4)];
  reference.write({ storage: from, offset: 0 }, 'f32', x);
  const y = { storage: to, offset: 0 };
  reference.kernels.unary({ op, x: { storage: from, offset: 0 }, y, count: x.length });
  const values = Float32Array.from(reference.readF64(y, x.length));
  reference.free(from);
  reference.free(to);
  return values;
}

function unaryCases(): Case[] {
  return UNARY.flatMap((name, op) => [
    ...COUNTS.map((count) =>
      define('unary', `${name} of ${count}`, (values) => ({
        op,
        x: samples(name, values, count),
        y: out(count),
        count,
      })),
    ),
    define('unary', `${name} at its edges`, () => {
      const x = Float32Array.from(edges(name));
      return { op, x, y: out(x.length), count: x.length };
    }),
    define('unary', `${name} in place`, (values) => {
      return { op, x: samples(name, values, 37), y: inPlace('x', 37), count: 37 };
    }),
    ...COUNTS.map((count) =>
      define('unaryGrad', `${name} of ${count}`, (values) => {
        const x = samples(name, values, count);
        return { op, x, y: roundedValue(op, x), dy: values.normal(count), dx: out(count), count };
      }),
    ),
    define('unaryGrad', `${name} at its edges`, (values) => {
      // Finite arguments with a finite slope, in float32.
      const x = Float32Array.from(edges(name)).filter((at) => Number.isFinite(at) && Math.abs(at) < 1e12);
      const kept =
        name === 'log' || name.endsWith('sqrt') || name === 'reciprocal'
          ? x.filter((at) => Math.abs(at) > 1e-10)
          : x;
      const usable = name === 'exp' ? kept.filter((at) => at < 80) : kept;
      const count = usable.length;
      return { op, x: usable, y: roundedValue(op, usable), dy: values.normal(count), dx: out(count), count };
    }),
    define('unaryGrad', `${name} in place`, (values) => {
      const x = samples(name, values, 37);
      return { op, x, y: roundedValue(op, x), dy: values.normal(37), dx: inPlace('dy', 37), count: 37 };
    }),
  ]);
}

type Four = readonly [number, number, number, number];

/** Shape, strides of a, strides of b. */
const LAYOUTS: readonly (readonly [string, Four, Four, Four])[] = [
  ['equal shapes', [1, 1, 3, 37], [111, 111, 37, 1], [111, 111, 37, 1]],
  ['one element', [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]],
  ['no element', [2, 0, 3, 4], [0, 12, 4, 1], [0, 12, 4, 1]],
  ['long rows', [1, 1, 1, 20001], [0, 0, 0, 1], [0, 0, 0, 1]],
  ['b a row', [1, 2, 5, 33], [330, 165, 33, 1], [0, 0, 0, 1]],
  ['b a column', [1, 2, 5, 33], [330, 165, 33, 1], [0, 5, 1, 0]],
  ['b a number', [1, 2, 5, 33], [330, 165, 33, 1], [0, 0, 0, 0]],
  ['a a number', [1, 1, 4, 17], [0, 0, 0, 0], [68, 68, 17, 1]],
  ['a a row', [1, 1, 4, 17], [0, 0, 0, 1], [68, 68, 17, 1]],
  ['a a column', [1, 1, 4, 17], [0, 0, 1, 0], [68, 68, 17, 1]],
  ['outer product', [1, 1, 19, 18], [0, 0, 1, 0], [0, 0, 0, 1]],
  ['b the middle axis', [3, 4, 5, 6], [120, 30, 6, 1], [0, 6, 0, 1]],
  ['b transposed', [1, 3, 5, 7], [105, 35, 7, 1], [105, 35, 1, 5]],
];

function reach([d0, d1, d2, d3]: Four, [s0, s1, s2, s3]: Four): number {
  return (
    1 +
    Math.max(0, d0 - 1) * s0 +
    Math.max(0, d1 - 1) * s1 +
    Math.max(0, d2 - 1) * s2 +
    Math.max(0, d3 - 1) * s3
  );
}

function binaryCase(op: number, [name, shape, sa, sb]: (typeof LAYOUTS)[number], alias?: 'a' | 'b'): Case {
  const count = shape.reduce((product, extent) => product * extent, 1);
  return define('binary', `${BINARY[op]}, ${name}${alias ? ` into ${alias}` : ''}`, (values) => ({
    op,
    a: values.normal(reach(shape, sa), 3),
    b: values.normal(reach(shape, sb), 3),
    y: alias ? inPlace(alias, count) : out(count),
    ...{ d0: shape[0], d1: shape[1], d2: shape[2], d3: shape[3] },
    ...{ a0: sa[0], a1: sa[1], a2: sa[2], a3: sa[3], b0: sb[0], b1: sb[1], b2: sb[2], b3: sb[3] },
  }));
}

function adamwCase(count: number, i: number): Case {
  const clipped = i % 2 === 1;
  const step = pick([1, 10, 1000], i);
  return define('adamw', `${count} at step ${step}${clipped ? ', clipped' : ''}`, (values) => {
    const grad = values.normal(count, pick([1, 1e-3, 1e-6], i));
    const operands: Operands<'adamw'> = {
      param: values.normal(count),
      grad,
      m: step === 1 ? new Float32Array(count) : values.normal(count, 0.1),
      v: step === 1 ? new Float32Array(count) : values.logUniform(count, 1e-12, 1),
      // Once longer than maxNorm, once shorter.
      sumSquares: clipped ? Float32Array.of(i % 4 === 1 ? 6.25 : 0.25) : null,
      count,
      lr: 3e-3,
      beta1: 0.9,
      beta2: 0.95,
      eps: 1e-8,
      weightDecay: i % 3 === 0 ? 0 : 0.1,
      correction1: 1 - 0.9 ** step,
      correction2: 1 - 0.95 ** step,
      maxNorm: 1,
    };
    if (count > 2) grad[1] = 0; // a parameter without gradient: 0 / (0 + eps)
    return operands;
  });
}

export const elementwise: Case[] = [
  ...unaryCases(),
  ...BINARY.flatMap((_, op) => LAYOUTS.map((layout) => binaryCase(op, layout))),
  ...BINARY.flatMap((_, op) => [binaryCase(op, LAYOUTS[0]!, 'a'), binaryCase(op, LAYOUTS[0]!, 'b')]),
  binaryCase(0, LAYOUTS[4]!, 'a'),
  binaryCase(2, LAYOUTS[7]!, 'b'),
  ...COUNTS.flatMap((count, i) => [
    define('affine', `${count}`, (values) => {
      const y = i % 2 ? out(count) : inPlace('x', count);
      return { x: values.normal(count), y, scale: -0.3, shift: pick([0, 0.7], i), count };
    }),
    define('axpy', `${count}`, (values) => {
      return { x: values.normal(count), y: values.normal(count), alpha: -1.7, count };
    }),
    define('fill', `${count}`, () => ({ y: out(count), value: pick([0, 0.1, -3e30], i), count })),
    adamwCase(count, i),
  ]),
];
