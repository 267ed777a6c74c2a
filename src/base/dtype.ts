/**
 * Element types. Compute is f32 and i32; the narrow ones are storage formats: bf16 and f16
 * are single elements, converted on the way in and out (round to nearest even), q8 and q4
 * rows of blocks of 32 (blocks.ts).
 */
import { DTypeError } from './errors.ts';

/** Storage formats of weights. */
export type NarrowDType = 'bf16' | 'f16' | 'q8' | 'q4';
export type DType = 'f32' | 'i32' | NarrowDType;
export type TypedArray = Float32Array | Float64Array | Int32Array | Uint16Array | Uint8Array;
/**
 * What reading back gives: f32 and i32 as numbers, bf16 and f16 as raw bits, q8 and
 * q4 as the bytes of their blocks.
 */
export type HostArray = Float32Array | Int32Array | Uint16Array | Uint8Array;

/** Elements and bytes of the smallest piece that stands for itself. Rows (the last axis) are whole pieces. */
export const LAYOUTS: Readonly<Record<DType, { readonly block: number; readonly bytes: number }>> = {
  f32: { block: 1, bytes: 4 },
  i32: { block: 1, bytes: 4 },
  bf16: { block: 1, bytes: 2 },
  f16: { block: 1, bytes: 2 },
  q8: { block: 32, bytes: 34 },
  q4: { block: 32, bytes: 18 },
};

/** Bytes of `count` elements. Throws DTypeError where they are no whole blocks. */
export function storageBytes(dtype: DType, count: number): number {
  const { block, bytes } = LAYOUTS[dtype];
  if (count % block !== 0) {
    throw new DTypeError(
      `storageBytes: expected a multiple of ${block} elements for ${dtype}, got ${count}. Use f16 for such rows.`,
    );
  }
  return (count / block) * bytes;
}

/** A zeroed host array that holds `count` elements of `dtype`, in the form of HostArray. */
export function hostArray(dtype: DType, count: number): HostArray {
  if (dtype === 'f32') return new Float32Array(count);
  if (dtype === 'i32') return new Int32Array(count);
  if (dtype === 'bf16' || dtype === 'f16') return new Uint16Array(count);
  if (dtype === 'q8' || dtype === 'q4') return new Uint8Array(storageBytes(dtype, count));
  throw new DTypeError(`hostArray: expected f32, i32, bf16, f16, q8 or q4, got ${String(dtype)}.`);
}

/**
 * Checks raw storage of a narrow type: Uint16Array for bf16 and f16, Uint8Array
 * of whole blocks for q8 and q4.
 */
export function rawStorage(
  dtype: NarrowDType,
  data: TypedArray | readonly number[],
): Uint16Array | Uint8Array {
  const { block, bytes } = LAYOUTS[dtype];
  if (block === 1 && data instanceof Uint16Array) return data;
  if (block > 1 && data instanceof Uint8Array && data.length % bytes === 0) return data;
  const form = block === 1 ? 'raw bits as Uint16Array' : `whole blocks of ${bytes} bytes as Uint8Array`;
  const got = `${data.constructor.name} of ${data.length}`;
  const convert = block === 1 ? 'narrow()' : 'encodeBlocks()';
  throw new DTypeError(`write: expected ${form} for ${dtype}, got ${got}. Convert with ${convert}.`);
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
