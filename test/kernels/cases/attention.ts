/**
 * Cases of attention: one query head per kv head, groups, one kv head for all; lengths around the blocks of
 * keys and of queries; keys from before, documents, ragged rows. Keys and values that no token sees are NaN:
 * nobody may read them.
 */
import { attentionPartialSize } from '../../../src/backend/kernels.ts';
import { createReference } from '../../../src/backend/reference/index.ts';
import { type Case, out, run } from '../harness.ts';
import { define, pick, Values } from './values.ts';

/** b, l, hq, hk, d, keys before token 0 (half as many in odd rows), scale of the scores. */
const SHAPES = [
  [1, 1, 1, 1, 1, 0, 1],
  [2, 1, 4, 2, 16, 5, 0.25],
  [3, 1, 6, 1, 33, 129, 0.2],
  [1, 7, 2, 2, 8, 0, 0.35],
  [2, 50, 3, 3, 5, 0, 0.4],
  [3, 23, 4, 1, 9, 20, 3],
  [1, 130, 2, 1, 7, 0, 0.4],
  [2, 7, 4, 2, 4, 250, 0.5],
  [1, 50, 1, 1, 64, 20, 0.125],
  [1, 3, 2, 1, 257, 2, 0.06],
  [2, 0, 2, 2, 6, 4, 1],
  [0, 4, 2, 1, 3, 0, 1],
  [1, 260, 1, 1, 3, 0, 6],
  [2, 5, 25, 5, 12, 1, 0.3],
] as const;

type Shape = (typeof SHAPES)[number];

const WITH = ['', 'documents', 'lengths', 'documents, lengths'] as const;
type With = (typeof WITH)[number];

function common(values: Values, [b, l, hq, hk, d, before, softmaxScale]: Shape, kind: With, i: number) {
  const past = Int32Array.from({ length: b }, (_, row) => (row % 2 ? before >> 1 : before));
  const documents = values.documents(b, l, pick([3, 40, 9], i));
  const lengths = Int32Array.from({ length: b }, (_, row) => Math.min(l, pick([l - (l >> 3), 0, l], row)));
  const ragged = kind.includes('lengths');
  const c = before + l + (i % 3);
  const cache = () => {
    const keys = values.normal(b * c * hk * d);
    for (let row = 0; row < b; row++) {
      const seen = past[row]! + (ragged ? lengths[row]! : l);
      keys.fill(Number.NaN, (row * c + seen) * hk * d, (row + 1) * c * hk * d);
    }
    return keys;
  };
  return {
    q: values.normal(b * l * hq * d),
    k: cache(),
    v: cache(),
    past,
    sequenceIds: kind.includes('documents') ? documents : null,
    lengths: ragged ? lengths : null,
    ...{ b, l, c, hq, hk, d, softmaxScale },
  };
}

const nameOf = ([b, l, hq, hk, d, before, scale]: Shape, kind: With) =>
  [`(${b}, ${l}, ${hq}/${hk}, ${d}) after ${before}, scale ${scale}`, kind].filter(Boolean).join(', ');

function forward(shape: Shape, kind: With, i: number): Case {
  const [b, l, hq, , d] = shape;
  return define('attention', nameOf(shape, kind), () => ({
    ...common(new Values(`attention ${i}`), shape, kind, i),
    y: out(b * l * hq * d),
    lse: out(b * l * hq),
  }));
}

const reference = createReference();

/** The gradient of a forward case, from what its float32 forward pass leaves. */
async function backward(shape: Shape, kind: With, i: number): Promise<Case> {
  const [b, l, hq, hk, d] = shape;
  const given = common(new Values(`attention ${i}`), shape, kind, i);
  const { c } = given;
  const operands = { ...given, y: out(b * l * hq * d), lse: out(b * l * hq) };
  const { y, lse } = await run(reference, { kernel: 'attention', name: 'forward', operands });
  return define('attentionGrad', nameOf(shape, kind), (values) => ({
    ...given,
    y: Float32Array.from(y!),
    lse: Float32Array.from(lse!),
    dy: values.normal(b * l * hq * d),
    dq: out(b * l * hq * d),
    dk: out(b * c * hk * d),
    dv: out(b * c * hk * d),
    partial: out(attentionPartialSize(b, l, c, hq, hk, d)),
  }));
}

const ALL = SHAPES.flatMap((shape, i) =>
  [WITH[i % 4]!, WITH[(i + 1) % 4]!].map((kind) => ({ shape, kind, i })),
);

export const attention: Case[] = [
  ...ALL.map(({ shape, kind, i }) => forward(shape, kind, i)),
  ...(await Promise.all(ALL.map(({ shape, kind, i }) => backward(shape, kind, i)))),
];
