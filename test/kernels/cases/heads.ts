/** Cases of turnHeads: groups, ranks and heads, every pairing of rotation.ts, more and fewer tokens than blocks, no token at all. */
import { turnHeadsPartialSize } from '../../../src/backend/kernels.ts';
import { type Case, out } from '../harness.ts';
import { define, pick, type Values } from './values.ts';

/** n elements, s pairs, the step between pairs and the gap within one. */
const PAIRINGS = [
  { n: 2, s: 1, step: 2, gap: 1 },
  { n: 8, s: 2, step: 1, gap: 4 },
  { n: 7, s: 3, step: 2, gap: 1 },
  { n: 21, s: 5, step: 1, gap: 7 },
  { n: 128, s: 32, step: 2, gap: 1 }, // Mamba-3 SISO
  { n: 128, s: 32, step: 1, gap: 64 }, // Mamba-3 MIMO, rope_fraction 1/2
  { n: 64, s: 32, step: 1, gap: 32 },
  { n: 66, s: 33, step: 2, gap: 1 },
  { n: 40, s: 19, step: 2, gap: 1 },
  { n: 6, s: 0, step: 2, gap: 1 },
];
/** Heads with groups. */
const HEADS = [
  [3, 1],
  [4, 2],
  [1, 1],
  [2, 2],
  [6, 3],
] as const; // prettier-ignore

function casesOf(i: number): Case[] {
  const { n, s, step, gap } = pick(PAIRINGS, i);
  const [h, g] = pick(HEADS, i + Math.floor(i / 5));
  const r = pick([1, 2, 4], i);
  const tokens = pick(n > 60 ? [3, 1, 5] : [5, 1, 0, 34, 67], i);
  const sizes = { tokens, r, h, g, n, s, step, gap, eps: 1e-5 };
  const name = `${i}: ${tokens} tokens, ${r} ranks, ${h} heads, ${g} groups of ${n}, ${s} pairs step ${step} gap ${gap}`;
  const given = (values: Values) => ({
    x: values.normal(tokens * 2 * r * g * n, i % 4 === 3 ? 1e-3 : 1),
    bWeight: values.normal(n),
    cWeight: values.normal(n),
    bBias: values.normal(h * r * n),
    cBias: values.normal(h * r * n),
    theta: values.uniform(tokens * h * s, 0, 2 * Math.PI),
  });
  const size = tokens * r * h * n;
  const [forward, backward] = [
    define('turnHeads', name, (values) => ({ ...given(values), K: out(size), Q: out(size), ...sizes })),
    define('turnHeadsGrad', name, (values) => ({
      ...given(values),
      dK: values.normal(size),
      dQ: values.normal(size),
      dx: out(tokens * 2 * r * g * n),
      dbWeight: out(n),
      dcWeight: out(n),
      dbBias: out(h * r * n),
      dcBias: out(h * r * n),
      dtheta: out(tokens * h * s),
      partial: out(turnHeadsPartialSize(h, r, n)),
      ...sizes,
    })),
  ];
  return [forward, backward];
}

export const heads: Case[] = Array.from({ length: 20 }, (_, i) => i).flatMap(casesOf);
