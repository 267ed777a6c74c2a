/**
 * Gradient rules that add to what their input has gathered (linear, rows of a table): the same gradients however often and in whatever
 * role a tensor is used, without a second tensor of its size, and never into a gradient that somebody else reads.
 */
import { beforeAll, describe, expect, test } from 'vitest';
import { useDevice } from '../../src/backend/backend.ts';
import { createReference } from '../../src/backend/reference/index.ts';
import { Rng } from '../../src/base/rng.ts';
import '../../src/tensor/fluent.ts';
import { linear, splitLinear, splitLinearRef } from '../../src/ops/linear.ts';
import { gradcheck } from '../../src/tensor/gradcheck.ts';
import { gatherRows, silu } from '../../src/tensor/primitives.ts';
import { scope } from '../../src/tensor/scope.ts';
import { backward } from '../../src/tensor/tape.ts';
import { Tensor } from '../../src/tensor/tensor.ts';
import { f64, GRADCHECK_TOLERANCE, randomInput } from '../support/f64.ts';

const device = createReference();
beforeAll(() => useDevice(device));
const rng = new Rng(21);
const ids = (on = f64) => Tensor.from(Int32Array.of(2, 0, 2, 1), [4], { device: on });

const cases: Record<string, [(...xs: Tensor[]) => Tensor, ...ReturnType<typeof randomInput>[]]> = {
  'a table that is the head too': [
    (table) => linear(silu(gatherRows(table!, ids())), table!),
    randomInput([3, 5], rng),
  ],
  'rows of a table, twice': [
    (table) => gatherRows(table!, ids()).mul(silu(gatherRows(table!, ids()))),
    randomInput([3, 5], rng),
  ],
  'one input of several products and an add': [
    (x, a, b) => linear(x!, a!).add(linear(x!, b!)).add(x!.sum(-1, true)),
    randomInput([4, 3], rng),
    randomInput([2, 3], rng),
    randomInput([2, 3], rng),
  ],
  'x and weight in one': [(x) => linear(x!, x!), randomInput([4, 4], rng)],
  'a weight of two layers': [
    (x, w, b) => linear(silu(linear(x!, w!, b!)), w!, b!),
    randomInput([2, 3], rng),
    randomInput([3, 3], rng),
    randomInput([3], rng),
  ],
  'narrow parts, one of them unread': [
    (x, w, b) => {
      const [first, , last] = splitLinear(x!, w!, [2, 1, 1], b!);
      return first!.sum(-1).add(last!.sum(-1)).mul(x!.sum(-1));
    },
    randomInput([3, 7], rng),
    randomInput([4, 7], rng),
    randomInput([4], rng),
  ],
};

describe('finite differences', () => {
  test.each(Object.entries(cases))('%s', (_, [fn, ...inputs]) => {
    const result = gradcheck(f64, (...xs) => [fn(...xs)], inputs);
    expect(result.worst, JSON.stringify(result)).toBeLessThan(GRADCHECK_TOLERANCE);
  });
});

test('a second gradient of the size of a table is never made', () => {
  const table = Tensor.normal([4096, 64], 1, rng, { requiresGrad: true });
  scope(() => {
    const y = linear(silu(gatherRows(table, ids(device))), table).sum(); // (4, 4096)
    device.resetPeak();
    const before = device.memory.liveBytes;
    backward(y);
    expect(device.memory.peakBytes - before).toBeLessThan(1.5 * table.sizeBytes);
  });
  table.dispose();
});

test('a gradient that is read elsewhere stays as it is', async () => {
  const weight = Tensor.normal([3, 3], 1, rng, { requiresGrad: true });
  const step = () => scope(() => backward(linear(Tensor.ones([2, 3]), weight).sum()));
  step();
  const seen = weight.grad!.alias();
  const values = Array.from(await seen.floats());
  step();
  expect(Array.from(await seen.floats())).toEqual(values);
  expect(Array.from(await weight.grad!.floats())).toEqual(values.map((x) => 2 * x));
  seen.dispose();
  weight.dispose();
});

test('narrow parts of one row are views, and equal their twin', async () => {
  const [x, w] = [Tensor.normal([1, 9], 1, rng), Tensor.normal([5, 9], 1, rng)];
  const parts = splitLinear(x, w, [2, 3]);
  expect(parts[0]!.storage).toBe(parts[1]!.storage);
  for (const [i, twin] of splitLinearRef(x, w, [2, 3]).entries())
    expect(await parts[i]!.floats()).toEqual(await twin.floats());
});
