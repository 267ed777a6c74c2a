/**
 * The rotations of Mamba-3 on every device: each op equals its twin, angles stay below a turn and keep small steps over long texts, any
 * split equals the whole, packed documents equal separate ones and ragged rows equal rows alone bit for bit, gradients equal differences.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Backend, withDevice } from '../../src/backend/backend.ts';
import { ShapeError } from '../../src/base/errors.ts';
import { Rng } from '../../src/base/rng.ts';
import { angleScan, angleScanRef, rotate, rotateRef } from '../../src/ops/rotation.ts';
import { gradcheck } from '../../src/tensor/gradcheck.ts';
import { affine, concat, mul, sigmoid, slice, sum, unary } from '../../src/tensor/primitives.ts';
import { Tensor } from '../../src/tensor/tensor.ts';
import { devices } from '../kernels/devices.ts';
import { f64, GRADCHECK_TOLERANCE, randomInput } from '../support/f64.ts';
import { maxAbsDiff } from '../support/oracle.ts';
import { expectTwins, int, type Op } from '../support/twins.ts';

const TURN = 2 * Math.PI;
const EPS = 2 ** -24;

/** Angles as points of the circle: comparable however many turns were taken off. */
const onCircle = (theta: Tensor): Tensor[] => [unary('cos', theta), unary('sin', theta)];
const part = (x: Tensor, from: number, to: number) => slice(x, 1, from, to);

const angleShapes = (b: number, l: number, h: number, s: number) => ({
  angle: [b, l, s],
  dt: [b, l, h],
  state: [b, h, s],
});
const angleOp =
  (scan: typeof angleScan, context: { sequenceIds?: Tensor; lengths?: Tensor } = {}): Op =>
  ({ angle, dt, state }) => {
    // From -3 to 3: turns in both directions, several tokens long.
    const states = affine(state!, 3, 3);
    const result = scan(affine(angle!, 2, 0), sigmoid(dt!), { state: states, ...context });
    return [...onCircle(result.theta), ...onCircle(result.state)];
  };

