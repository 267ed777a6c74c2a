/**
 * Laws of Mamba-3's recurrence on every device: the chunked form equals the recurrence for any chunk, any split equals the whole, steps
 * equal one pass, packed documents equal separate ones, ragged rows equal rows alone, gradients equal differences. And what it contains:
 * Mamba-2, the recurrence with complex decays, one rank as a special case of several.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Backend, withDevice } from '../../src/backend/backend.ts';
import { Rng } from '../../src/base/rng.ts';
import { rotate } from '../../src/ops/rotation.ts';
import { ssd } from '../../src/ops/ssd.ts';
import { lastToken, type TrapezoidOptions, trapezoid, trapezoidRef } from '../../src/ops/trapezoid.ts';
import { gradcheck } from '../../src/tensor/gradcheck.ts';
import {
  add,
  broadcastTo,
  concat,
  gatherRows,
  mul,
  permute,
  reshape,
  sigmoid,
  slice,
  transpose,
} from '../../src/tensor/primitives.ts';
import { Tensor } from '../../src/tensor/tensor.ts';
import { devices } from '../kernels/devices.ts';
import { f64, GRADCHECK_TOLERANCE, randomInput } from '../support/f64.ts';
import { evaluate, expectTwins, int, type Leaves, type Op } from '../support/twins.ts';

interface Sizes {
  b: number;
  l: number;
  r: number;
  h: number;
  p: number;
  n: number;
}

const shapesOf = ({ b, l, r, h, p, n }: Sizes) => ({
  V: [b, l, r, h, p],
  dt: [b, l, h],
  A: [b, l, h],
  lambda: [b, l, h],
  K: [b, l, r, h, n],
  Q: [b, l, r, h, n],
  D: [h],
  ssm: [b, h, p, n],
  k: [b, r, h, n],
  v: [b, r, h, p],
});
type Names = keyof ReturnType<typeof shapesOf>;
type Part = { from: number; to: number; state: TrapezoidOptions['state'] };

const stateOf = (x: Leaves) => ({ ssm: x.ssm!, k: x.k!, v: x.v! });

/** Tokens [from, to) of the leaves, with positive steps and weights in (0, 1), and the state after them. */
function read(x: Leaves, { from, to, state }: Part, options: TrapezoidOptions = {}, op = trapezoid) {
  const part = (name: Names) => slice(x[name]!, 1, from, to);
  const [V, K] = [part('V'), part('K')];
  const scan = op(V, sigmoid(part('dt')), part('A'), sigmoid(part('lambda')), K, part('Q'), {
    D: x.D,
    state,
    ...options,
  });
  const next = {
    ssm: scan.ssm,
    k: lastToken(K, state?.k, options),
    v: lastToken(V, state?.v, options),
  };
  return { y: scan.y, next };
}

const results = ({ y, next }: ReturnType<typeof read>): Tensor[] => [y, next.ssm, next.k, next.v];
const whole =
  (l: number, options: TrapezoidOptions = {}, op = trapezoid): Op =>
  (x) =>
    results(read(x, { from: 0, to: l, state: stateOf(x) }, options, op));

/** The tokens in pieces that start at `cuts`. */
const pieces =
  (l: number, cuts: readonly number[]): Op =>
  (x) => {
    let state: TrapezoidOptions['state'] = stateOf(x);
    const parts = cuts.map((from, i) => {
      const part = read(x, { from, to: cuts[i + 1] ?? l, state });
      state = part.next;
      return part;
    });
    const y = concat(
      parts.map((part) => part.y),
      1,
    );
    return [y, ...results(parts.at(-1)!).slice(1)];
  };

const SIZES: Sizes[] = [
  { b: 1, l: 1, r: 1, h: 1, p: 1, n: 1 },
  { b: 2, l: 9, r: 1, h: 3, p: 5, n: 8 },
  { b: 3, l: 7, r: 2, h: 2, p: 4, n: 3 },
  { b: 1, l: 67, r: 4, h: 1, p: 3, n: 6 },
];
const label = ({ b, l, r, h, p, n }: Sizes) => `(${b}, ${l}, ${r}, ${h}, ${p}) n ${n}`;

