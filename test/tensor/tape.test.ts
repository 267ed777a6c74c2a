import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { useDevice } from '../../src/backend/backend.ts';
import { createReference } from '../../src/backend/reference/index.ts';
import { StateError } from '../../src/base/errors.ts';
import { Rng } from '../../src/base/rng.ts';
import '../../src/tensor/fluent.ts';
import { gradcheck } from '../../src/tensor/gradcheck.ts';
import * as p from '../../src/tensor/primitives.ts';
import { keep, scope } from '../../src/tensor/scope.ts';
import { backward, noGrad, recompute } from '../../src/tensor/tape.ts';
import { Tensor } from '../../src/tensor/tensor.ts';
import { f64, GRADCHECK_TOLERANCE, randomInput } from '../support/f64.ts';

const device = createReference();
beforeAll(() => useDevice(device));
afterAll(() => expect(device.memory.liveBytes).toBeGreaterThanOrEqual(0));

describe('gradient rules of the primitives', () => {
  const rng = new Rng(11);
  const x = () => randomInput([2, 3, 4], rng);
  const positive = () => randomInput([2, 3, 4], rng, 0.5, 2);
  const cases: Record<string, [(...xs: Tensor[]) => Tensor, ...ReturnType<typeof x>[]]> = {
    'add, broadcast': [(a, b) => p.add(a!, b!), x(), randomInput([3, 1], rng)],
    'sub, broadcast': [(a, b) => p.sub(a!, b!), randomInput([4], rng), x()],
    'mul, broadcast': [(a, b) => p.mul(a!, b!), x(), randomInput([2, 1, 4], rng)],
    'mul by itself': [(a) => p.mul(a!, a!), x()],
    div: [(a, b) => p.div(a!, b!), x(), randomInput([3, 4], rng, 0.5, 2)],
    maximum: [(a, b) => p.maximum(a!, b!), x(), x()],
    minimum: [(a, b) => p.minimum(a!, b!), x(), x()],
    clamp: [(a) => p.clamp(a!, -0.4, 0.6), x()],
    'clamp on one side': [(a) => p.clamp(a!, 0.1, Number.POSITIVE_INFINITY), x()],
    affine: [(a) => p.affine(a!, -1.5, 2), x()],
    'sum axis': [(a) => p.sum(a!, 1), x()],
    'amax axis': [(a) => p.amax(a!, 1), x()],
    'sum all': [(a) => p.sum(a!), x()],
    'mean keepDim': [(a) => p.mean(a!, -1, true), x()],
    reshape: [(a) => p.reshape(a!, [4, -1]), x()],
    broadcastTo: [(a) => p.broadcastTo(a!, [2, 3, 4]), randomInput([3, 1], rng)],
    permute: [(a) => p.permute(a!, [2, 0, 1]), x()],
    'slice axis 0': [(a) => p.slice(a!, 0, 1, 2), x()],
    'slice axis 2': [(a) => p.slice(a!, 2, 1, -1), x()],
    split: [(a) => p.concat(p.split(a!, 2, [1, 0, 3]).reverse(), 2), x()],
    'split, one part read': [(a) => p.split(a!, 1, [1, 2])[1]!, x()],
    concat: [(a, b) => p.concat([a!, b!], 1), x(), randomInput([2, 5, 4], rng)],
    stack: [(a, b) => p.stack([a!, b!], 1), x(), x()],
    'matmul 2d': [(a, b) => p.matmul(a!, b!), randomInput([3, 5], rng), randomInput([5, 2], rng)],
    'matmul batched': [(a, b) => p.matmul(a!, b!), x(), randomInput([2, 4, 3], rng)],
    'matmul shared': [(a, b) => p.matmul(a!, b!), x(), randomInput([4, 3], rng)],
    gatherRows: [
      (a) => p.gatherRows(a!, Tensor.from(Int32Array.of(2, 0, 2, 1), [2, 2], { device: f64 })),
      randomInput([3, 4], rng),
    ],
  };
  for (const op of [
    'neg',
    'exp',
    'square',
    'sigmoid',
    'silu',
    'softplus',
    'tanh',
    'gelu',
    'sin',
    'cos',
  ] as const) {
    cases[op] = [(a) => p.unary(op, a!), x()];
  }
  for (const op of ['log', 'sqrt', 'rsqrt', 'reciprocal', 'abs', 'relu'] as const) {
    cases[op] = [(a) => p.unary(op, a!), positive()];
  }
  test.each(Object.entries(cases))('%s', (_name, [fn, ...inputs]) => {
    const result = gradcheck(f64, (...xs) => [fn(...xs)], inputs);
    expect(result.worst, JSON.stringify(result)).toBeLessThan(GRADCHECK_TOLERANCE);
  });
});

