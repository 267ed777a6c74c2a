/**
 * Cases of the gated norm: groups of one channel, of odd sizes, of the whole row; the gate in front, behind,
 * absent, alone.
 */
import { NORM_BLOCKS } from '../../../src/backend/kernels.ts';
import { type Case, type Operands, out } from '../harness.ts';
import { define, pick, type Values } from './values.ts';

/** Rows, channels, channels per group. */
const SIZES = [
  [0, 4, 2],
  [1, 1, 1],
  [2, 6, 3],
  [3, 16, 16],
  [5, 34, 17],
  [33, 64, 16],
  [40, 6, 2],
  [4, 260, 130],
  [70, 5, 1],
] as const; // prettier-ignore
const KINDS = ['gate in front', 'gate behind', 'no gate', 'no norm', 'nothing'] as const;
type Kind = (typeof KINDS)[number];

function common(values: Values, [rows, d, groupSize]: (typeof SIZES)[number], kind: Kind, scale: number) {
  return {
    x: values.normal(rows * d, scale),
    z: kind === 'no gate' || kind === 'nothing' ? null : values.normal(rows * d, 3),
    weight: kind === 'no norm' || kind === 'nothing' ? null : values.normal(d, 0.5, 1),
    ...{ rows, d, groupSize, normBeforeGate: kind === 'gate behind' ? 1 : 0, eps: 1e-5 },
  };
}

export const gatedNorm: Case[] = KINDS.flatMap((kind) =>
  SIZES.flatMap((size, i) => {
    const [rows, d, groupSize] = size;
    const scale = pick([1, 30, 1e-3], i);
    const name = `${kind}, (${rows}, ${d}) by ${groupSize} x ${scale}`;
    return [
      define('gatedNorm', name, (values) => ({ ...common(values, size, kind, scale), y: out(rows * d) })),
      define('gatedNormGrad', name, (values): Operands<'gatedNormGrad'> => {
        const given = common(values, size, kind, scale);
        return {
          ...given,
          dy: values.normal(rows * d),
          dx: out(rows * d),
          dz: given.z ? out(rows * d) : null,
          dweight: given.weight && i % 4 !== 3 ? out(d) : null,
          partial: out(NORM_BLOCKS * d),
        };
      }),
    ];
  }),
);
