/**
 * Adapters against their definition: a layer with one is a layer with the dense weight W + scale * B A, in
 * outputs and gradients, on every device; a new one changes no bit; merging changes nothing beyond rounding;
 * frozen weights cost no gradient.
 */
import { describe, expect, test, vi } from 'vitest';
import { type Backend, withDevice } from '../../src/backend/backend.ts';
import { createReference } from '../../src/backend/reference/index.ts';
import { ConfigError, UnsupportedError } from '../../src/base/errors.ts';
import { Rng } from '../../src/base/rng.ts';
import { fromFloats } from '../../src/base/weight-types.ts';
import type { Init } from '../../src/nn/init.ts';
import { GatedMlp, Linear } from '../../src/nn/layers.ts';
import { addLora, loraParameters, mergeLora } from '../../src/nn/lora.ts';
import { Module } from '../../src/nn/module.ts';
import { splitLinearRef } from '../../src/ops/linear.ts';
import { gradcheck } from '../../src/tensor/gradcheck.ts';
import { add, matmul, mul } from '../../src/tensor/primitives.ts';
import { scope } from '../../src/tensor/scope.ts';
import { backwardFrom, recompute } from '../../src/tensor/tape.ts';
import { Tensor } from '../../src/tensor/tensor.ts';
import { devices, reportMissing } from '../kernels/devices.ts';
import { f64, GRADCHECK_TOLERANCE, randomInput } from '../support/f64.ts';

const reference = createReference();
const initOf = (seed: number, device: Backend = reference): Init => ({
  rng: new Rng(seed),
  samples: [],
  device,
});

/** Sizes of the parts, inputs k, rank r, rows of x. */
const CASES: [parts: number[], k: number, r: number, rows: number][] = [
  [[3], 1, 1, 1],
  [[5, 2], 33, 3, 6],
  [[7], 17, 9, 5],
  [[17, 1, 16], 31, 4, 9],
  [[2, 1], 5, 8, 0],
];

interface Values {
  [name: string]: Float32Array;
}

/** x, W, b, A, B and the outputs' cotangents, of size 1 at most. */
function valuesOf([parts, k, r, rows]: (typeof CASES)[number]): Values {
  const rng = new Rng(3);
  const n = parts.reduce((a, b) => a + b);
  const make = (count: number) => Float32Array.from({ length: count }, () => rng.uniform(-1, 1));
  const values: Values = { x: make(rows * k), W: make(n * k), b: make(n), A: make(r * k), B: make(n * r) };
  for (const [i, size] of parts.entries()) values[`d${i}`] = make(rows * size);
  return values;
}

const ALPHA = 5;

/** A linear layer with an adapter that hold these values. `W` may stand in a narrow type. */
function layerOf(
  values: Values,
  k: number,
  r: number,
  device: Backend,
  dtype?: 'bf16' | 'f16' | 'q8' | 'q4',
): Linear {
  const n = values.b!.length;
  const layer = new Linear({ rng: null, samples: [], device }, k, n, { bias: true });
  if (dtype)
    layer.replaceParameter('weight', Tensor.from(fromFloats(values.W!, dtype), [n, k], { device, dtype }));
  else layer.weight.write(values.W!);
  layer.bias!.write(values.b!);
  const holder = new Holder(layer);
  addLora(holder, { rank: r, alpha: ALPHA, targets: ['fc'] }, { rng: null, samples: [] });
  layer.lora!.A.write(values.A!);
  layer.lora!.B.write(values.B!);
  return layer;
}

class Holder extends Module {
  readonly fc: Linear;
  constructor(fc: Linear) {
    super();
    this.fc = fc;
  }
}

type Layer = (x: Tensor, A: Tensor, B: Tensor) => Tensor[];

/** Outputs, and the gradients of x, A and B for the cotangents. */
function run(device: Backend, values: Values, k: number, layer: Layer, A: Tensor, B: Tensor): Tensor[] {
  const x = Tensor.from(values.x!, [values.x!.length / k, k], { device, requiresGrad: true });
  return withDevice(device, () =>
    scope(() => {
      const ys = layer(x, A, B);
      backwardFrom(
        ys,
        ys.map((y, i) => Tensor.from(values[`d${i}`]!, y.shape, { device })),
      );
      return [...ys, x.grad!.alias(), A.grad!.alias(), B.grad!.alias()];
    }),
  );
}