describe.each(devices)('trapezoid on $label', ({ backend: device }) => {
  test.each(SIZES.map((sizes) => ({ sizes, name: label(sizes) })))(
    'equals the recurrence: $name',
    async ({ sizes }) => {
      const { b, l } = sizes;
      const ids = Array.from({ length: b * l }, (_, i) => Math.floor((i % l) / 3));
      const context = {
        sequenceIds: int(ids, [b, l], device),
        lengths: int([l, l >> 1, 0].slice(0, b), [b], device),
      };
      for (const options of [{}, context]) {
        for (const chunkSize of l > 64 ? [undefined] : [1, 4]) {
          const fast = whole(l, { ...options, chunkSize });
          await expectTwins(device, shapesOf(sizes), fast, whole(l, options, trapezoidRef));
        }
      }
    },
  );

  test('from no state, and without tokens', async () => {
    const shapes = shapesOf({ b: 2, l: 5, r: 2, h: 3, p: 2, n: 4 });
    const fresh =
      (op: typeof trapezoid): Op =>
      (x) =>
        results(read(x, { from: 0, to: 5, state: null }, {}, op)).slice(0, 2);
    await expectTwins(device, shapes, fresh(trapezoid), fresh(trapezoidRef));
    const unchanged: Op = (x) => [slice(x.V!, 1, 0, 0), ...[x.ssm!, x.k!, x.v!].map((t) => mul(t, 1))];
    await expectTwins(device, shapes, pieces(0, [0]), unchanged);
  });

  test('split anywhere equals the whole, and so do steps', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 2, max: 24 }), fc.nat(), fc.integer(), async (l, at, seed) => {
        const shapes = shapesOf({ b: 2, l, r: 1 + (at % 3), h: 2, p: 3, n: 4 });
        await expectTwins(device, shapes, pieces(l, [0, 1 + (at % (l - 1))]), whole(l), seed);
        await expectTwins(device, shapes, pieces(l, [...Array(l).keys()]), whole(l), seed);
      }),
      { numRuns: 8, seed: 2 },
    );
  });

  test('packed documents equal separate ones', async () => {
    const [l, cut] = [11, 4];
    const ids = Array.from({ length: l }, (_, t) => (t < cut ? 5 : 2));
    const packed = whole(l, { sequenceIds: int(ids, [1, l], device) });
    const separate: Op = (x) => {
      const first = read(x, { from: 0, to: cut, state: stateOf(x) });
      const second = read(x, { from: cut, to: l, state: null });
      return [concat([first.y, second.y], 1), ...results(second).slice(1)];
    };
    await expectTwins(device, shapesOf({ b: 1, l, r: 2, h: 2, p: 3, n: 4 }), packed, separate);
  });

  test('ragged rows equal rows alone, whatever stands behind their end', async () => {
    const [b, l] = [3, 6];
    const ends = [6, 2, 0];
    const shapes = shapesOf({ b, l, r: 2, h: 2, p: 3, n: 4 });
    const ragged = whole(l, { lengths: int(ends, [b], device) });
    const alone: Op = (x) => {
      const rows = ends.map((end, i) => {
        const row: Leaves = Object.fromEntries(
          Object.entries(x).map(([name, leaf]) => [name, name === 'D' ? leaf : slice(leaf, 0, i, i + 1)]),
        );
        const [y, ...state] = results(read(row, { from: 0, to: end, state: stateOf(row) }));
        const missing = Tensor.zeros([1, l - end, ...y!.shape.slice(2)], { device });
        return [concat([y!, missing], 1), ...state];
      });
      return [0, 1, 2, 3].map((i) =>
        concat(
          rows.map((row) => row[i]!),
          0,
        ),
      );
    };
    await expectTwins(device, shapes, ragged, alone);
  });

  test('all weight on the present, nothing turned: the scan of Mamba-2', async () => {
    const [b, l, h, p, n] = [2, 9, 3, 4, 5];
    const shapes = {
      x: [b, l, h, p],
      dt: [b, l, h],
      A: [h],
      B: [b, l, h, n],
      C: [b, l, h, n],
      D: [h],
      ssm: [b, h, p, n],
    };
    const mamba2: Op = ({ x, dt, A, B, C, D, ssm }) => {
      const { y, state } = ssd(x!, sigmoid(dt!), A!, B!, C!, { D, state: ssm });
      return [y, state];
    };
    const mamba3: Op = ({ x, dt, A, B, C, D, ssm }) => {
      const oneRank = (t: Tensor) => reshape(t, [b, l, 1, h, t.shape.at(-1)!]);
      const state = { ssm: ssm!, k: Tensor.ones([b, 1, h, n]), v: Tensor.ones([b, 1, h, p]) };
      const decay = broadcastTo(A!, [b, l, h]);
      const scan = trapezoid(
        oneRank(x!),
        sigmoid(dt!),
        decay,
        Tensor.ones([b, l, h]),
        oneRank(B!),
        oneRank(C!),
        { D, state },
      );
      return [reshape(scan.y, x!.shape), scan.ssm];
    };
    await expectTwins(device, shapes, mamba3, mamba2);
  });

  test('several ranks write what each alone would write, and one rank is SISO with its elements in another order', async () => {
    const [b, l, r, h, p, n, s] = [2, 7, 3, 2, 3, 6, 2];
    const shapes = shapesOf({ b, l, r, h, p, n });
    const together: Op = (x) => [read(x, { from: 0, to: l, state: null }).next.ssm];
    const apart: Op = (x) => {
      const rank = (j: number): Leaves => ({
        ...x,
        ...Object.fromEntries((['V', 'K', 'Q'] as const).map((name) => [name, slice(x[name]!, 2, j, j + 1)])),
      });
      return [
        Array.from({ length: r }, (_, j) => read(rank(j), { from: 0, to: l, state: null }).next.ssm).reduce(
          add,
        ),
      ];
    };
    await expectTwins(device, shapes, together, apart);

    // Pair i is (i, i + n / 2) with several ranks and (2 i, 2 i + 1) with one.
    const places = Array.from({ length: n }, (_, at) => (at % 2) * (n / 2) + (at >> 1));
    const siso = { ...shapesOf({ b, l, r: 1, h, p, n }), theta: [b, l, h, s] };
    const turned = (x: Leaves, pairing: 'adjacent' | number, order: (t: Tensor) => Tensor) => {
      const keys = {
        K: rotate(order(x.K!), x.theta!, { pairing }),
        Q: rotate(order(x.Q!), x.theta!, { pairing }),
      };
      return [read({ ...x, ...keys }, { from: 0, to: l, state: null }).y];
    };
    await expectTwins(
      device,
      siso,
      (x) => turned(x, n / 2, (t) => t),
      (x) => turned(x, 'adjacent', (t) => reorder(t, places, device)),
    );
  });
});

