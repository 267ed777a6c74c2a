/**
 * Laws of state space duality on every device: the kernel equals its twin, any chunk, any split and single
 * steps equal the whole, packed documents equal separate ones, ragged rows equal rows alone, the selective
 * scan with one A per head is the same, and so is the matrix form. That rows and cuts keep their bits:
 * test/kernels/ssd-bits.test.ts.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { useDevice } from '../../src/backend/backend.ts';
import { Rng } from '../../src/base/rng.ts';
import { selectiveScan } from '../../src/ops/selective-scan.ts';
import { type SsdOptions, ssd, ssdRef } from '../../src/ops/ssd.ts';
import { type SsdCoreOptions, ssdCore, ssdCoreRef } from '../../src/ops/ssd-core.ts';
import { gradcheck } from '../../src/tensor/gradcheck.ts';
import { broadcastTo, concat, reshape, slice } from '../../src/tensor/primitives.ts';
import { Tensor } from '../../src/tensor/tensor.ts';
import { devices } from '../kernels/devices.ts';
import { f64, GRADCHECK_TOLERANCE, randomInput } from '../support/f64.ts';
import { relativeError } from '../support/oracle.ts';
import { evaluate, expectTwins, int, type Leaves, type Op } from '../support/twins.ts';

await useDevice(devices[0]!.backend); // what the tests below do not say otherwise

interface Sizes {
  b: number;
  l: number;
  r?: number;
  h: number;
  p: number;
  g: number;
  n: number;
}

/** Operands of ssdCore; the decays are called A, which is drawn negative. */
const coreShapes = ({ b, l, r = 1, h, p, g, n }: Sizes, wide = false) => ({
  x: [b, l, r, h, p],
  A: [b, l, h],
  scale: [b, l, h],
  own: [b, l, h],
  B: [b, l, r, g, n],
  C: [b, l, r, g, n],
  D: wide ? [h, p] : [h],
  state: [b, h, p, n],
});

const coreOp =
  (core: typeof ssdCore, options: SsdCoreOptions = {}): Op =>
  ({ x, A, scale, own, B, C, D, state }) => {
    const result = core(x!, A!, scale!, B!, C!, { own, D, state, ...options });
    return [result.y, result.state];
  };

const shapesOf = ({ b, l, h, p, g, n }: Sizes) => ({
  x: [b, l, h, p],
  dt: [b, l, h],
  A: [h],
  B: [b, l, g, n],
  C: [b, l, g, n],
  D: [h],
  z: [b, l, h, p],
  dtBias: [h],
  state: [b, h, p, n],
});

/** Tokens [from, to) of a row of Mamba-2's scan. */
function scanned(x: Leaves, from: number, to: number, state: Tensor | null, options: SsdOptions = {}) {
  const part = (name: string) => slice(x[name]!, 1, from, to);
  return ssd(part('x'), part('dt'), x.A!, part('B'), part('C'), {
    D: x.D,
    z: part('z'),
    dtBias: x.dtBias,
    dtSoftplus: true,
    state,
    ...options,
  });
}

const whole = (options: SsdOptions = {}): Op => {
  return (x) => {
    const { y, state } = scanned(x, 0, x.x!.shape[1]!, x.state ?? null, options);
    return [y, state];
  };
};

/** The tokens in pieces that end at `cuts`, each from the state of the one before. */
const pieces = (cuts: readonly number[], options: SsdOptions = {}): Op => {
  return (x) => {
    const ys: Tensor[] = [];
    let state = x.state ?? null;
    [...cuts, x.x!.shape[1]!].forEach((to, i) => {
      const result = scanned(x, i === 0 ? 0 : cuts[i - 1]!, to, state, options);
      ys.push(result.y);
      state = result.state;
    });
    return [concat(ys, 1), state!];
  };
};

