/**
 * Products with narrow weights on every device: the bits of the same product with the weight widened to
 * float32 (q8 and q4: near them), forward, gradients to x and bias, rows of one weight as separate results,
 * table rows.
 */
import { describe, expect, test } from 'vitest';
import { type Backend, withDevice } from '../../src/backend/backend.ts';
import type { NarrowDType } from '../../src/base/dtype.ts';
import { DTypeError, UnsupportedError } from '../../src/base/errors.ts';
import { Rng } from '../../src/base/rng.ts';
import { fromFloats, toFloats } from '../../src/base/weight-types.ts';
import '../../src/tensor/fluent.ts';
import { Embedding, Linear } from '../../src/nn/layers.ts';
import { linear, splitLinear, splitLinearRef } from '../../src/ops/linear.ts';
import { cast, concat, gatherRows, permute, slice } from '../../src/tensor/primitives.ts';
import { scope } from '../../src/tensor/scope.ts';
import { backwardFrom } from '../../src/tensor/tape.ts';
import { Tensor } from '../../src/tensor/tensor.ts';
import { devices } from '../kernels/devices.ts';
import { settle } from '../support/settle.ts';

/** rows in parts, inner size, rows of x */
const SIZES: [parts: number[], k: number, m: number[]][] = [
  [[3], 1, [1]],
  [[5, 2], 33, [2, 3]],
  [[7], 64, [1, 1]],
  [[4, 1, 2], 96, [5]],
  [[17, 16], 32, [9]],
  [[2], 32, [0]],
];
const CASES = (['bf16', 'f16', 'q8', 'q4'] as const).flatMap((dtype) =>
  SIZES.filter(([, k]) => !dtype.startsWith('q') || k % 32 === 0).map(
    ([parts, k, m]) => [dtype, parts, k, m] as const,
  ),
);

function uniform(count: number, rng: Rng): Float32Array {
  return Float32Array.from({ length: count }, () => rng.uniform(-1, 1));
}

function narrowTensor(rows: number, k: number, dtype: NarrowDType, rng: Rng, device: Backend): Tensor {
  return Tensor.from(fromFloats(uniform(rows * k, rng), dtype), [rows, k], { dtype, device });
}

/** Outputs, and gradients of x and bias for cotangents of a fixed stream. */
async function evaluate(op: typeof splitLinear, x: Tensor, weight: Tensor, sizes: number[], bias: Tensor) {
  const rng = new Rng(5);
  const outputs = withDevice(x.device, () =>
    scope(() => {
      const ys = op(x, weight, sizes, bias);
      backwardFrom(
        ys,
        ys.map((y) => Tensor.uniform(y.shape, -1, 1, rng, { device: x.device })),
      );
      return ys;
    }),
  );
  const values: Record<string, Float32Array> = {};
  for (const [i, y] of outputs.entries()) values[`y${i}`] = await y.floats();
  for (const [name, leaf] of Object.entries({ dx: x, dbias: bias })) {
    values[name] = await leaf.grad!.floats();
    leaf.grad!.dispose();
    leaf.grad = null;
  }
  return values;
}

