/**
 * Float32 rows to the element types of GGUF that are written. Q8_0 and Q4_0 round as ggml's reference code does, so the
 * bytes are the same (base/blocks.ts).
 */
import { encodeBlocks } from '../base/blocks.ts';
import { narrow } from '../base/dtype.ts';
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
  const { limit } = WRITTEN_TYPES[type];
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
  return encodeBlocks(values, type === 'Q8_0' ? 'q8' : 'q4');
}
