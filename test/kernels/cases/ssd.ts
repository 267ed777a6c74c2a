/**
 * Cases of ssd: lengths around the chunk and chunks longer than the row, ranks, groups, widths of D, every
 * optional operand, decays from those that forget nothing to those that forget everything.
 */
import { ssdGradPartialSize, ssdPartialSize } from '../../../src/backend/kernels.ts';
import { createReference } from '../../../src/backend/reference/index.ts';
import { type Case, inPlace, type Operands, out, run } from '../harness.ts';
import { define, pick, Values } from './values.ts';

interface Shape {
  b: number;
  l: number;
  r: number;
  h: number;
  p: number;
  g: number;
  n: number;
  q: number;
}

/** Lengths with chunks. */
const LENGTHS = [
  [1, 64],
  [2, 2],
  [7, 16],
  [33, 7],
  [16, 16],
  [65, 64],
  [5, 1],
  [17, 16],
  [0, 64],
  [15, 16],
  [130, 64],
  [50, 300],
] as const; // prettier-ignore
/** Heads with groups. */
const HEADS = [
  [1, 1],
  [4, 2],
  [3, 1],
  [6, 3],
  [2, 2],
  [9, 1],
] as const; // prettier-ignore
const WIDTHS = [1, 8, 3, 16, 5, 17, 4];
const STATES = [1, 16, 5, 8, 33];

type Decay = 'usual' | 'extreme';

/**
 * Heads and states of the size of real models and around it, across the tiles of every implementation. By
 * number of the case.
 */
const WIDE: Record<number, Shape> = {
  100: { b: 1, l: 70, r: 1, h: 2, p: 64, g: 1, n: 128, q: 64 },
  101: { b: 2, l: 40, r: 2, h: 1, p: 65, g: 1, n: 130, q: 32 },
  102: { b: 1, l: 37, r: 4, h: 2, p: 33, g: 2, n: 67, q: 128 },
  103: { b: 1, l: 12, r: 1, h: 8, p: 48, g: 1, n: 40, q: 8 },
};

function shapeOf(i: number): Shape {
  const wide = WIDE[i];
  if (wide) return wide;
  const [l, q] = pick(LENGTHS, i);
  const [h, g] = pick(HEADS, i + Math.floor(i / LENGTHS.length));
  // The bounds look at every pair of tokens: wide heads, states and ranks where rows are short.
  const short = l < 40;
  return {
    b: pick([1, 3, 2], i),
    l,
    r: short ? pick([1, 1, 2, 3, 4], i) : pick([1, 2], i),
    h: short ? h : Math.min(h, 2),
    g: short ? g : 1,
    p: short ? pick(WIDTHS, i) : pick([3, 5], i),
    n: short ? pick(STATES, i + Math.floor(i / STATES.length)) : pick([5, 9], i),
    q,
  };
}

function common(values: Values, shape: Shape, i: number, kind: Decay) {
  const { b, l, r, h, p, g, n } = shape;
  const has = (bit: number) => ((i * 37) & bit) !== 0;
  const steps = b * l * h;
  const usual = values.logUniform(steps, 1e-3, 2).map((rate) => -rate);
  const extreme = Float32Array.from({ length: steps }, () =>
    pick([-1e-8, -50, -0.3, -1e4, -90, 0, Number.NEGATIVE_INFINITY], values.rng.below(7)),
  );
  const dWidth = has(2) ? p : 1;
  return {
    x: values.normal(b * l * r * h * p),
    decay: kind === 'usual' ? usual : extreme,
    scale: values.normal(steps),
    own: has(4) ? values.normal(steps) : null,
    B: values.normal(b * l * r * g * n),
    C: values.normal(b * l * r * g * n),
    D: has(1) ? values.normal(h * dWidth) : null,
    sequenceIds: has(8) ? values.documents(b, l, pick([2, 9, 50], i)) : null,
    lengths: has(16)
      ? Int32Array.from({ length: b }, (_, row) => Math.min(l, pick([l >> 1, 0, l], row)))
      : null,
    ...shape,
    dWidth,
  };
}