describe.each(devices)('angleScan on $label', ({ backend: device }) => {
  test.each([
    [1, 1, 1, 1],
    [2, 7, 3, 5],
    [3, 33, 9, 16],
    [1, 65, 17, 33],
  ])('equals its twin: b=%i l=%i h=%i s=%i', async (b, l, h, s) => {
    const ids = Array.from({ length: b * l }, (_, i) => Math.floor((i % l) / 5));
    const context = {
      sequenceIds: int(ids, [b, l], device),
      lengths: int([l, l >> 1, 0].slice(0, b), [b], device),
    };
    const shapes = angleShapes(b, l, h, s);
    await expectTwins(device, shapes, angleOp(angleScan), angleOp(angleScanRef));
    await expectTwins(device, shapes, angleOp(angleScan, context), angleOp(angleScanRef, context));
  });

  test('split anywhere equals the whole', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 2, max: 40 }), fc.nat(), fc.integer(), async (l, at, seed) => {
        const cut = 1 + (at % (l - 1));
        const pieces =
          (cuts: number[]): Op =>
          ({ angle, dt, state }) => {
            let carried = affine(state!, 3, 3);
            const thetas = cuts.map((from, i) => {
              const to = cuts[i + 1] ?? l;
              const step = sigmoid(part(dt!, from, to));
              const result = angleScan(part(angle!, from, to), step, { state: carried });
              carried = result.state;
              return result.theta;
            });
            return [...onCircle(concat(thetas, 1)), ...onCircle(carried)];
          };
        const shapes = angleShapes(2, l, 3, 5);
        await expectTwins(device, shapes, pieces([0, cut]), pieces([0]), seed);
        await expectTwins(device, shapes, pieces([...Array(l).keys()]), pieces([0]), seed);
      }),
      { numRuns: 6, seed: 4 },
    );
  });

  test('packed documents equal separate ones, ragged rows equal rows alone, bit for bit', async () => {
    const [l, cut, h, s] = [23, 9, 3, 18];
    const { angle, dt, state } = inputs(device, 1, l, h, s);
    const run = async (from: number, to: number, options: object) => {
      const scan = () => angleScan(part(angle, from, to), part(dt, from, to), options);
      const result = withDevice(device, scan);
      return { theta: await result.theta.floats(), state: await result.state.floats() };
    };
    const ids = Array.from({ length: l }, (_, t) => (t < cut ? 7 : 3));
    const packed = await run(0, l, { state, sequenceIds: int(ids, [1, l], device) });
    const [first, second] = [await run(0, cut, { state }), await run(cut, l, {})];
    expect(packed.theta).toEqual(Float32Array.from([...first.theta, ...second.theta]));
    expect(packed.state).toEqual(second.state);
    const ragged = await run(0, l, { state, lengths: int([cut], [1], device) });
    expect(ragged.theta).toEqual(Float32Array.from({ length: l * h * s }, (_, i) => first.theta[i] ?? 0));
    expect(ragged.state).toEqual(first.state);
    const empty = await run(0, l, { state, lengths: int([0], [1], device) });
    expect(empty.state).toEqual(await state.floats());
  });

  test('stays in [0, 2 pi), whatever the steps', async () => {
    const { angle, dt } = inputs(device, 2, 200, 3, 5);
    const large = withDevice(device, () => angleScan(angle, affine(dt, 30, 0)));
    // Steps of almost nothing, backward: 0 is the angle nearest to just below a whole turn.
    const still = withDevice(device, () => angleScan(affine(angle, 1e-12, -1e-9), dt));
    for (const x of [large.theta, large.state, still.theta, still.state]) {
      const values = await x.floats();
      expect(values.every((theta) => theta >= 0 && theta < TURN)).toBe(true);
    }
  });

  test('keeps steps of 1e-3 over 100,000 tokens', async () => {
    const l = 100_000;
    const [angle, step] = [Math.fround(0.3), Math.fround(1e-3)];
    const fill = (value: number) => Tensor.from(new Float32Array(l).fill(value), [1, l, 1], { device });
    const { state } = withDevice(device, () => angleScan(fill(angle), fill(step)));
    const total = l * Math.PI * Math.tanh(angle) * step;
    const off = Math.abs((await state.item()) - (total % TURN));
    // tanh is good to 4 ulp in every step; the sum is rounded once. One rounding per step would allow 100,000 times as much.
    expect(Math.min(off, TURN - off)).toBeLessThan(8 * EPS * total + TURN * EPS);
  });
});

