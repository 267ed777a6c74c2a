/** Keys and queries of Mamba-3: the fused op equals its twin on every device, its gradients equal differences, and it says what it expects. */
import { describe, expect, test } from 'vitest';
import { withDevice } from '../../src/backend/backend.ts';
import { ShapeError } from '../../src/base/errors.ts';
import { Rng } from '../../src/base/rng.ts';
import { turnHeads, turnHeadsRef } from '../../src/ops/turn-heads.ts';
import { gradcheck } from '../../src/tensor/gradcheck.ts';
import { Tensor } from '../../src/tensor/tensor.ts';
import { devices } from '../kernels/devices.ts';
import { f64, GRADCHECK_TOLERANCE, randomInput } from '../support/f64.ts';
import { expectTwins, type Op } from '../support/twins.ts';

interface Sizes {
  b: number;
  l: number;
  r: number;
  h: number;
  g: number;
  n: number;
  s: number;
}

const shapesOf = ({ b, l, r, h, g, n, s }: Sizes) => ({
  BC: [b, l, 2, r, g, n],
  bWeight: [n],
  bBias: [h, r, n],
  cWeight: [n],
  cBias: [h, r, n],
  theta: [b, l, h, s],
});

const opOf =
  (op: typeof turnHeads, pairing: 'adjacent' | number): Op =>
  (x) => {
    const forB = { weight: x.bWeight!, bias: x.bBias! };
    const forC = { weight: x.cWeight!, bias: x.cBias! };
    const { K, Q } = op(x.BC!, forB, forC, x.theta!, { pairing });
    return [K, Q];
  };

const SISO = { b: 2, l: 9, r: 1, h: 4, g: 2, n: 16, s: 4 };
const MIMO = { b: 1, l: 5, r: 4, h: 3, g: 1, n: 22, s: 5 };

describe.each(devices)('turnHeads on $label', ({ backend: device }) => {
  test.each([
    [SISO, 'adjacent'],
    [MIMO, 11],
    [{ ...SISO, l: 40, n: 10 }, 5],
  ] as const)('equals its twin: %o %s', async (sizes, pairing) => {
    await expectTwins(device, shapesOf(sizes), opOf(turnHeads, pairing), opOf(turnHeadsRef, pairing));
  });
});

test('gradients of both forms equal differences', () => {
  const shapes = shapesOf({ b: 1, l: 2, r: 2, h: 2, g: 1, n: 6, s: 2 });
  const rng = new Rng(3);
  const inputs = Object.values(shapes).map((shape) => randomInput(shape, rng));
  for (const op of [turnHeads, turnHeadsRef]) {
    const { worst } = gradcheck(
      f64,
      (...tensors) => {
        const leaves = Object.keys(shapes).map((name, i) => [name, tensors[i]!] as const);
        return opOf(op, 'adjacent')(Object.fromEntries(leaves));
      },
      inputs,
    );
    expect(worst).toBeLessThan(GRADCHECK_TOLERANCE);
  }
});

test('names what does not fit', () => {
  const make = (shapes: Record<string, readonly number[]>) =>
    Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, Tensor.ones(shape)]));
  withDevice(f64, () => {
    expect(() => opOf(turnHeads, 3)(make(shapesOf(SISO)))).toThrow(ShapeError);
    const other = make({ ...shapesOf(SISO), cBias: [4, 2, 16] });
    expect(() => opOf(turnHeads, 'adjacent')(other)).toThrow(/turnHeads: expected bias \(h, r, n\)/);
  });
});
