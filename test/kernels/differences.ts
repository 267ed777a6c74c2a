/**
 * The gradient of a reference kernel against finite differences of its forward kernel, in float64. The
 * derivative comes from central differences D(h) and D(2h), extrapolated to (4 D(h) - D(2h)) / 3; its error
 * is below |D(h) - D(2h)|, which bounds the cruder of the two, plus the rounding of the loss divided by h.
 */
import { expect } from 'vitest';
import type { KernelName } from '../../src/backend/backend.ts';
import { boundsOf } from './bounds.ts';
import { type Case, type Operands, type Result, truth } from './harness.ts';

const H = 2 ** -12;
/** A tolerance above this share of the largest gradient would prove nothing. */
const SHARP = 1e-5;

type Arrays = Record<string, Float64Array>;

/** A scalar of all outputs, by its gradient with respect to each: sum of cotangent * output. */
function lossOf(result: Result, cotangents: Arrays): { loss: number; size: number } {
  let [loss, size] = [0, 0];
  for (const [name, weights] of Object.entries(cotangents)) {
    weights.forEach((weight, i) => {
      loss += weight * result[name]![i]!;
      size += Math.abs(weight * result[name]![i]!);
    });
  }
  return { loss, size };
}

/** Compares `gradients` (by the name of the input) with differences of the loss of the forward kernel. */
export async function checkGradients<N extends KernelName>(
  kernel: N,
  operands: Operands<N>,
  cotangents: Arrays,
  gradients: Record<string, Result[string] | null | undefined>,
) {
  const test: Case<N> = { kernel, name: 'forward', operands };
  const result = await truth(test);
  const bounds = await boundsOf(test, result);
  let noise = lossOf(result, cotangents).size * 2 ** -52; // the sum of the loss itself, pairwise at worst a few bits
  for (const [name, weights] of Object.entries(cotangents)) {
    weights.forEach((weight, i) => {
      noise +=
        Math.abs(weight) * ((bounds[name]?.[i]?.r ?? 0) * 2 ** -29 + Math.abs(result[name]![i]!) * 2 ** -53);
    });
  }
  for (const [name, gradient] of Object.entries(gradients)) {
    const input = Float64Array.from(operands[name as keyof Operands<N>] as unknown as Float64Array);
    expect(gradient?.length, `${name} has a gradient for every element`).toBe(input.length);
    const largest = Math.max(...gradient!.map(Math.abs));
    const slope = async (i: number, h: number) => {
      const at = async (x: number) => {
        const moved = { ...operands, [name]: input.with(i, x) };
        return lossOf(await truth({ ...test, operands: moved }), cotangents).loss;
      };
      return ((await at(input[i]! + h)) - (await at(input[i]! - h))) / (2 * h);
    };
    for (let i = 0; i < input.length; i++) {
      const [fine, coarse] = [await slope(i, H), await slope(i, 2 * H)];
      const tolerance = Math.abs(fine - coarse) + (2 * noise) / H;
      const difference = (4 * fine - coarse) / 3;
      expect(tolerance, `sharpness of ${name}[${i}]`).toBeLessThan(SHARP * largest + Number.MIN_VALUE);
      expect(Math.abs(gradient![i]! - difference), `d${name}[${i}]`).toBeLessThanOrEqual(tolerance);
    }
  }
}

export const wide = (array: Float32Array): Float64Array => Float64Array.from(array);
