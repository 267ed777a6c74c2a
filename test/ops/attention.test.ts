/**
 * Laws of attention on every device: the kernel equals its twin, reading in parts through appendKeys equals
 * reading at once, packed documents equal separate ones, ragged rows equal rows alone (the last three bit for
 * bit), and gradients equal differences.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { useDevice } from '../../src/backend/backend.ts';
import { Rng } from '../../src/base/rng.ts';
import { attention, attentionRef } from '../../src/ops/attention.ts';
import { appendKeys, rotaryAngles } from '../../src/ops/key-cache.ts';
import { gradcheck } from '../../src/tensor/gradcheck.ts';
import { concat, slice } from '../../src/tensor/primitives.ts';
import { scope } from '../../src/tensor/scope.ts';
import { Tensor } from '../../src/tensor/tensor.ts';
import { devices } from '../kernels/devices.ts';
import { f64, GRADCHECK_TOLERANCE, randomInput } from '../support/f64.ts';
import { evaluate, expectTwins, int, type Leaves, type Op } from '../support/twins.ts';

const shapesOf = (b: number, l: number, c: number, hq: number, hk: number, d: number) => ({
  q: [b, l, hq, d],
  k: [b, c, hk, d],
  v: [b, c, hk, d],
});
const part = (x: Tensor, from: number, to: number) => slice(x, 1, from, to);
const row = (x: Tensor, at: number) => slice(x, 0, at, at + 1);

await useDevice(devices[0]!.backend); // what the tests below do not say otherwise

describe.each(devices)('attention on $label', ({ backend: device }) => {
  test.each([
    [1, 1, 0, 1, 1, 3],
    [2, 7, 0, 4, 2, 5],
    [3, 1, 140, 6, 1, 16],
    [2, 33, 9, 2, 2, 17],
    [1, 140, 3, 3, 1, 8],
  ])('equals its twin: b=%i l=%i past=%i hq=%i hk=%i d=%i', async (b, l, before, hq, hk, d) => {
    const past = Array.from({ length: b }, (_, i) => (i === 1 ? before >> 1 : before));
    const ids = Array.from({ length: b * l }, (_, i) => Math.floor((i % l) / 3));
    const extra = {
      sequenceIds: int(ids, [b, l], device),
      lengths: int([l, Math.max(0, l - 4), 0].slice(0, b), [b], device),
    };
    for (const options of [{}, extra]) {
      const op =
        (fn: typeof attention): Op =>
        ({ q, k, v }) => [fn(q!, k!, v!, { past, softmaxScale: 1.5, ...options })];
      await expectTwins(device, shapesOf(b, l, l + before, hq, hk, d), op(attention), op(attentionRef));
    }
  });

  /** Reads [from, to) of q, k and v after the keys of `cache`. */
  const read = (x: Leaves, from: number, to: number, cache: { k: Tensor; v: Tensor } | null) => {
    const past = new Array<number>(x.q!.shape[0]!).fill(cache ? from : 0);
    const k = appendKeys(cache?.k ?? null, part(x.k!, from, to), { past });
    const v = appendKeys(cache?.v ?? null, part(x.v!, from, to), { past });
    return { y: attention(part(x.q!, from, to), k.all, v.all, { past }), cache: { k: k.kept, v: v.kept } };
  };

  test('split anywhere equals the whole', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 2, max: 150 }), fc.nat(), fc.integer(), async (l, at, seed) => {
        const cut = 1 + (at % (l - 1));
        const shapes = shapesOf(2, l, l, 4, 2, 6);
        const split: Op = (x) => {
          const first = read(x, 0, cut, null);
          const second = read(x, cut, l, first.cache);
          return [concat([first.y, second.y], 1), second.cache.k, second.cache.v];
        };
        const whole: Op = (x) => {
          const { y, cache } = read(x, 0, l, null);
          return [y, cache.k, cache.v];
        };
        await expectTwins(device, shapes, split, whole, seed);
        const [a, b] = [
          await evaluate(device, shapes, split, seed),
          await evaluate(device, shapes, whole, seed),
        ];
        expect(a['output 0']).toEqual(b['output 0']);
      }),
      { numRuns: 8, seed: 3 },
    );
  });

  test('token by token equals the whole, bit for bit', async () => {
    const shapes = shapesOf(2, 135, 135, 3, 1, 10);
    const steps: Op = (x) => {
      const ys: Tensor[] = [];
      let cache: { k: Tensor; v: Tensor } | null = null;
      for (let t = 0; t < 135; t++) {
        const next = read(x, t, t + 1, cache);
        ys.push(next.y);
        cache = next.cache;
      }
      return [concat(ys, 1)];
    };
    const a = await evaluate(device, shapes, steps, 5);
    const b = await evaluate(device, shapes, (x) => [read(x, 0, 135, null).y], 5);
    expect(a['output 0']).toEqual(b['output 0']);
  });

  test('packed documents equal separate ones, bit for bit', async () => {
    const bounds = [0, 1, 6, 150, 153];
    const shapes = shapesOf(1, 153, 153, 2, 2, 9);
    const ids = Array.from({ length: 153 }, (_, t) => bounds.findLastIndex((start) => start <= t) % 3);
    const sequenceIds = int(ids, [1, 153], device);
    const packed: Op = ({ q, k, v }) => [attention(q!, k!, v!, { sequenceIds })];
    const separate: Op = (x) => [
      concat(
        bounds.slice(1).map((end, i) => {
          const own = (name: string) => part(x[name]!, bounds[i]!, end);
          return attention(own('q'), own('k'), own('v'));
        }),
        1,
      ),
    ];
    expect(await evaluate(device, shapes, packed, 2)).toEqual(await evaluate(device, shapes, separate, 2));
  });

  test('ragged rows equal rows alone, bit for bit, whatever the padding holds', async () => {
    const [lengths, past] = [
      [5, 130, 0],
      [131, 0, 7],
    ];
    const shapes = { ...shapesOf(3, 130, 140, 4, 1, 7) };
    const poison = (x: Tensor) =>
      concat(
        lengths.map((length, i) => {
          const end = past[i]! + length;
          const rest = Tensor.from(new Float32Array((140 - end) * 7).fill(Number.NaN), [1, 140 - end, 1, 7]);
          return concat([part(row(x, i), 0, end), rest], 1);
        }),
        0,
      );
    const ragged: Op = ({ q, k, v }) => [
      attention(q!, poison(k!), poison(v!), { past, lengths: int(lengths, [3], device) }),
    ];
    const alone: Op = ({ q, k, v }) => [
      concat(
        lengths.map((length, i) => {
          const [own, end] = [row(q!, i), past[i]! + length];
          const y = attention(part(own, 0, length), part(row(k!, i), 0, end), part(row(v!, i), 0, end), {
            past: [past[i]!],
          });
          return concat([y, Tensor.zeros([1, 130 - length, 4, 7])], 1);
        }),
        0,
      ),
    ];
    expect(await evaluate(device, shapes, ragged, 4)).toEqual(await evaluate(device, shapes, alone, 4));
  });
});