describe.each(devices)('on $label', ({ backend: device }) => {
  test.each(CASES)('%s: rows %j of %i, x of %j rows', async (dtype, parts, k, lead) => {
    const rng = new Rng(11);
    const rows = parts.reduce((a, b) => a + b);
    const weight = narrowTensor(rows, k, dtype, rng, device);
    const wide = Tensor.from(await weight.floats(), [rows, k], { device });
    const m = lead.reduce((a, b) => a * b);
    const x = Tensor.from(uniform(m * k, rng), [...lead, k], { device, requiresGrad: true });
    const bias = Tensor.from(uniform(rows, rng), [rows], { device, requiresGrad: true });
    const got = await evaluate(splitLinear, x, weight, [...parts], bias);
    const same = await evaluate(splitLinear, x, wide, [...parts], bias);
    const twin = await evaluate(splitLinearRef, x, weight, [...parts], bias);
    expect(Object.keys(got)).toEqual(Object.keys(same));
    for (const [name, values] of Object.entries(got)) {
      const rounded = dtype.startsWith('q') && name.startsWith('y');
      if (!rounded) expect(values, name).toEqual(same[name]);
      // The twin adds in another order: one rounding per term, each below 1, and for the bias, in both.
      const terms = name === 'dx' ? rows : name === 'dbias' ? m : k;
      // Beside q8 and q4, x below 1 is off by half a step of 1 / 32512, and three roundings of it.
      const activations = rounded ? k * (0.5 / 32512 + 3.01 * 2 ** -24) : 0;
      const bound = 2 * (terms + 1) ** 2 * 2 ** -24 + activations;
      expect(values.length, name).toBe(twin[name]!.length);
      const worst = values.reduce((top, y, i) => Math.max(top, Math.abs(y - twin[name]![i]!)), 0);
      expect(worst, name).toBeLessThanOrEqual(bound);
    }
    for (const tensor of [weight, wide, x, bias]) tensor.dispose();
  });

  test.each(['bf16', 'f16', 'q8', 'q4'] as const)('%s: rows of a table', async (dtype) => {
    const [rows, d] = [7, 64];
    const table = narrowTensor(rows, d, dtype, new Rng(2), device);
    const all = toFloats(await table.data(), dtype);
    const ids = [6, 0, 3, 3, 5, 1];
    const y = gatherRows(table, Tensor.from(Int32Array.from(ids), [2, 3], { device }));
    expect(y.shape).toEqual([2, 3, d]);
    expect([...(await y.floats())]).toEqual(ids.flatMap((id) => [...all.subarray(id * d, (id + 1) * d)]));
    expect(await cast(table, 'f32').floats()).toEqual(all);
  });

  test.each(['bf16', 'f16', 'q8', 'q4'] as const)('%s: written and read in parts', async (dtype) => {
    const rng = new Rng(8);
    const values = uniform(5 * 32, rng);
    const tensor = Tensor.deferred([5, 32], dtype, device);
    await settle();
    const live = device.memory.liveBytes;
    for (const at of [64, 0, 128]) {
      tensor.writeAt(at, fromFloats(values.slice(at, Math.min(160, at + 64)), dtype));
    }
    expect(device.memory.liveBytes).toBeGreaterThan(live);
    const whole = fromFloats(values, dtype);
    expect(await tensor.data()).toEqual(whole);
    expect(await tensor.dataAt(32, 96)).toEqual(fromFloats(values.slice(32, 128), dtype));
    expect(await tensor.floats()).toEqual(toFloats(whole, dtype));
    expect(() => tensor.writeAt(128, fromFloats(values.slice(0, 64), dtype))).toThrow(
      /expected elements in \[0, 160\).*got 64 from 128/,
    );
    tensor.dispose();
    expect(device.memory.liveBytes).toBe(live);
  });

  test('narrow weights cannot be trained, and nothing else computes with them unasked', () => {
    const layer = withDevice(device, () => new Linear({ rng: null, samples: [] }, 32, 4));
    const table = withDevice(device, () => new Embedding({ rng: null, samples: [] }, 4, 32));
    const x = Tensor.zeros([1, 32], { device });
    for (const dtype of ['bf16', 'q4'] as const) {
      const weight = () => narrowTensor(4, 32, dtype, new Rng(1), device);
      layer.replaceParameter('weight', weight());
      expect(() => layer.requireGrad(true)).toThrow(UnsupportedError);
      expect(() => layer.requireGrad(true)).toThrow(
        `got ${dtype} for weight. Load the model with weights: 'f32'`,
      );
      expect(layer.requireGrad(false).forward(x).tracksGrad).toBe(false);
      layer.weight.requiresGrad = true;
      expect(() => layer.forward(x)).toThrow(UnsupportedError);
      table.replaceParameter('weight', weight());
      table.weight.requiresGrad = true;
      expect(() => table.forward(Tensor.from(Int32Array.of(1), [1, 1], { device }))).toThrow(
        UnsupportedError,
      );
      for (const misuse of [
        () => permute(layer.weight, [1, 0]),
        () => concat([layer.weight, layer.weight], 0),
        () => layer.weight.add(1),
        () => linear(layer.weight, layer.weight),
        () => slice(layer.weight, dtype === 'q4' ? 0 : 1, 0, 1),
        () => cast(layer.weight, 'f16'),
      ]) {
        expect(misuse).toThrow(DTypeError);
      }
    }
    expect(() => cast(x, 'q8')).toThrow(DTypeError);
    expect(() => layer.replaceParameter('weight', x)).toThrow(/weight = \[4, 32\], got \[1, 32\]/);
    expect(() => layer.replaceParameter('weights', x)).toThrow(
      'expected the path of a parameter, got weights',
    );
    expect(() => Tensor.empty([2, 33], 'q4', device)).toThrow(DTypeError);
  });
});
