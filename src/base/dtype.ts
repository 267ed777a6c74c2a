/**
 * Element types. Compute is f32 and i32; bf16 and f16 are storage formats,
 * converted on the way in and out (round to nearest even).
 */
import { DTypeError } from './errors.ts';

export type DType = 'f32' | 'i32' | 'bf16' | 'f16';
export type TypedArray = Float32Array | Float64Array | Int32Array | Uint16Array;

export const BYTES_PER_ELEMENT: Record<DType, number> = { f32: 4, i32: 4, bf16: 2, f16: 2 };

/** A zeroed host array that holds `count` elements of `dtype` (bf16 and f16 as raw bits). */
export function hostArray(dtype: DType, count: number): Float32Array | Int32Array | Uint16Array {
  if (dtype === 'f32') return new Float32Array(count);
  if (dtype === 'i32') return new Int32Array(count);
  if (dtype === 'bf16' || dtype === 'f16') return new Uint16Array(count);
  throw new DTypeError(`hostArray: expected f32, i32, bf16 or f16, got ${String(dtype)}.`);
}

const scratchF32 = new Float32Array(1);
const scratchU32 = new Uint32Array(scratchF32.buffer);

export function bf16ToF32(bits: number): number {
  scratchU32[0] = bits << 16;
  return scratchF32[0]!;
}

export function f32ToBf16(value: number): number {
  scratchF32[0] = value;
  const u = scratchU32[0]!;
  if ((u & 0x7fffffff) > 0x7f800000) return ((u >>> 16) | 0x40) & 0xffff; // NaN stays NaN
  return ((u + 0x7fff + ((u >>> 16) & 1)) >>> 16) & 0xffff;
}

export function f16ToF32(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const mantissa = bits & 0x3ff;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 31) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

export function f32ToF16(value: number): number {
  scratchF32[0] = value;
  const u = scratchU32[0]!;
  const sign = (u >>> 16) & 0x8000;
  const magnitude = u & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // rounds past 65504
  if (magnitude < 0x38800000) {
    // Subnormal half: count units of 2^-24; 2^23 as a float addend rounds to even for us.
    scratchU32[0] = magnitude;
    const units = Math.fround(scratchF32[0]! * 2 ** 24);
    const floor = Math.floor(units);
    const rest = units - floor;
    return sign | (floor + (rest > 0.5 || (rest === 0.5 && floor & 1) ? 1 : 0));
  }
  return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
}

/** Widens raw 16-bit elements to float32. */
export function widen(
  bits: Uint16Array,
  from: 'bf16' | 'f16',
  out = new Float32Array(bits.length),
): Float32Array {
  const words = new Uint32Array(out.buffer, out.byteOffset, bits.length);
  if (from === 'bf16') {
    for (let i = 0; i < bits.length; i++) words[i] = bits[i]! << 16;
    return out;
  }
  for (let i = 0; i < bits.length; i++) {
    const h = bits[i]!;
    const exponent = h & 0x7c00;
    // Normal numbers move into place, with the bias of 15 turned into 127.
    if (exponent !== 0 && exponent !== 0x7c00)
      words[i] = ((h & 0x8000) << 16) | (((h & 0x7fff) << 13) + (112 << 23));
    else out[i] = f16ToF32(h);
  }
  return out;
}

/** Rounds float32 values to raw 16-bit elements, to nearest even. */
export function narrow(values: Float32Array, to: 'bf16' | 'f16'): Uint16Array {
  const convert = to === 'bf16' ? f32ToBf16 : f32ToF16;
  const out = new Uint16Array(values.length);
  for (let i = 0; i < values.length; i++) out[i] = convert(values[i]!);
  return out;
}
