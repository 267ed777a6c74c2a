/**
 * Gradients against central finite differences, on a device that computes and stores in float64 (the
 * reference device with 64-bit storage), so that the comparison is limited by the difference quotient alone.
 */
import { type Backend, type BufferRef, withDevice } from '../backend/backend.ts';
import { Rng } from '../base/rng.ts';
import { type Shape, sizeOf } from '../base/shape.ts';
import { scope } from './scope.ts';
import { backwardFrom } from './tape.ts';
import { Tensor } from './tensor.ts';

export interface Float64Device extends Backend {
  readF64(source: BufferRef, count: number): Float64Array;
}

export interface GradcheckInput {
  shape: Shape;
  data: Float64Array;
}

export interface GradcheckResult {
  /** max |analytic - numeric| / (1 + |numeric|) over every element of every input. */
  worst: number;
  /** Where the worst element is. */
  input: number;
  index: number;
}

/**
 * Checks d(sum of outputs times fixed random weights)/d(inputs) of `fn`. With step h the truncation error is
 * about h^2 times the third derivative and the rounding error eps64 / h: the default 1e-5 leaves about 1e-9.
 */
export function gradcheck(
  device: Float64Device,
  fn: (...inputs: Tensor[]) => readonly Tensor[],
  inputs: readonly GradcheckInput[],
  options: { step?: number; seed?: number } = {},
): GradcheckResult {
  const { step = 1e-5, seed = 7 } = options;
  const make = (data: readonly Float64Array[], requiresGrad: boolean) =>
    inputs.map(({ shape }, i) => Tensor.from(data[i]!, shape, { device, requiresGrad }));
  const weightsOf = (outputs: readonly Tensor[]) => {
    const rng = new Rng(seed);
    return outputs.map((y) => Float64Array.from({ length: sizeOf(y.shape) }, () => rng.uniform(-1, 1)));
  };
  const value = (data: readonly Float64Array[]): number =>
    scope(() => {
      const outputs = fn(...make(data, false));
      const weights = weightsOf(outputs);
      let total = 0;
      outputs.forEach((y, i) => {
        device.readF64(y, y.size).forEach((v, j) => {
          total += v * weights[i]![j]!;
        });
      });
      return total;
    });

  return withDevice(device, () => {
    const start = inputs.map(({ data }) => Float64Array.from(data));
    const analytic = scope(() => {
      const leaves = make(start, true);
      const outputs = fn(...leaves);
      const weights = weightsOf(outputs);
      const live = outputs
        .map((y, i) => ({ y, w: Tensor.from(weights[i]!, y.shape, { device }) }))
        .filter(({ y }) => y.node);
      backwardFrom(
        live.map(({ y }) => y),
        live.map(({ w }) => w),
      );
      return leaves.map((x) => (x.grad ? device.readF64(x.grad, x.size) : new Float64Array(x.size)));
    });
    const result: GradcheckResult = { worst: 0, input: 0, index: 0 };
    start.forEach((data, input) => {
      for (let index = 0; index < data.length; index++) {
        const x = data[index]!;
        data[index] = x + step;
        const above = value(start);
        data[index] = x - step;
        const below = value(start);
        data[index] = x;
        const numeric = (above - below) / (2 * step);
        const error = Math.abs(analytic[input]![index]! - numeric) / (1 + Math.abs(numeric));
        if (!(error <= result.worst)) Object.assign(result, { worst: error, input, index });
      }
    });
    return result;
  });
}