test('clamp passes the gradient at its borders', async () => {
  const x = Tensor.from([-2, -1, 0, 2, 3], [5], { requiresGrad: true });
  const y = p.clamp(x, -1, 2);
  backward(y, Tensor.ones([5]));
  expect([...(await y.floats())]).toEqual([-1, -1, 0, 2, 2]);
  expect([...(await x.grad!.floats())]).toEqual([0, 1, 1, 1, 0]);
  expect(() => p.clamp(x, 1, -1)).toThrow(/low <= high, got \[1, -1\]/);
});

describe('memory', () => {
  test('a scope frees everything but what it returns and keeps', () => {
    const before = device.memory.liveBytes;
    let kept: Tensor | undefined;
    const out = scope(() => {
      const a = Tensor.ones([8]);
      kept = keep(a.add(1));
      return { sum: a.mul(3).sum() };
    });
    expect(device.memory.liveBytes).toBeGreaterThan(before);
    out.sum.dispose();
    kept?.dispose();
    expect(device.memory.liveBytes).toBe(before);
  });

  test('forward and backward inside a scope leave only the gradients', () => {
    const w = Tensor.ones([4, 4], { requiresGrad: true });
    const before = device.memory.liveBytes;
    scope(() => {
      const y = scope(() => w.matmul(w).silu().sum());
      y.backward();
    });
    expect(device.memory.liveBytes).toBe(before + 64);
    w.dispose();
  });

  test('a graph that is dropped without backward is freed', () => {
    const w = Tensor.ones([4], { requiresGrad: true });
    const before = device.memory.liveBytes;
    scope(() => {
      w.exp().mul(w).sum();
    });
    expect(device.memory.liveBytes).toBe(before);
    w.dispose();
  });

  test('a steady loop makes no new buffers', () => {
    const w = Tensor.ones([5, 7], { requiresGrad: true });
    const step = () =>
      scope(() => {
        w.matmul(w.transpose()).softplus().sum().backward();
        w.grad?.dispose();
        w.grad = null;
      });
    step();
    const { newBuffers } = device.memory;
    for (let i = 0; i < 5; i++) step();
    expect(device.memory.newBuffers).toBe(newBuffers);
    w.dispose();
  });

  test('using a disposed tensor names the remedy', () => {
    const x = Tensor.ones([2]);
    x.dispose();
    x.dispose();
    expect(() => x.add(1)).toThrow(/disposed.*keep/s);
  });
});

describe('backward', () => {
  test('accumulates over calls and over uses', async () => {
    const x = Tensor.from([3], [1], { requiresGrad: true });
    for (let i = 0; i < 2; i++) scope(() => x.mul(x).add(x).sum().backward());
    expect(await x.grad!.item()).toBe(14);
  });

  test('twice over one graph is refused', () => {
    const x = Tensor.from([3], [1], { requiresGrad: true });
    scope(() => {
      const y = x.mul(x).sum();
      y.backward();
      expect(() => y.backward()).toThrow(StateError);
    });
  });

  test('noGrad records nothing', () => {
    const x = Tensor.from([3], [1], { requiresGrad: true });
    scope(() => expect(() => noGrad(() => x.mul(x)).backward()).toThrow(/without a graph/));
  });

  test('a vector needs its gradient, of its shape', () => {
    const x = Tensor.ones([3], { requiresGrad: true });
    scope(() => {
      expect(() => backward(x.mul(2))).toThrow(/scalar/);
      expect(() => backward(x.mul(2), Tensor.ones([2]))).toThrow(/gradient of \[3\]/);
    });
  });

  test('recompute gives the same gradients, to captured parameters too', async () => {
    const rng = new Rng(3);
    const x = Tensor.normal([2, 3], 1, rng, { requiresGrad: true });
    const w = Tensor.normal([3, 3], 1, rng, { requiresGrad: true });
    const block = (input: Tensor) => [input.matmul(w).silu().matmul(w)];
    const grads = [];
    for (const run of [() => block(x)[0]!, () => recompute((input) => block(input!), [x])[0]!]) {
      scope(() => run().sum().backward());
      grads.push([...(await x.grad!.floats()), ...(await w.grad!.floats())]);
      for (const t of [x, w]) {
        t.grad?.dispose();
        t.grad = null;
      }
    }
    expect(grads[1]).toEqual(grads[0]);
  });
});
