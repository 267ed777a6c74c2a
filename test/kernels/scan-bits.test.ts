/**
 * A token of the selective scan alone, as in decoding, goes another way through the kernels than a row of tokens. Both give the same
 * bits: an answer must not depend on what its prompt was batched with.
 */
import { describe, expect, it } from 'vitest';
import { Values } from './cases/values.ts';
import { devices } from './devices.ts';
import { type Operands, out, run } from './harness.ts';

const CASES = [
  { e: 37, n: 16, groups: 1 },
  { e: 64, n: 32, groups: 2 },
  { e: 70, n: 48, groups: 1 },
  { e: 16, n: 16, groups: 2 },
  { e: 19, n: 8, groups: 1 },
];

/** b rows with one real token each, in a batch of l tokens. */
function operands(e: number, n: number, groups: number, b: number, l: number, steepest: number) {
  const values = new Values(`scan-bits ${e} ${n}`);
  const first = (size: number, make: () => Float32Array) => {
    const tokens = make(); // (b, size)
    const padded = new Float32Array(b * l * size).fill(3);
    for (let row = 0; row < b; row++)
      padded.set(tokens.subarray(row * size, (row + 1) * size), row * l * size);
    return padded;
  };
  return {
    u: first(e, () => values.normal(b * e)),
    delta: first(e, () => values.normal(b * e, 2, -1)),
    A: values.logUniform(e * n, 0.5, steepest).map((rate) => -rate),
    B: first(groups * n, () => values.normal(b * groups * n)),
    C: first(groups * n, () => values.normal(b * groups * n)),
    D: values.normal(e),
    z: first(e, () => values.normal(b * e)),
    deltaBias: values.normal(e),
    state: values.normal(b * e * n),
    sequenceIds: null,
    lengths: l > 1 ? new Int32Array(b).fill(1) : null,
    y: out(b * l * e),
    stateOut: out(b * e * n),
    checkpoints: null,
    b,
    l,
    e,
    n,
    bGroups: groups,
    cGroups: groups,
    softplus: 1,
  } satisfies Operands<'selectiveScan'>;
}

describe.each(devices)('$label: one token alone has the bits of a token in a row', ({ backend }) => {
  // Rates so steep that decays vanish take the careful version of the loop.
  it.each(CASES.flatMap((c) => [16, 1e4].map((steepest) => ({ ...c, steepest }))))(
    'e $e, n $n, $groups groups, rates up to $steepest',
    async ({ e, n, groups, steepest }) => {
      const b = 3;
      const scan = (tokens: number) =>
        run(backend, {
          kernel: 'selectiveScan',
          name: 'bits',
          operands: operands(e, n, groups, b, tokens, steepest),
        });
      const l = 2;
      const [alone, beside] = [await scan(1), await scan(l)];
      expect(alone.stateOut).toEqual(beside.stateOut);
      for (let row = 0; row < b; row++) {
        const token = beside.y!.slice(row * l * e, row * l * e + e);
        expect(alone.y!.slice(row * e, (row + 1) * e)).toEqual(token);
      }
    },
  );
});