describe.each(devices)('on $label', ({ backend: device }) => {
  test.each([
    [{ b: 1, l: 1, h: 1, p: 1, g: 1, n: 1 }, false],
    [{ b: 2, l: 5, r: 2, h: 4, p: 3, g: 2, n: 5 }, true],
    [{ b: 1, l: 17, r: 4, h: 3, p: 8, g: 3, n: 16 }, false],
    [{ b: 3, l: 33, h: 6, p: 5, g: 1, n: 9 }, true],
    [{ b: 1, l: 65, r: 2, h: 2, p: 9, g: 2, n: 17 }, false],
  ])('ssdCore equals its twin: %j', async (sizes, wide) => {
    const { b, l } = sizes;
    const ids = Array.from({ length: b * l }, (_, i) => Math.floor((i % l) / 4));
    const extra = {
      sequenceIds: int(ids, [b, l], device),
      lengths: int([l, Math.max(0, l - 4), 0].slice(0, b), [b], device),
    };
    for (const options of [{}, { own: null, D: null, state: null }, extra, { ...extra, chunkSize: 3 }]) {
      await expectTwins(
        device,
        coreShapes(sizes, wide),
        coreOp(ssdCore, options),
        coreOp(ssdCoreRef, options),
      );
    }
  });

  const SIZES = { b: 2, l: 23, h: 4, p: 3, g: 2, n: 5 };

  test('ssd equals its twin, with limits of dt', async () => {
    for (const dtLimit of [undefined, [0.3, 1] as const]) {
      const op =
        (scan: typeof ssd): Op =>
        ({ x, dt, A, B, C, D, z, dtBias, state }) => {
          const options = { D, z, dtBias, state, dtSoftplus: true, dtLimit };
          const result = scan(x!, dt!, A!, B!, C!, options);
          return [result.y, result.state];
        };
      await expectTwins(device, shapesOf(SIZES), op(ssd), op(ssdRef));
    }
  });

  test.each([1, 2, 7, 16, 22, 23, 24, 1000])(
    'chunks of %i give what chunks of 64 give',
    async (chunkSize) => {
      await expectTwins(device, shapesOf(SIZES), whole({ chunkSize }), whole());
    },
  );

  test('split anywhere equals the whole: outputs, state, gradients', async () => {
    const property = fc.asyncProperty(
      fc.integer({ min: 2, max: 40 }),
      fc.nat(),
      fc.nat(),
      async (l, i, seed) => {
        const cut = 1 + (i % (l - 1));
        const shapes = shapesOf({ ...SIZES, l });
        await expectTwins(device, shapes, pieces([cut]), whole({ chunkSize: 8 }), seed);
      },
    );
    await fc.assert(property, { numRuns: 10, seed: 3 });
  });

  test('steps equal the whole, with limits of dt', async () => {
    const cuts = Array.from({ length: SIZES.l - 1 }, (_, t) => t + 1);
    for (const options of [{}, { dtLimit: [0.3, 1] as const }]) {
      await expectTwins(device, shapesOf(SIZES), pieces(cuts, options), whole(options));
    }
  });

  test('packed documents equal separate ones', async () => {
    const l = 21;
    const ends = [3, 8, 16, l]; // one document starts with a chunk, one ends with it
    const ids = Array.from({ length: l }, (_, t) => ends.findIndex((end) => t < end) * 7);
    const separate: Op = (x) => {
      const results = ends.map((end, i) =>
        scanned(x, i === 0 ? 0 : ends[i - 1]!, end, i === 0 ? x.state! : null),
      );
      return [
        concat(
          results.map(({ y }) => y),
          1,
        ),
        results.at(-1)!.state,
      ];
    };
    for (const chunkSize of [8, 5]) {
      const packed = whole({ sequenceIds: int(ids, [1, l], device), chunkSize });
      await expectTwins(device, shapesOf({ ...SIZES, b: 1, l }), packed, separate);
    }
  });

  test('a ragged batch equals its rows alone, and what follows a row changes nothing', async () => {
    const [b, l] = [4, 12];
    const lengths = [l, 5, 0, 8];
    const rows: Op = (x) => {
      const results = lengths.map((length, row) => {
        const alone = Object.fromEntries(
          Object.entries(x).map(([name, tensor]) => [
            name,
            tensor.shape[0] === b && name !== 'A' && name !== 'D' && name !== 'dtBias'
              ? slice(tensor, 0, row, row + 1)
              : tensor,
          ]),
        );
        const { y, state } = scanned(alone, 0, length, alone.state!);
        const rest = Tensor.zeros([1, l - length, ...y.shape.slice(2)], { device });
        return { y: concat([y, rest], 1), state };
      });
      return [
        concat(
          results.map(({ y }) => y),
          0,
        ),
        concat(
          results.map(({ state }) => state),
          0,
        ),
      ];
    };
    const ragged = whole({ lengths: int(lengths, [b], device), chunkSize: 8 });
    await expectTwins(device, shapesOf({ ...SIZES, b, l, h: 2, g: 1 }), ragged, rows);
  });

  test('is the selective scan whose A is one number per head', async () => {
    const { b, l, h, p, g, n } = SIZES;
    const channels = (x: Tensor) => reshape(x, [b, l, h * p]);
    const perChannel = (x: Tensor) => {
      const lead = x.shape.slice(0, -1);
      return reshape(broadcastTo(reshape(x, [...lead, h, 1]), [...lead, h, p]), [...lead, h * p]);
    };
    const scan: Op = ({ x, dt, A, B, C, D, z, dtBias, state }) => {
      const rates = broadcastTo(reshape(perChannel(A!), [h * p, 1]), [h * p, n]);
      const result = selectiveScan(channels(x!), perChannel(dt!), rates, B!, C!, {
        D: perChannel(D!),
        z: channels(z!),
        deltaBias: perChannel(dtBias!),
        deltaSoftplus: true,
        state: reshape(state!, [b, h * p, n]),
      });
      return [reshape(result.y, [b, l, h, p]), reshape(result.state, [b, h, p, n])];
    };
    expect(g).toBeGreaterThan(1);
    await expectTwins(device, shapesOf(SIZES), whole(), scan);
  });

  test('recurrence, chunks, steps and the matrix form agree to 1e-5', async () => {
    const [l, h, p, n] = [100, 2, 4, 8];
    const sizes = { b: 1, l, h, p, g: 1, n };
    const rng = new Rng(8);
    const draw = (size: number, low: number, high: number) =>
      Float32Array.from({ length: size }, () => rng.uniform(low, high));
    const host = { x: draw(l * h * p, -1, 1), dt: draw(l * h, 0.001, 0.5), A: draw(h, -3, -0.05) };
    const [B, C] = [draw(l * n, -1, 1), draw(l * n, -1, 1)];
    // Y = M X with M[i, j] = (C_i . B_j) exp(sum of dt A over j + 1 .. i) dt_j for j <= i, in float64.
    const expected = new Float64Array(l * h * p);
    for (let head = 0; head < h; head++) {
      for (let i = 0; i < l; i++) {
        let decay = 0;
        for (let j = i; j >= 0; j--) {
          let weight = Math.exp(decay * host.A[head]!) * host.dt[j * h + head]!;
          decay += host.dt[j * h + head]!;
          let product = 0;
          for (let s = 0; s < n; s++) product += C[i * n + s]! * B[j * n + s]!;
          weight *= product;
          for (let c = 0; c < p; c++) {
            expected[(i * h + head) * p + c]! += weight * host.x[(j * h + head) * p + c]!;
          }
        }
      }
    }
    const tensor = (values: Float32Array, shape: readonly number[]) => Tensor.from(values, shape, { device });
    const shapes = shapesOf(sizes);
    const x = {
      x: tensor(host.x, shapes.x),
      dt: tensor(host.dt, shapes.dt),
      A: tensor(host.A, shapes.A),
      B: tensor(B, shapes.B),
      C: tensor(C, shapes.C),
    };
    const cuts = Array.from({ length: l - 1 }, (_, t) => t + 1);
    const plain = { D: null, z: null, dtBias: null, dtSoftplus: false };
    const forms: Record<string, Tensor> = {
      recurrence: ssdRef(x.x, x.dt, x.A, x.B, x.C).y,
      chunks: ssd(x.x, x.dt, x.A, x.B, x.C, { chunkSize: 16 }).y,
      'one chunk': ssd(x.x, x.dt, x.A, x.B, x.C, { chunkSize: l }).y,
      steps: pieces(cuts, plain)({ ...x, z: x.x } as Leaves)[0]!,
    };
    for (const [name, y] of Object.entries(forms)) {
      expect(relativeError(await y.floats(), expected), name).toBeLessThan(1e-5);
    }
  });

  test('without tokens, and without rows', async () => {
    const values = await evaluate(
      device,
      coreShapes({ b: 0, l: 3, h: 2, p: 3, g: 1, n: 4 }),
      coreOp(ssdCore),
      1,
    );
    expect([values['output 0'], values['output 1'], values.dstate]).toEqual([
      new Float32Array(0),
      new Float32Array(0),
      new Float32Array(0),
    ]);
    expect(values.dD).toEqual(new Float32Array(2));
    const state = Tensor.uniform([2, 2, 3, 4], -1, 1, new Rng(1), { device });
    const none = (shape: number[]) => Tensor.zeros(shape, { device });
    const { y, state: after } = ssdCore(
      none([2, 0, 1, 2, 3]),
      none([2, 0, 2]),
      none([2, 0, 2]),
      none([2, 0, 1, 1, 4]),
      none([2, 0, 1, 1, 4]),
      { state },
    );
    expect(y.shape).toEqual([2, 0, 1, 2, 3]);
    expect(await after.floats()).toEqual(await state.floats());
  });
});

