/** Two ways to compute the same on one device: outputs and gradients must agree to rounding. */
import { expect } from 'vitest';
import { type Backend, withDevice } from '../../src/backend/backend.ts';
import { Rng } from '../../src/base/rng.ts';
import { scope } from '../../src/tensor/scope.ts';
import { backwardFrom } from '../../src/tensor/tape.ts';
import { Tensor } from '../../src/tensor/tensor.ts';
import { relativeError } from './oracle.ts';

/**
 * Two float32 evaluations of one formula whose longest chain of roundings is a few hundred: a few hundred
 * times 2^-24.
 */
export const TWIN = 400 * 2 ** -24;

export type Leaves = Record<string, Tensor>;
export type Op = (x: Leaves) => Tensor[];

/** Outputs and gradients (cotangents from a fixed stream) of `op` at `leaves`, on the host. */
export async function evaluate(
  device: Backend,
  shapes: Record<string, readonly number[]>,
  op: Op,
  seed: number,
) {
  const rng = new Rng(seed);
  const leaves = Object.fromEntries(
    Object.entries(shapes).map(([name, shape]) => {
      const sign = name === 'A' ? [-3, -0.05] : [-1, 1];
      return [name, Tensor.uniform(shape, sign[0]!, sign[1]!, rng, { device, requiresGrad: true })];
    }),
  );
  const outputs = withDevice(device, () =>
    scope(() => {
      const ys = op(leaves);
      backwardFrom(
        ys,
        ys.map((y) => Tensor.uniform(y.shape, -1, 1, rng, { device })),
      );
      return ys;
    }),
  );
  const values: Record<string, Float32Array> = {};
  for (const [i, y] of outputs.entries()) values[`output ${i}`] = await y.floats();
  for (const [name, leaf] of Object.entries(leaves)) {
    values[`d${name}`] = leaf.grad ? await leaf.grad.floats() : new Float32Array(leaf.size);
    leaf.dispose();
  }
  for (const y of outputs) y.dispose();
  return values;
}

export async function expectTwins(
  device: Backend,
  shapes: Record<string, readonly number[]>,
  fast: Op,
  slow: Op,
  seed = 1,
) {
  const a = await evaluate(device, shapes, fast, seed);
  const b = await evaluate(device, shapes, slow, seed);
  for (const [name, value] of Object.entries(b)) {
    expect(relativeError(a[name]!, value), `${name} of ${JSON.stringify(shapes)}`).toBeLessThan(TWIN);
  }
}

export const int = (values: number[], shape: number[], device: Backend) =>
  Tensor.from(Int32Array.from(values), shape, { device });