function nameOf(shape: Shape, kind: Decay, o: { [name: string]: unknown }): string {
  const optional = ['own', 'D', 'state', 'lastWeight', 'sequenceIds', 'lengths', 'dstateOut'].filter(
    (name) => o[name],
  );
  const { b, l, r, h, p, g, n, q } = shape;
  const sizes = `(${b}, ${l}, ${r}, ${h}, ${p}) g ${g} n ${n} q ${q}`;
  const remarks = [kind === 'extreme' ? 'extreme decays' : '', o.precision === 1 ? 'bf16' : ''].filter(
    Boolean,
  );
  return [sizes, ...optional, ...remarks].join(', ');
}

function named<N extends 'ssd' | 'ssdGrad'>(
  kernel: N,
  shape: Shape,
  i: number,
  kind: Decay,
  make: (values: Values) => Operands<N>,
): Case {
  const test = define(kernel, `${i} ${kind}`, make);
  return { ...test, name: nameOf(shape, kind, test.operands as { [name: string]: unknown }) };
}

const NO_LAST = { lastX: null, lastB: null, lastWeight: null };

function lastToken(values: Values, { b, r, h, p, g, n }: Shape) {
  return {
    lastX: values.normal(b * r * h * p),
    lastB: values.normal(b * r * g * n),
    lastWeight: values.normal(b * h),
  };
}

const hasState = (i: number) => i % 3 !== 0;

function forward(i: number, kind: Decay = 'usual', precision = 0): Case {
  const shape = shapeOf(i);
  const { b, l, r, h, p, g, n, q } = shape;
  return named('ssd', shape, i, kind, (values) => ({
    ...common(values, shape, i, kind),
    state: hasState(i) ? values.normal(b * h * p * n) : null,
    ...(i % 5 === 1 ? lastToken(values, shape) : NO_LAST),
    y: out(b * l * r * h * p),
    stateOut: hasState(i) && i % 7 < 3 ? inPlace('state', b * h * p * n) : out(b * h * p * n),
    checkpoints: i % 2 ? out(b * Math.ceil(l / q) * h * p * n) : null,
    partial: out(ssdPartialSize(b, l, r, g, q)),
    precision,
  }));
}

const reference = createReference();

/** The gradient of a forward case, from the checkpoints that the float32 forward pass leaves. */
async function backward(i: number, kind: Decay = 'usual'): Promise<Case> {
  const shape = shapeOf(i);
  const { b, l, r, h, p, g, n, q } = shape;
  const given = common(new Values(`ssd ${i} ${kind}`), shape, i, kind);
  const values = new Values(`ssd gradient ${i}`);
  const { checkpoints } = await run(reference, {
    kernel: 'ssd',
    name: 'checkpoints',
    operands: {
      ...given,
      state: hasState(i) ? values.normal(b * h * p * n) : null,
      ...NO_LAST,
      y: out(b * l * r * h * p),
      stateOut: out(b * h * p * n),
      checkpoints: out(b * Math.ceil(l / q) * h * p * n),
      partial: out(ssdPartialSize(b, l, r, g, q)),
      precision: 0,
    },
  });
  return named('ssdGrad', shape, i, kind, () => ({
    ...given,
    checkpoints: Float32Array.from(checkpoints!),
    dy: values.normal(b * l * r * h * p),
    dstateOut: i % 4 === 1 ? null : values.normal(b * h * p * n),
    dx: out(b * l * r * h * p),
    ddecay: out(b * l * h),
    dscale: out(b * l * h),
    down: given.own ? out(b * l * h) : null,
    dB: out(given.B.length),
    dC: out(given.C.length),
    dD: given.D ? out(given.D.length) : null,
    dstate: hasState(i) ? out(b * h * p * n) : null,
    partial: out(ssdGradPartialSize(b, l, r, h, p, g, n, q)),
  }));
}

const USUAL = Array.from({ length: 60 }, (_, i) => i);
const LARGE = Object.keys(WIDE).map(Number);
const EXTREME = [3, 4, 5, 7, 10, 11, 14, 16, 19, 27, 31];

export const ssd: Case[] = [
  ...[...USUAL, ...LARGE].map((i) => forward(i)),
  ...EXTREME.map((i) => forward(i, 'extreme')),
  ...[...USUAL, ...LARGE].map((i) => forward(i, 'usual', 1)),
  ...EXTREME.map((i) => forward(i, 'extreme', 1)),
  ...(await Promise.all([...USUAL, ...LARGE].map((i) => backward(i)))),
  ...(await Promise.all(EXTREME.map((i) => backward(i, 'extreme')))),
];
