/** Norms with constant scales: the same values, and the gradient of a line through them. */
import { expect, it } from 'vitest';
import { withDevice } from '../../src/backend/backend.ts';
import { Rng } from '../../src/base/rng.ts';
import { gatedRmsNorm } from '../../src/ops/gated-norm.ts';
import { layerNorm, rmsNorm, withConstantScales } from '../../src/ops/norm.ts';
import { backward } from '../../src/tensor/tape.ts';
import { Tensor } from '../../src/tensor/tensor.ts';
import { devices } from '../kernels/devices.ts';

const [ROWS, D, EPS] = [5, 13, 1e-5];

it.each(devices)('hold what they divide by, $label', async ({ backend }) => {
  const rng = new Rng(4);
  const draw = (n: number) => Float32Array.from({ length: n }, () => rng.normal());
  const [xs, ws, ds] = [draw(ROWS * D), draw(D), draw(ROWS * D)];
  for (const center of [false, true]) {
    const make = (data: Float32Array, shape: number[]) => {
      const tensor = Tensor.from(data, shape, { device: backend });
      tensor.requiresGrad = true;
      return tensor;
    };
    const [x, weight] = [make(xs, [ROWS, D]), make(ws, [D])];
    const { plain, held } = withDevice(backend, () => {
      const run = () => (center ? layerNorm(x, weight, null) : rmsNorm(x, weight)).y;
      const y = withConstantScales(run);
      backward(y, Tensor.from(ds, [ROWS, D]));
      return { plain: run().detach(), held: y.detach() };
    });
    const [expected, got, gradient] = [await plain.floats(), await held.floats(), await x.grad!.floats()];
    for (let r = 0; r < ROWS; r++) {
      const row = [...xs.subarray(r * D, (r + 1) * D)];
      const mean = center ? row.reduce((s, v) => s + v, 0) / D : 0;
      const scale = 1 / Math.sqrt(row.reduce((s, v) => s + (v - mean) ** 2, 0) / D + EPS);
      const through = row.map((_, c) => ds[r * D + c]! * ws[c]! * scale);
      const common = center ? through.reduce((s, v) => s + v, 0) / D : 0;
      for (const [c, value] of through.entries()) {
        // Values of order 1 through some twenty float32 roundings.
        expect(Math.abs(got[r * D + c]! - expected[r * D + c]!)).toBeLessThan(4e-6);
        expect(Math.abs(gradient[r * D + c]! - (value - common))).toBeLessThan(4e-6 * (1 + Math.abs(value)));
      }
    }
  }
});

it.each(devices)('hold in the gated norm too, $label', async ({ backend }) => {
  const rng = new Rng(9);
  const draw = (n: number) => Float32Array.from({ length: n }, () => rng.normal());
  const leaf = (data: Float32Array, shape: number[]) =>
    Tensor.from(data, shape, { device: backend, requiresGrad: true });
  const [xs, ds] = [draw(ROWS * D), draw(ROWS * D)];
  const [x, z, weight] = [leaf(xs, [ROWS, D]), leaf(draw(ROWS * D), [ROWS, D]), leaf(draw(D), [D])];
  const y = withDevice(backend, () => {
    const out = withConstantScales(() => gatedRmsNorm(x, weight, { z, normBeforeGate: true }));
    backward(out, Tensor.from(ds, [ROWS, D]));
    return out.detach();
  });
  // Linear in x with the scale held: gradient x input says what each input adds. Both sides share the scale and the gate; each
  // has three more products, and the difference of two such sums is taken in float64.
  const [values, gradient] = [await y.floats(), await x.grad!.floats()];
  for (let r = 0; r < ROWS; r++) {
    const along = (a: Float32Array, b: Float32Array) =>
      a.subarray(r * D, (r + 1) * D).reduce((total, v, c) => total + v * b[r * D + c]!, 0);
    const size = ds
      .subarray(r * D, (r + 1) * D)
      .reduce((total, v, c) => total + Math.abs(v * values[r * D + c]!), 0);
    expect(Math.abs(along(xs, gradient) - along(ds, values))).toBeLessThan(8 * 2 ** -24 * size);
  }
});

it('is over when it is over, also after an error', async () => {
  const boom = () =>
    withConstantScales(() => {
      throw new Error('boom');
    });
  expect(boom).toThrow('boom');
  const { backend } = devices[0]!;
  const [a, b] = await withDevice(backend, () => {
    const x = Tensor.from(Float32Array.of(1, 2), [1, 2]);
    x.requiresGrad = true;
    backward(rmsNorm(x, null).y, Tensor.from(Float32Array.of(1, 2), [1, 2]));
    return x.grad!.floats();
  });
  expect(Math.abs(a! + 2 * b!)).toBeLessThan(1e-4); // at right angles to x
});