describe('appendKeys', () => {
  const [past, lengths, ids] = [
    [2, 0, 1],
    [3, 2, 0],
    [7, 7, 7, 1, 2, 9, 4, 4, 4],
  ]; // prettier-ignore
  const named = (letter: number, b: number, l: number) =>
    Tensor.from(
      Float32Array.from({ length: b * l }, (_, i) => letter + 10 * Math.floor(i / l) + (i % l)),
      [b, l, 1, 1],
    );

  test('ragged rows, zeros behind what is kept', async () => {
    const options = { past, lengths: Tensor.from(Int32Array.from(lengths), [3]) };
    const { all, kept } = appendKeys(named(100, 3, 2), named(500, 3, 3), options);
    const rows = [100, 101, 500, 501, 502, 510, 511, 0, 0, 0, 120, 0, 0, 0, 0];
    expect(Array.from(await all.floats())).toEqual(rows);
    expect(Array.from(await kept.floats())).toEqual(rows);
  });

  test('the last document is kept, the first sees its past', async () => {
    const options = {
      past,
      lengths: Tensor.from(Int32Array.from(lengths), [3]),
      sequenceIds: Tensor.from(Int32Array.from(ids), [3, 3]),
    };
    const { all, kept } = appendKeys(named(100, 3, 2), named(500, 3, 3), options);
    expect(kept.shape).toEqual([3, 5, 1, 1]);
    // Row 1: [1, 2] is two documents of one token; row 0 is one; row 2 reads nothing.
    expect(Array.from(await kept.floats())).toEqual([
      100, 101, 500, 501, 502, 511, 0, 0, 0, 0, 120, 0, 0, 0, 0,
    ]);
    expect(all.shape).toEqual([3, 5, 1, 1]);
  });

  test('equal rows share one copy', () => {
    const first = appendKeys(null, named(500, 2, 3));
    expect(first.all).toBe(first.kept);
    const next = appendKeys(first.kept, named(600, 2, 1), { past: [3, 3] });
    expect(next.all).toBe(next.kept);
    expect(next.all.shape).toEqual([2, 4, 1, 1]);
  });
});

