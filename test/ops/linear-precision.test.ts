/**
 * Products with rounded operands on every device: those of the float32 product of operands that were rounded before, forward and in both
 * gradients; the precision of the forward pass is that of the backward pass; what a precision says nothing about stays float32.
 */
import { describe, expect, test } from 'vitest';
import { type Backend, withDevice } from '../../src/backend/backend.ts';
import { ConfigError } from '../../src/base/errors.ts';
import { Rng } from '../../src/base/rng.ts';
import { fromFloats, toFloats } from '../../src/base/weight-types.ts';
import '../../src/tensor/fluent.ts';
import { linear, splitLinear } from '../../src/ops/linear.ts';
import { currentPrecision, type Precision, withPrecision } from '../../src/tensor/precision.ts';
import { scope } from '../../src/tensor/scope.ts';
import { backward, backwardFrom, recompute } from '../../src/tensor/tape.ts';
import { Tensor } from '../../src/tensor/tensor.ts';
import { productDevices } from '../kernels/devices.ts';

/** rows of x, inner size, rows of the weight in parts */
const SIZES: [m: number, k: number, parts: number[]][] = [
  [1, 1, [1]],
  [1, 96, [5, 3]],
  [3, 33, [7]],
  [17, 40, [16, 1]],
  [70, 65, [40, 9]],
];

const uniform = (count: number, rng: Rng): Float32Array =>
  Float32Array.from({ length: count }, () => rng.uniform(-1, 1));
const rounded = (values: Float32Array): Float32Array => toFloats(fromFloats(values, 'bf16'), 'bf16');

interface Operands {
  x: Float32Array;
  weight: Float32Array;
  bias: Float32Array;
  dy: Float32Array[];
}

/** Outputs and gradients, with `forward` around the forward pass and `back` around the backward one. */
async function evaluate(
  device: Backend,
  [m, k, parts]: (typeof SIZES)[number],
  { x, weight, bias, dy }: Operands,
  [forward, back]: [Precision, Precision],
): Promise<Record<string, Float32Array>> {
  const n = parts.reduce((a, b) => a + b);
  const leaf = (data: Float32Array, shape: number[]) =>
    Tensor.from(data, shape, { device, requiresGrad: true });
  const leaves = { dx: leaf(x, [m, k]), dweight: leaf(weight, [n, k]), dbias: leaf(bias, [n]) };
  const ys = withDevice(device, () =>
    scope(() => {
      const outputs = withPrecision(forward, () =>
        splitLinear(leaves.dx, leaves.dweight, parts, leaves.dbias),
      );
      const cotangents = dy.map((values, i) => Tensor.from(values, [m, parts[i]!], { device }));
      withPrecision(back, () => backwardFrom(outputs, cotangents));
      return outputs;
    }),
  );
  const values: Record<string, Float32Array> = {};
  for (const [i, y] of ys.entries()) values[`y${i}`] = await y.floats();
  for (const [name, tensor] of Object.entries(leaves)) values[name] = await tensor.grad!.floats();
  for (const tensor of [...ys, ...Object.values(leaves)]) tensor.dispose();
  return values;
}

