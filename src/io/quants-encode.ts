/**
 * Float32 rows to the element types of GGUF that are written. Q8_0 and Q4_0 round as ggml's reference code does, in
 * float32 at every step, so the bytes are the same (layouts: quants.ts).
 */
import { f32ToF16, narrow } from '../base/dtype.ts';
import { FormatError } from '../base/errors.ts';

export type WrittenType = 'F32' | 'F16' | 'BF16' | 'Q8_0' | 'Q4_0';

/** The number of the type in the file, elements and bytes of a block, and the largest magnitude it can hold. */
export const WRITTEN_TYPES: Readonly<
  Record<WrittenType, { id: number; block: number; bytes: number; limit: number }>
> = {
  F32: { id: 0, block: 1, bytes: 4, limit: Number.MAX_VALUE },
  F16: { id: 1, block: 1, bytes: 2, limit: 65504 },
  BF16: { id: 30, block: 1, bytes: 2, limit: 2 ** 128 - 2 ** 120 },
  Q8_0: { id: 8, block: 32, bytes: 34, limit: 127 * 65504 },
  Q4_0: { id: 2, block: 32, bytes: 18, limit: 8 * 65504 },
};

/** Whole blocks to bytes. FormatError for values the type cannot hold; `what` names the tensor. */
export function encodeValues(values: Float32Array, type: WrittenType, what: string): Uint8Array {
  const { block, bytes, limit } = WRITTEN_TYPES[type];
  const at = values.findIndex((x) => !(Math.abs(x) <= limit));
  if (at >= 0) {
    throw new FormatError(
      `writeGguf: expected magnitudes up to ${limit} for ${type} in ${what}, got ${values[at]} at element ${at}. Write f32, or repair the weights.`,
    );
  }
  if (type === 'F32') return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  if (type === 'F16' || type === 'BF16') {
    return new Uint8Array(narrow(values, type === 'F16' ? 'f16' : 'bf16').buffer);
  }
  const out = new Uint8Array((values.length / block) * bytes);
  const encode = type === 'Q8_0' ? encodeQ8 : encodeQ4;
  for (let from = 0, to = 0; from < values.length; from += block, to += bytes) encode(values, from, out, to);
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

/** d = -x / 8 for the x of largest magnitude, the first of them, which becomes level 0; q = x / d + 8.5 cut to 0..15. */
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