describe('gradients', () => {
  const rng = new Rng(11);
  const [b, l, c, hq, hk, d] = [2, 5, 7, 4, 2, 3];
  const inputs = Object.values(shapesOf(b, l, c, hq, hk, d)).map((shape) => randomInput(shape, rng));
  const options = () => ({
    past: [2, 0],
    sequenceIds: int([1, 1, 2, 2, 2, 3, 3, 3, 4, 4], [b, l], f64),
    lengths: int([5, 3], [b], f64),
    softmaxScale: 0.8,
  });
  test.each([
    ['attention', attention],
    ['attentionRef', attentionRef],
  ] as const)('%s against differences', (_, fn) => {
    const { worst } = gradcheck(f64, (q, k, v) => [fn(q!, k!, v!, options())], inputs);
    expect(worst).toBeLessThan(GRADCHECK_TOLERANCE);
  });

  test('through appendKeys', () => {
    const cached = randomInput([b, 3, hk, d], rng);
    const fresh = randomInput([b, l, hk, d], rng);
    const check = gradcheck(
      f64,
      (cache, x) => {
        const { all, kept } = appendKeys(cache!, x!, { ...options(), past: [3, 1] });
        return [all, kept];
      },
      [cached, fresh],
    );
    expect(check.worst).toBeLessThan(GRADCHECK_TOLERANCE);
  });
});

test('rotary angles restart with a document and are exact far away', async () => {
  const sequenceIds = Tensor.from(Int32Array.of(1, 1, 2, 2), [1, 4]);
  const theta = await rotaryAngles(1, 4, 2, { past: [1e6], sequenceIds, base: 100 }).floats();
  const turn = 2 * Math.PI;
  const expected = [1e6, 1e5, 1e6 + 1, 1e5 + 0.1, 0, 0, 1, 0.1].map((angle) => Math.fround(angle % turn));
  expect(Array.from(theta)).toEqual(expected);
});

describe('attention refuses', () => {
  const call = (options: object, c = 4, hq = 4, hk = 2, d = 3) =>
    scope(() => {
      const shapes = shapesOf(2, 3, c, hq, hk, d);
      const [q, k, v] = Object.values(shapes).map((shape) => Tensor.zeros(shape)) as [Tensor, Tensor, Tensor];
      return attention(q, k, v, options).shape;
    });
  test.each([
    [() => call({ past: [2, 0] }), /5 keys in row 0/],
    [() => call({ past: [0] }), /2 counts/],
    [() => call({ past: [0, 0.5] }), /2 counts/],
    [() => call({}, 4, 4, 3), /divide 4 query heads, got 3/],
    [() => call({}, 4, 1, 1, 513), /at most 512/],
    [() => call({}, 2), /3 keys in row 0/],
  ])('case %#', (run, message) => {
    expect(run).toThrow(message);
  });
});