/** Element i of the result is element places[i] of the last axis. */
function reorder(x: Tensor, places: readonly number[], device: Backend): Tensor {
  const columns = transpose(reshape(x, [x.size / places.length, places.length]));
  const chosen = gatherRows(columns, Tensor.from(Int32Array.from(places), [places.length], { device }));
  return reshape(permute(chosen, [1, 0]), x.shape);
}

describe('the rotation trick', () => {
  test('equals the recurrence with complex decays and inputs', () => {
    // H[t] = e^(A dt + i turn) (H[t-1] + (1 - lambda) dt v' conj(k')) + lambda dt v conj(k), y = Re(H q), per channel and pair.
    const [l, p, s] = [60, 3, 4];
    const rng = new Rng(8);
    const draw = (count: number, low: number, high: number) =>
      Float64Array.from({ length: count }, () => rng.uniform(low, high));
    const [v, k, q] = [draw(l * p, -1, 1), draw(l * 2 * s, -1, 1), draw(l * 2 * s, -1, 1)];
    const [dt, A, lambda, turn] = [draw(l, 0.1, 1), draw(l, -0.5, -0.05), draw(l, 0, 1), draw(l * s, -3, 3)];

    const expected = new Float64Array(l * p);
    for (let c = 0; c < p; c++) {
      for (let i = 0; i < s; i++) {
        let [re, im] = [0, 0];
        for (let t = 0; t < l; t++) {
          const at = (token: number) => (token * s + i) * 2;
          const earlier = t > 0 ? (1 - lambda[t]!) * dt[t]! * v[(t - 1) * p + c]! : 0;
          const [hr, hi] = [re + earlier * (k[at(t - 1)] ?? 0), im - earlier * (k[at(t - 1) + 1] ?? 0)];
          const size = Math.exp(A[t]! * dt[t]!);
          const [cos, sin] = [size * Math.cos(turn[t * s + i]!), size * Math.sin(turn[t * s + i]!)];
          const now = lambda[t]! * dt[t]! * v[t * p + c]!;
          re = hr * cos - hi * sin + now * k[at(t)]!;
          im = hr * sin + hi * cos - now * k[at(t) + 1]!;
          expected[t * p + c]! += re * q[at(t)]! - im * q[at(t) + 1]!;
        }
      }
    }

    const theta = turn.slice();
    for (let at = s; at < theta.length; at++) theta[at]! += theta[at - s]!;
    const y = withDevice(f64, () => {
      const angles = Tensor.from(theta, [1, l, 1, s]);
      const per = (x: Float64Array) => Tensor.from(x, [1, l, 1]);
      const turned = (x: Float64Array) =>
        rotate(Tensor.from(x, [1, l, 1, 1, 2 * s]), angles, { pairing: 'adjacent' });
      return trapezoid(Tensor.from(v, [1, l, 1, 1, p]), per(dt), per(A), per(lambda), turned(k), turned(q)).y;
    });
    const got = f64.readF64(y, y.size);
    // Sums of some 4 l products below 1, angles up to 3 l with 2^-53 of themselves wrong: far below 1e-11.
    got.forEach((value, at) => {
      expect(Math.abs(value - expected[at]!)).toBeLessThan(1e-11);
    });
  });
});