/** The same in float64, from the dense weight W + s B A. */
function dense(values: Values, [parts, k, r]: (typeof CASES)[number]): Float64Array[] {
  const n = values.b!.length;
  const leaf = (name: string, shape: number[]) =>
    Tensor.from(values[name]!, shape, { device: f64, requiresGrad: true });
  const [W, b, A, B] = [leaf('W', [n, k]), leaf('b', [n]), leaf('A', [r, k]), leaf('B', [n, r])];
  const layer: Layer = (x) => splitLinearRef(x, add(W, mul(matmul(B, A), ALPHA / r)), parts, b);
  return run(f64, values, k, layer, A, B).map((y) => f64.readF64(y, y.size));
}

/** The results are sums of products: on absolute values they are what rounding errors are relative to. */
const absolute = (values: Values): Values =>
  Object.fromEntries(Object.entries(values).map(([name, data]) => [name, data.map(Math.abs)]));

/**
 * A term meets at most a rounding per addition of each sum it is part of, and some at the scale, the bias and
 * the last sum.
 */
function boundOf([parts, k, r, rows]: (typeof CASES)[number]): number {
  const roundings = k + r + parts.reduce((a, b) => a + b) + rows + 8;
  return (roundings * 2 ** -24) / (1 - roundings * 2 ** -24);
}

/** Outputs in parts as one, (rows, sum of sizes). */
function joined(results: Float64Array[], parts: number[]): Float64Array {
  const rows = results[0]!.length / parts[0]!;
  const row = (y: number) => parts.flatMap((size, i) => [...results[i]!.subarray(y * size, (y + 1) * size)]);
  return Float64Array.from(Array.from({ length: rows }, (_, y) => row(y)).flat());
}

async function expectClose(got: Tensor[], truth: Float64Array[], size: Float64Array[], bound: number) {
  expect(got.length).toBe(truth.length);
  for (const [i, tensor] of got.entries()) {
    const values = await tensor.floats();
    expect(values.length).toBe(truth[i]!.length);
    // 2^-126 stands for results below the normal range.
    values.forEach((y, j) => {
      const error = Math.abs(y - truth[i]![j]!);
      if (!(error <= bound * size[i]![j]! + 2 ** -126))
        throw new Error(`result ${i}[${j}] is off by ${error}`);
    });
  }
}

describe.each(devices)('on $label', ({ backend: device }) => {
  test.each(CASES)('parts %j of %i inputs, rank %i, %i rows: the dense layer', async (...shape) => {
    const [parts, k, r] = shape;
    const values = valuesOf(shape);
    const layer = layerOf(values, k, r, device);
    const [truth, size, bound] = [dense(values, shape), dense(absolute(values), shape), boundOf(shape)];
    const { A, B } = layer.lora!;
    await expectClose(
      run(device, values, k, (x) => layer.split(x, parts), A, B),
      truth,
      size,
      bound,
    );
    expect([layer.weight.grad, layer.bias!.grad]).toEqual([null, null]);

    const x = Tensor.from(values.x!, [values.x!.length / k, k], { device });
    await expectClose([layer.forward(x)], [joined(truth, parts)], [joined(size, parts)], bound);
    mergeLora(new Holder(layer));
    expect(layer.lora).toBeNull();
    await expectClose(layer.split(x, parts), truth.slice(0, parts.length), size, bound);
    const merged = await layer.weight.floats();
    mergeLora(new Holder(layer));
    expect(await layer.weight.floats()).toEqual(merged);
  });

  test.each(['bf16', 'f16', 'q8', 'q4'] as const)('beside %s weights', async (dtype) => {
    const shape: (typeof CASES)[number] = [[5, 2], 32, 3, 4];
    const values = valuesOf(shape);
    const layer = layerOf(values, 32, 3, device, dtype);
    const wide = { ...values, W: await layer.weight.floats() };
    const { A, B } = layer.lora!;
    const got = run(device, values, 32, (x) => layer.split(x, [5, 2]), A, B);
    const bound = boundOf(shape);
    // Beside blocks an activation below 1 is off by half a step of 1 / 32512 and three roundings, in the outputs alone.
    const activation = dtype.startsWith('q') ? 0.5 / 32512 + 3.01 * 2 ** -24 : 0;
    const weights = wide.W.reduce((sum, w) => sum + Math.abs(w), 0);
    const size = dense(absolute(wide), shape).map((values, i) =>
      values.map((x) => x + (i < 2 ? (activation * weights) / bound : 0)),
    );
    await expectClose(got, dense(wide, shape), size, bound);
    expect(() => mergeLora(new Holder(layer))).toThrow(UnsupportedError);
    expect(() => mergeLora(new Holder(layer))).toThrow(`expected f32 weights, got ${dtype} for fc`);
    expect(layer.lora).not.toBeNull();
  });

  test('a new adapter changes no bit', async () => {
    const mlp = new GatedMlp(initOf(1, device), 12, 100, { scale: 1 });
    const x = Tensor.uniform([2, 5, 12], -3, 3, new Rng(2), { device });
    const before = await mlp.forward(x).floats();
    addLora(mlp, { rank: 4, alpha: 8, targets: ['fc1', 'fc2'] }, initOf(4));
    expect(mlp.fc1.lora!.A.device).toBe(device);
    expect(await mlp.forward(x).floats()).toEqual(before);
    mergeLora(mlp);
    expect(await mlp.forward(x).floats()).toEqual(before);
    mlp.dispose();
  });
});
reportMissing();