describe.each(devices)('rotate on $label', ({ backend: device }) => {
  test.each([
    [1, 1, 1, 2, 1, 'adjacent', 2],
    [2, 3, 1, 3, 4, 'adjacent', 9],
    [2, 3, 4, 3, 5, 7, 14], // Mamba-3 MIMO: gap n / 2
    [1, 5, 1, 4, 8, 8, 21], // attention: the rotated part in front
    [1, 2, 2, 3, 17, 'adjacent', 37],
    [1, 2, 2, 3, 17, 18, 36],
  ] as const)(
    'equals its twin: b=%i l=%i r=%i h=%i s=%i pairing %s n=%i',
    async (b, l, r, h, s, pairing, n) => {
      for (const heads of [h, 1]) {
        const shapes = { x: [b, l, r, h, n], theta: [b, l, heads, s] };
        const op =
          (fn: typeof rotate): Op =>
          ({ x, theta }) => [fn(x!, affine(theta!, 4, 0), { pairing })];
        await expectTwins(device, shapes, op(rotate), op(rotateRef));
      }
    },
  );

  test('products of vectors turned alike stay what they were', async () => {
    const rng = new Rng(2);
    const make = (shape: number[]) => Tensor.uniform(shape, -1, 1, rng, { device });
    const [q, k, theta] = [make([2, 3, 1, 2, 12]), make([2, 3, 1, 2, 12]), make([2, 3, 2, 4])];
    for (const pairing of ['adjacent', 6] as const) {
      const [before, after] = withDevice(device, () => {
        const turned = [q, k].map((x) => rotate(x, theta, { pairing })) as [Tensor, Tensor];
        return [sum(mul(q, k), 4), sum(mul(...turned), 4)] as const;
      });
      // A turned element is below sqrt 2 and off by at most 12 EPS, so a product of two by 36 EPS; and twelve of them are added.
      expect(maxAbsDiff(await after.floats(), await before.floats())).toBeLessThan(12 * (36 + 2 * 12) * EPS);
    }
  });

  test('elements outside the pairs keep their bits; pairings that do not fit are refused', async () => {
    const x = Tensor.uniform([1, 2, 1, 1, 7], -1, 1, new Rng(1), { device });
    const theta = Tensor.ones([1, 2, 1, 2], { device });
    const kept = { adjacent: [4, 5, 6], 3: [2, 5, 6] };
    for (const [name, places] of Object.entries(kept)) {
      const pairing = name === 'adjacent' ? name : Number(name);
      const y = await withDevice(device, () => rotate(x, theta, { pairing })).floats();
      const before = await x.floats();
      for (const at of places) expect([y[at], y[7 + at]]).toEqual([before[at], before[7 + at]]);
    }
    for (const pairing of [1, 6, 2.5, -3]) expect(() => rotate(x, theta, { pairing })).toThrow(ShapeError);
    const many = Tensor.ones([1, 2, 1, 4], { device });
    expect(() => rotate(x, many, { pairing: 'adjacent' })).toThrow(/4 pairs of pairing adjacent within 7/);
    expect(() => rotate(x, Tensor.ones([1, 2, 3, 2], { device }), { pairing: 3 })).toThrow(ShapeError);
  });

  test('no tokens, no pairs', async () => {
    const none = withDevice(device, () => angleScan(Tensor.zeros([2, 0, 3]), Tensor.zeros([2, 0, 4])));
    expect([none.theta.shape, none.state.shape]).toEqual([
      [2, 0, 4, 3],
      [2, 4, 3],
    ]); // prettier-ignore
    const x = Tensor.ones([1, 2, 1, 1, 4], { device });
    const pairless = withDevice(device, () => angleScan(Tensor.zeros([1, 2, 0]), Tensor.zeros([1, 2, 1])));
    const y = withDevice(device, () => rotate(x, pairless.theta, { pairing: 2 }));
    expect(await y.floats()).toEqual(await x.floats());
  });
});

describe('gradients equal differences', () => {
  const rng = new Rng(6);
  const context = {
    sequenceIds: Tensor.from(Int32Array.of(1, 1, 2, 2, 2, 3, 3, 3, 3, 3), [2, 5], { device: f64 }),
    lengths: Tensor.from(Int32Array.of(5, 3), [2], { device: f64 }),
  };

  test('angleScan', () => {
    const shapes = [
      [2, 5, 3],
      [2, 5, 2],
      [2, 2, 3],
    ]; // prettier-ignore
    for (const options of [{}, context]) {
      const { worst } = gradcheck(
        f64,
        (angle, dt, state) => {
          const result = angleScan(angle!, dt!, { state, ...options });
          return [...onCircle(result.theta), ...onCircle(result.state)];
        },
        shapes.map((shape) => randomInput(shape, rng)),
      );
      expect(worst).toBeLessThan(GRADCHECK_TOLERANCE);
    }
  });

  test.each(['adjacent', 4] as const)('rotate, pairing %s', (pairing) => {
    for (const heads of [1, 3]) {
      const inputs = [randomInput([1, 2, 2, 3, 8], rng), randomInput([1, 2, heads, 2], rng, -4, 4)];
      const { worst } = gradcheck(f64, (x, theta) => [rotate(x!, theta!, { pairing })], inputs);
      expect(worst).toBeLessThan(GRADCHECK_TOLERANCE);
    }
  });
});

/** Angles from -2 to 2, steps from 0.1 to 1, states within a turn. */
function inputs(device: Backend, b: number, l: number, h: number, s: number) {
  const rng = new Rng(9);
  return {
    angle: Tensor.uniform([b, l, s], -2, 2, rng, { device }),
    dt: Tensor.uniform([b, l, h], 0.1, 1, rng, { device }),
    state: Tensor.uniform([b, h, s], 0, 6, rng, { device }),
  };
}