describe.each(productDevices)('on $label', ({ backend: device }) => {
  test.each(SIZES)('bf16: %i rows of %i by %j', async (m, k, parts) => {
    const size = [m, k, parts] as (typeof SIZES)[number];
    const rng = new Rng(3);
    const n = parts.reduce((a, b) => a + b);
    const operands: Operands = {
      x: uniform(m * k, rng),
      weight: uniform(n * k, rng),
      bias: uniform(n, rng),
      dy: parts.map((part) => uniform(m * part, rng)),
    };
    const { x, weight, bias, dy } = operands;
    const roundedOperands = { x: rounded(x), weight: rounded(weight), bias, dy: dy.map(rounded) };
    const got = await evaluate(device, size, operands, ['bf16', 'f32']);
    const same = await evaluate(device, size, operands, ['bf16', 'bf16']);
    const twin = await evaluate(device, size, roundedOperands, ['f32', 'bf16']);
    const plain = await evaluate(device, size, operands, ['f32', 'f32']);
    expect(got).toEqual(same);
    for (const [name, values] of Object.entries(got)) {
      if (name === 'dbias') {
        expect(values, name).toEqual(plain[name]); // sums of dy, not products
        continue;
      }
      // Both add up at most `terms` products below 1 and a bias, in some order.
      const terms = 1 + (name === 'dx' ? n : name === 'dweight' ? m : k);
      const bound = 2 * terms ** 2 * 2 ** -24;
      const worst = values.reduce((top, y, i) => Math.max(top, Math.abs(y - twin[name]![i]!)), 0);
      expect(worst, name).toBeLessThanOrEqual(bound);
      expect(values, name).not.toEqual(plain[name]);
    }
  });

  test('int8 says nothing about f32 weights, nor bf16 about q8 and q4', async () => {
    const rng = new Rng(4);
    const x = Tensor.from(uniform(3 * 64, rng), [3, 64], { device });
    const values = uniform(5 * 64, rng);
    for (const [dtype, precision] of [
      ['f32', 'int8'],
      ['q8', 'bf16'],
      ['q4', 'bf16'],
    ] as const) {
      const data = dtype === 'f32' ? values : fromFloats(values, dtype);
      const weight = Tensor.from(data, [5, 64], { dtype, device });
      const [got, plain] = [precision, 'f32' as const].map((p) => withPrecision(p, () => linear(x, weight)));
      expect(await got!.floats(), dtype).toEqual(await plain!.floats());
      for (const tensor of [weight, got!, plain!]) tensor.dispose();
    }
    x.dispose();
  });

  test('int8 is for the forward pass: gradients through q8 and q4 are those of float32', async () => {
    const rng = new Rng(5);
    const values = uniform(5 * 64, rng);
    const input = uniform(3 * 64, rng);
    for (const dtype of ['q8', 'q4'] as const) {
      const weight = Tensor.from(fromFloats(values, dtype), [5, 64], { dtype, device });
      const gradient = async (precision: Precision): Promise<Float32Array> => {
        const x = Tensor.from(input, [3, 64], { device, requiresGrad: true });
        const dy = Tensor.ones([3, 5], { device });
        withDevice(device, () =>
          scope(() =>
            backward(
              withPrecision(precision, () => linear(x, weight)),
              dy,
            ),
          ),
        );
        const dx = await x.grad!.floats();
        for (const tensor of [x, dy]) tensor.dispose();
        return dx;
      };
      expect(await gradient('int8'), dtype).toEqual(await gradient('f32'));
      weight.dispose();
    }
  });
});

test('the innermost precision counts, until it ends', () => {
  expect(currentPrecision()).toBe('f32');
  withPrecision('bf16', () => {
    expect(currentPrecision()).toBe('bf16');
    expect(withPrecision('int8', currentPrecision)).toBe('int8');
    expect(currentPrecision()).toBe('bf16');
  });
  expect(() =>
    withPrecision('bf16', () => {
      throw new ConfigError('no.');
    }),
  ).toThrow('no.');
  expect(currentPrecision()).toBe('f32');
});

test('an unknown precision is refused', () => {
  expect(() => withPrecision('fp8' as Precision, () => 0)).toThrow(ConfigError);
  expect(() => withPrecision('fp8' as Precision, () => 0)).toThrow(
    'withPrecision: expected precision f32, bf16, int8, got fp8. Leave it out for f32.',
  );
});

test('what is recomputed is recomputed in the precision of its first pass', async () => {
  const rng = new Rng(6);
  const { backend: device } = productDevices[0]!;
  const values = uniform(12, rng);
  const gradient = async (again: boolean): Promise<Float32Array> => {
    const weight = Tensor.from(values, [3, 4], { device, requiresGrad: true });
    const x = Tensor.from(values.slice(0, 8), [2, 4], { device, requiresGrad: true });
    scope(() => {
      const twice = (h: Tensor) => [linear(linear(h, weight), weight.transpose())];
      const [y] = withPrecision('bf16', () => (again ? recompute(twice, [x]) : twice(x)));
      backward(y!.sum());
    });
    return weight.grad!.floats();
  };
  expect(await gradient(true)).toEqual(await gradient(false));
});