test('gradients of x, A and B by finite differences', () => {
  const rng = new Rng(1);
  const layer = new Linear(initOf(6, f64), 5, 7, { bias: true });
  addLora(new Holder(layer), { rank: 2, alpha: 3, targets: ['fc'] }, initOf(7));
  const inputs = [randomInput([2, 3, 5], rng), randomInput([2, 5], rng), randomInput([7, 2], rng)];
  const check = (outputs: (x: Tensor) => Tensor[]) => {
    const of = (x: Tensor, A: Tensor, B: Tensor): Tensor[] => {
      Object.assign(layer.lora!, { A, B });
      return outputs(x);
    };
    return gradcheck(f64, (...[x, A, B]) => of(x!, A!, B!), inputs);
  };
  expect(check((x) => [layer.forward(x)]).worst).toBeLessThan(GRADCHECK_TOLERANCE);
  expect(check((x) => layer.split(x, [3, 4])).worst).toBeLessThan(GRADCHECK_TOLERANCE);
});

test.each([true, false])('frozen %s: the products of the backward pass', (isFrozen) => {
  const device = createReference();
  const values = valuesOf([[7], 5, 2, 3]);
  const layer = layerOf(values, 5, 2, device);
  layer.weight.requiresGrad = !isFrozen;
  const products = vi.spyOn(device.kernels, 'matmul');
  run(device, values, 5, (x) => layer.split(x, [7]), layer.lora!.A, layer.lora!.B);
  const sizes = products.mock.calls.map(([{ m, n }]) => `${m}x${n}`);
  products.mockRestore();
  // Forward: W x, A x, B (A x). Backward: to x twice, to A x, to A and B;
  // to W (7, 5) only where it is trained.
  expect(sizes.filter((size) => size === '7x5').length).toBe(isFrozen ? 0 : 1);
  expect(sizes.length).toBe(isFrozen ? 8 : 9);
});

test('recomputed behind inputs without gradient, the adapters get the same gradients', async () => {
  const values = valuesOf([[7], 5, 2, 3]);
  const gradients = async (isRecomputed: boolean) => {
    const layer = layerOf(values, 5, 2, reference);
    const x = Tensor.from(values.x!, [3, 5], { device: reference });
    const cotangent = Tensor.from(values.d0!, [3, 7], { device: reference });
    withDevice(reference, () => {
      const ys = isRecomputed ? recompute((u) => [layer.forward(u)], [x]) : [layer.forward(x)];
      backwardFrom(ys, [cotangent]);
    });
    const { A, B } = layer.lora!;
    return [await A.grad!.floats(), await B.grad!.floats()];
  };
  expect(await gradients(true)).toEqual(await gradients(false));
});