describe('gradients equal differences in float64', () => {
  const rng = new Rng(6);
  const sizes = { b: 2, l: 7, r: 2, h: 2, p: 2, g: 1, n: 3 };
  const inputs = Object.entries(coreShapes(sizes, true)).map(([name, shape]) =>
    randomInput(shape, rng, name === 'A' ? -2 : -1, name === 'A' ? -0.1 : 1),
  );
  const sequenceIds = Int32Array.of(1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4);
  const lengths = Int32Array.of(6, 7);

  test.each([
    ['in chunks', { chunkSize: 3 }],
    ['own = scale', { own: null, chunkSize: 3 }],
    ['packed and ragged', { packed: true, chunkSize: 2 }],
  ])('%s', (_name, { packed, ...options }: SsdCoreOptions & { packed?: boolean }) => {
    const documents = {
      sequenceIds: Tensor.from(sequenceIds, [2, 7], { device: f64 }),
      lengths: Tensor.from(lengths, [2], { device: f64 }),
    };
    const result = gradcheck(
      f64,
      (...[x, A, scale, own, B, C, D, state]) =>
        coreOp(ssdCore, { ...options, ...(packed ? documents : {}) })({
          ...{ x: x!, A: A!, scale: scale!, own: own!, B: B!, C: C!, D: D!, state: state! },
        }),
      inputs,
    );
    expect(result.worst, JSON.stringify(result)).toBeLessThan(GRADCHECK_TOLERANCE);
  });
});