describe('gradients equal differences', () => {
  const rng = new Rng(12);
  const sizes = { b: 2, l: 4, r: 2, h: 1, p: 2, n: 3 };
  const shapes = shapesOf(sizes);
  const context = {
    sequenceIds: Tensor.from(Int32Array.of(1, 1, 2, 2, 3, 3, 3, 3), [2, 4], { device: f64 }),
    lengths: Tensor.from(Int32Array.of(4, 2), [2], { device: f64 }),
  };

  test.each([
    ['trapezoid', trapezoid],
    ['trapezoidRef', trapezoidRef],
  ] as const)('%s', (_, op) => {
    for (const options of [{ chunkSize: 3 }, context]) {
      const { worst } = gradcheck(
        f64,
        (...inputs) => {
          const x = Object.fromEntries(Object.keys(shapes).map((name, i) => [name, inputs[i]!]));
          return whole(sizes.l, options, op)(x);
        },
        Object.entries(shapes).map(([name, shape]) =>
          randomInput(shape, rng, ...(name === 'A' ? ([-2, -0.1] as const) : [])),
        ),
      );
      expect(worst).toBeLessThan(GRADCHECK_TOLERANCE);
    }
  });
});

describe.each(devices)('lastToken on $label', ({ backend: device }) => {
  const x = Tensor.from(
    Float32Array.from({ length: 18 }, (_, i) => i),
    [3, 3, 2],
    { device },
  );
  const previous = Tensor.from(Float32Array.of(-1, -2, -3, -4, -5, -6), [3, 2], { device });
  const last = (before: Tensor | null, lengths?: number[]) =>
    withDevice(device, () =>
      lastToken(x, before, { lengths: lengths ? int(lengths, [3], device) : null }),
    ).floats();

  test('is that of each row, or what came before', async () => {
    expect([...(await last(null))]).toEqual([4, 5, 10, 11, 16, 17]);
    expect([...(await last(previous, [1, 3, 2]))]).toEqual([0, 1, 10, 11, 14, 15]);
    expect([...(await last(previous, [0, 2, 0]))]).toEqual([-1, -2, 8, 9, -5, -6]);
    expect([...(await last(null, [0, 2, 0]))]).toEqual([0, 0, 8, 9, 0, 0]);
    expect([...(await last(previous, [0, 0, 0]))]).toEqual([-1, -2, -3, -4, -5, -6]);
    const none = slice(x, 1, 0, 0);
    expect([...(await withDevice(device, () => lastToken(none, previous)).floats())]).toEqual([
      -1, -2, -3, -4, -5, -6,
    ]);
  });

  test('sends gradients where the values came from', async () => {
    const shapes = { x: [3, 3, 2], previous: [3, 2] };
    const op: Op = (leaves) => [
      lastToken(leaves.x!, leaves.previous, { lengths: int([2, 0, 3], [3], device) }),
    ];
    const { dx, dprevious } = await evaluate(device, shapes, op, 1);
    const places = (values: Float32Array) => [...values.keys()].filter((i) => values[i] !== 0);
    expect(places(dx!)).toEqual([2, 3, 16, 17]);
    expect(places(dprevious!)).toEqual([2, 3]);
  });
});
