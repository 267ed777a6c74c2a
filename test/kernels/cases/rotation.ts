/**
 * Cases of the angles of Mamba-3 and of turning by them: heads and pairs around the blocks and the vector, every pairing, angles shared by the
 * heads, documents, ragged rows, steps from 1e-9 to 200.
 */
import { anglePartialSize } from '../../../src/backend/kernels.ts';
import { type Case, type Operands, out } from '../harness.ts';
import { define, pick, type Values } from './values.ts';

interface AngleShape {
  b: number;
  l: number;
  h: number;
  s: number;
}

const LENGTHS = [1, 2, 7, 33, 0, 65, 130];
const HEADS = [1, 8, 3, 9, 17, 24];
const PAIRS = [1, 16, 2, 5, 8, 32, 17, 4, 33];

function angleShape(i: number): AngleShape {
  return { b: pick([1, 3, 2, 0], i), l: pick(LENGTHS, i), h: pick(HEADS, i), s: pick(PAIRS, i) };
}

function angles(values: Values, { b, l, h, s }: AngleShape, i: number) {
  const has = (bit: number) => ((i * 5) & bit) !== 0;
  const [low, high] = i % 6 === 5 ? [1e-9, 200] : [1e-4, 1];
  return {
    angle: values.normal(b * l * s, 2),
    dt: values.logUniform(b * l * h, low!, high!),
    sequenceIds: has(2) ? values.documents(b, l, pick([2, 9, 50], i)) : null,
    lengths: has(4)
      ? Int32Array.from({ length: b }, (_, row) => Math.min(l, pick([l >> 1, 0, l], row)))
      : null,
    ...{ b, l, h, s },
  };
}

const optionsOf = (operands: object): string =>
  ['state', 'dstateOut', 'dstate', 'sequenceIds', 'lengths', 'dtheta']
    .filter((name) => (operands as Record<string, unknown>)[name])
    .join(', ');

/** A case whose name lists its optional operands. */
function named<N extends 'angleScan' | 'angleScanGrad' | 'rotate' | 'rotateGrad'>(
  kernel: N,
  label: string,
  make: (values: Values) => Operands<N>,
): Case {
  const test = define(kernel, label, make);
  return { ...test, name: `${label} ${optionsOf(test.operands)}` };
}

function angleCases(i: number): Case[] {
  const shape = angleShape(i);
  const { b, l, h, s } = shape;
  const label = `${i}: (${b}, ${l}, ${h}, ${s})`;
  return [
    named('angleScan', label, (values) => ({
      ...angles(values, shape, i),
      state: i % 3 === 1 ? values.uniform(b * h * s, 0, 2 * Math.PI) : null,
      theta: out(b * l * h * s),
      stateOut: out(b * h * s),
    })),
    named('angleScanGrad', label, (values) => ({
      ...angles(values, shape, i),
      dtheta: values.normal(b * l * h * s),
      dstateOut: i % 4 === 1 ? null : values.normal(b * h * s),
      dangle: out(b * l * s),
      ddt: out(b * l * h),
      dstate: i % 3 === 1 ? out(b * h * s) : null,
      partial: out(anglePartialSize(b, l, h, s)),
    })),
  ];
}

/** n elements, s pairs, the step between pairs and the gap within one. */
const PAIRINGS = [
  { n: 2, s: 1, step: 2, gap: 1 },
  { n: 8, s: 2, step: 1, gap: 4 }, // Mamba-3 MIMO, rope_fraction 1/2
  { n: 7, s: 3, step: 2, gap: 1 },
  { n: 7, s: 3, step: 1, gap: 3 },
  { n: 128, s: 32, step: 2, gap: 1 }, // Mamba-3 SISO
  { n: 128, s: 32, step: 1, gap: 64 },
  { n: 64, s: 32, step: 1, gap: 32 }, // all elements
  { n: 21, s: 5, step: 1, gap: 5 }, // attention, part of a head
  { n: 66, s: 33, step: 2, gap: 1 },
  { n: 75, s: 17, step: 1, gap: 41 },
  { n: 40, s: 19, step: 2, gap: 1 },
  { n: 6, s: 0, step: 2, gap: 1 },
];

function turnCases(i: number): Case[] {
  const { n, s, step, gap } = pick(PAIRINGS, i);
  const [tokens, r, h] = [pick([5, 1, 0, 40, 7], i), pick([1, 4, 2], i), pick([3, 1, 4, 2], i)];
  const heads = i % 2 ? 1 : h;
  const size = tokens * r * h * n;
  const reach = i % 5 === 4 ? 1e4 : 2 * Math.PI;
  const sizes = { tokens, r, h, n, s, heads, step, gap };
  const label = `${i}: (${tokens}, ${r}, ${h}, ${n}) ${s} pairs step ${step} gap ${gap} heads ${heads}`;
  const theta = (values: Values) => values.uniform(tokens * heads * s, reach > 10 ? -reach : 0, reach);
  return [
    named('rotate', label, (values) => ({
      x: values.normal(size),
      theta: theta(values),
      y: out(size),
      ...sizes,
    })),
    named('rotateGrad', label, (values) => ({
      y: values.normal(size),
      theta: theta(values),
      dy: values.normal(size),
      dx: out(size),
      dtheta: i % 4 === 3 ? null : out(tokens * heads * s),
      ...sizes,
    })),
  ];
}

const NUMBERS = Array.from({ length: 30 }, (_, i) => i);

export const rotation: Case[] = [...NUMBERS.flatMap(angleCases), ...NUMBERS.flatMap(turnCases)];
