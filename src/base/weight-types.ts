/**
 * The types in which weights are stored, on the host: towards float32 every conversion is exact, away from it
 * values are rounded to the nearest (blocks: as ggml does).
 */
import { decodeBlocks, encodeBlocks } from './blocks.ts';
import { type DType, type HostArray, LAYOUTS, type NarrowDType, narrow, widen } from './dtype.ts';
import { DTypeError } from './errors.ts';

export type WeightDType = 'f32' | NarrowDType;

/** The largest magnitude of each type: what rounds to infinity, or needs an infinite scale, lies beyond. */
export const LARGEST: Readonly<Record<WeightDType, number>> = {
  f32: Number.MAX_VALUE,
  bf16: 2 ** 128 - 2 ** 120,
  f16: 65504,
  q8: 127 * 65504,
  q4: 8 * 65504,
};

export function isNarrow(dtype: DType): dtype is NarrowDType {
  return dtype !== 'f32' && dtype !== 'i32';
}

/** Elements in a host array. */
export function elementsOf(data: HostArray, dtype: DType): number {
  const { block, bytes } = LAYOUTS[dtype];
  return (data.byteLength / bytes) * block;
}

/** The values as float32; f32 data is returned as it is. */
export function toFloats(data: HostArray, dtype: DType): Float32Array {
  if (dtype === 'f32' && data instanceof Float32Array) return data;
  if ((dtype === 'bf16' || dtype === 'f16') && data instanceof Uint16Array) return widen(data, dtype);
  if ((dtype === 'q8' || dtype === 'q4') && data instanceof Uint8Array) return decodeBlocks(data, dtype);
  throw new DTypeError(
    `toFloats: expected an array of a floating point type, got ${data.constructor.name} as ${dtype}.`,
  );
}

/** Finite values, of magnitudes up to LARGEST, in another type; f32 is returned as it is. */
export function fromFloats(values: Float32Array, dtype: WeightDType): HostArray {
  if (dtype === 'f32') return values;
  return dtype === 'q8' || dtype === 'q4' ? encodeBlocks(values, dtype) : narrow(values, dtype);
}
