/**
 * The block formats q8 and q4: byte for byte GGUF's Q8_0 and Q4_0, so tensors move between files and
 * devices as they are. 32 elements share one float16 scale `d`. Decoded values are exact in float32 (11
 * bits times at most 8); encoding rounds as ggml's reference code does, in float32 at every step. Source of
 * the layouts: ggml, ggml-common.h.
 *
 *   q8  | d:2 | q:32 int8 |  y = d q
 *   q4  | d:2 | q:16 |       y = d (q - 8); the low half of byte i is element i, the high half element i + 16
 */
import { f16ToF32, f32ToF16, LAYOUTS, type NarrowDType, storageBytes } from './dtype.ts';
import { DTypeError } from './errors.ts';

export type BlockDType = Extract<NarrowDType, 'q8' | 'q4'>;

/** Elements of a block. */
export const BLOCK = 32;

/** The float16 at byte `at`. */
export function half(bytes: Uint8Array, at: number): number {
  return f16ToF32(bytes[at]! | (bytes[at + 1]! << 8));
}

/** The block that starts at byte `at`, to `out` from index `to`. */
export function decodeQ8(bytes: Uint8Array, at: number, out: Float32Array | Float64Array, to: number): void {
  const d = half(bytes, at);
  for (let i = 0; i < 32; i++) out[to + i] = d * ((bytes[at + 2 + i]! << 24) >> 24);
}

/** The block that starts at byte `at`, to `out` from index `to`. */
export function decodeQ4(bytes: Uint8Array, at: number, out: Float32Array | Float64Array, to: number): void {
  const d = half(bytes, at);
  for (let i = 0; i < 16; i++) {
    const q = bytes[at + 2 + i]!;
    out[to + i] = d * ((q & 15) - 8);
    out[to + i + 16] = d * ((q >> 4) - 8);
  }
}

/** Whole blocks to float32. Throws DTypeError where the bytes are none. */
export function decodeBlocks(bytes: Uint8Array, from: BlockDType): Float32Array {
  const size = LAYOUTS[from].bytes;
  if (bytes.length % size !== 0) {
    throw new DTypeError(
      `decodeBlocks: expected whole ${from} blocks of ${size} bytes, got ${bytes.length} bytes. Pass the rest of the row.`,
    );
  }
  const out = new Float32Array((bytes.length / size) * BLOCK);
  const decode = from === 'q8' ? decodeQ8 : decodeQ4;
  for (let at = 0, to = 0; at < bytes.length; at += size, to += BLOCK) decode(bytes, at, out, to);
  return out;
}

/**
 * Finite float32 values to whole blocks. Magnitudes up to 127 * 65504 (q8) and 8 * 65504 (q4) fit; beyond,
 * the scale is infinite. Throws DTypeError where 32 does not divide their number.
 */
export function encodeBlocks(values: Float32Array, to: BlockDType): Uint8Array {
  const out = new Uint8Array(storageBytes(to, values.length));
  const size = LAYOUTS[to].bytes;
  const encode = to === 'q8' ? encodeQ8 : encodeQ4;
  for (let from = 0, at = 0; from < values.length; from += BLOCK, at += size) encode(values, from, out, at);
  return out;
}

/** Scales below the smallest normal inverse would turn zero into NaN; they are zero as float16 anyway. */
function inverse(d: number): number {
  const id = d === 0 ? 0 : Math.fround(1 / d);
  return Number.isFinite(id) ? id : 0;
}

function putScale(out: Uint8Array, to: number, d: number): void {
  const bits = f32ToF16(d);
  out[to] = bits & 255;
  out[to + 1] = bits >> 8;
}

/** d = max |x| / 127; q = x / d, halves away from zero. */
function encodeQ8(values: Float32Array, from: number, out: Uint8Array, to: number): void {
  let top = 0;
  for (let i = 0; i < 32; i++) top = Math.max(top, Math.abs(values[from + i]!));
  const d = Math.fround(top / 127);
  const id = inverse(d);
  putScale(out, to, d);
  for (let i = 0; i < 32; i++) {
    const x = Math.fround(values[from + i]! * id);
    out[to + 2 + i] = Math.sign(x) * Math.floor(Math.abs(x) + 0.5);
  }
}

/**
 * d = -x / 8 for the x of largest magnitude, the first of them, which becomes level
 * 0; q = x / d + 8.5 cut to 0..15.
 */
function encodeQ4(values: Float32Array, from: number, out: Uint8Array, to: number): void {
  let top = 0;
  for (let i = 0; i < 32; i++) {
    if (Math.abs(values[from + i]!) > Math.abs(top)) top = values[from + i]!;
  }
  const d = top / -8;
  const id = inverse(d);
  putScale(out, to, d);
  const level = (i: number): number =>
    Math.min(15, Math.trunc(Math.fround(Math.fround(values[from + i]! * id) + 8.5)));
  for (let i = 0; i < 16; i++) out[to + 2 + i] = level(i) | (level(i + 16) << 4);
}