describe('what does not fit is said', () => {
  const make = (shape: number[]) => Tensor.zeros(shape);
  const core = (options: SsdCoreOptions = {}, g = 2) =>
    ssdCore(
      make([1, 3, 1, 4, 2]),
      make([1, 3, 4]),
      make([1, 3, 4]),
      make([1, 3, 1, g, 5]),
      make([1, 3, 1, g, 5]),
      options,
    );

  test.each<[RegExp, () => unknown]>([
    [/groups that divide 4 heads/, () => core({}, 3)],
    [/D \(h\) or \(h, p\) = \[4, 2\], got \[2, 4\]/, () => core({ D: make([2, 4]) })],
    [/state \(b, h, p, n\) = \[1, 4, 2, 5\], got \[1, 4, 5, 2\]/, () => core({ state: make([1, 4, 5, 2]) })],
    [/chunkSize to be a positive integer, got 0/, () => core({ chunkSize: 0 })],
    [
      /states of at most 2048 and at most 64 ranks, got x \[1, 1, 65, 1, 1\]/,
      () => {
        const [ranks, token] = [make([1, 1, 65, 1, 1]), make([1, 1, 1])];
        return ssdCore(ranks, token, token, ranks, ranks);
      },
    ],
    [
      /reshape \(b, l, n\) to \(b, l, 1, n\)/,
      () => ssd(make([1, 3, 4, 2]), make([1, 3, 4]), make([4]), make([1, 3, 5]), make([1, 3, 5])),
    ],
    [
      /dtLimit \[low, high\], got \[2, 1\]/,
      () =>
        ssd(make([1, 1, 4, 2]), make([1, 1, 4]), make([4]), make([1, 1, 1, 5]), make([1, 1, 1, 5]), {
          dtLimit: [2, 1],
        }),
    ],
  ])('%s', (message, call) => {
    expect(call).toThrow(message);
  });
});