describe('addLora', () => {
  const mlp = () => new GatedMlp(initOf(1), 12, 100, { scale: 1 });

  test('names, initial values and what is trained', async () => {
    const model = mlp();
    addLora(model, { rank: 4, alpha: 8, targets: ['fc2'] }, initOf(3));
    expect([...model.namedParameters()].map(([path]) => path)).toEqual([
      'fc1.weight',
      'fc2.weight',
      'fc2.lora.A',
      'fc2.lora.B',
    ]);
    const adapters = new Map(loraParameters(model));
    expect([...adapters].map(([path, { shape }]) => [path, shape])).toEqual([
      ['fc2.lora.A', [4, 128]],
      ['fc2.lora.B', [12, 4]],
    ]);
    const A = await adapters.get('fc2.lora.A')!.floats();
    const bound = 1 / Math.sqrt(128);
    expect(Math.max(...A.map(Math.abs))).toBeLessThanOrEqual(Math.fround(bound));
    // The variance of U(-a, a) is a^2 / 3; the mean square of 512 draws lies within five of its standard
    // errors, a^2 sqrt(4/45/512).
    const meanSquare = A.reduce((sum, a) => sum + a * a, 0) / A.length;
    expect(Math.abs(meanSquare / bound ** 2 - 1 / 3)).toBeLessThan(5 * Math.sqrt(4 / 45 / 512));
    expect(await adapters.get('fc2.lora.B')!.floats()).toEqual(new Float32Array(48));
    expect(model.fc2.lora!.scale).toBe(2);
    const trained = [...model.namedParameters()].filter(([, tensor]) => tensor.requiresGrad);
    expect(trained.map(([path]) => path)).toEqual(['fc1.weight', 'fc2.lora.A', 'fc2.lora.B']);
    model.dispose();
    expect(adapters.get('fc2.lora.A')!.disposed).toBe(true);
  });

  test('the same seed gives the same adapter', async () => {
    const [first, second] = [mlp(), mlp()];
    for (const model of [first, second]) addLora(model, { rank: 3, alpha: 1, targets: ['fc1'] }, initOf(9));
    expect(await first.fc1.lora!.A.floats()).toEqual(await second.fc1.lora!.A.floats());
  });

  test('modules in lists and inside others are found, by their last name only', () => {
    class Stack extends Module {
      readonly layers = [mlp(), mlp()];
      readonly score = new Linear(initOf(1), 12, 2, { bias: true });
      readonly none: Module | null = null;
    }
    const stack = new Stack();
    expect([...stack.namedModules('m.')].map(([path]) => path)).toEqual([
      'm.layers.0',
      'm.layers.0.fc1',
      'm.layers.0.fc2',
      'm.layers.1',
      'm.layers.1.fc1',
      'm.layers.1.fc2',
      'm.score',
    ]);
    addLora(stack, { rank: 1, alpha: 1, targets: ['fc1'] }, initOf(1));
    expect([...loraParameters(stack)].map(([path]) => path)).toEqual([
      'layers.0.fc1.lora.A',
      'layers.0.fc1.lora.B',
      'layers.1.fc1.lora.A',
      'layers.1.fc1.lora.B',
    ]);
    expect(stack.score.weight.requiresGrad).toBe(true);
  });

  test.each([
    [{ targets: ['fc2', 'in_proj', 'c'] }, 'expected targets among fc1, fc2, got in_proj, c'],
    [{ targets: [] }, 'expected targets among fc1, fc2, got none'],
    [{ rank: 0 }, 'expected a positive integer rank and a finite alpha above 0, got 0 and 2'],
    [{ rank: 1.5 }, 'got 1.5 and 2'],
    [{ alpha: 0 }, 'got 1 and 0'],
    [{ alpha: Number.NaN }, 'got 1 and NaN'],
    [{ alpha: Number.POSITIVE_INFINITY }, 'got 1 and Infinity'],
  ])('refuses %j', (wrong, message) => {
    const model = mlp();
    const config = { rank: 1, alpha: 2, targets: ['fc1'], ...wrong };
    expect(() => addLora(model, config, initOf(1))).toThrow(ConfigError);
    expect(() => addLora(model, config, initOf(1))).toThrow(message);
    expect([...loraParameters(model)]).toEqual([]);
    expect(model.fc1.weight.requiresGrad).toBe(true);
  });

  test('refuses a second adapter', () => {
    const model = mlp();
    addLora(model, { rank: 1, alpha: 2, targets: ['fc1'] }, initOf(1));
    expect(() => addLora(model, { rank: 1, alpha: 2, targets: ['fc1', 'fc2'] }, initOf(1))).toThrow(
      'expected layers without adapters, got one on fc1',
    );
    expect(model.fc2.lora).toBeNull();
  });
});
