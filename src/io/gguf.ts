/**
 * GGUF files, read lazily: opening proves the header, a tensor is read and widened to float32 when it is asked for, in
 * pieces, so the peak is little above the result.
 */
import { FormatError, UnsupportedError } from '../base/errors.ts';
import { sizeOf } from '../base/shape.ts';
import type { ByteSource } from '../base/source.ts';
import { type GgufHeader, readGgufHeader } from './gguf-header.ts';

export interface GgufFile extends GgufHeader {
  readonly name: string;
  /** A fresh float32 array, row-major; UnsupportedError for element types that cannot be read. */
  readAsF32(tensor: string): Promise<Float32Array>;
  close(): Promise<void>;
}

/** Blocks are widened in pieces of about this size. */
const PIECE_BYTES = 1 << 22;

/** Opens a GGUF file of version 2 or 3. Throws FormatError, with file and byte, for anything the format does not allow. */
export async function openGguf(source: ByteSource): Promise<GgufFile> {
  const header = await readGgufHeader(source);
  return {
    ...header,
    name: source.name,
    readAsF32: async (name) => {
      const tensor = header.tensors.get(name);
      if (!tensor) {
        throw new FormatError(
          `readAsF32: expected a tensor of ${source.name}, got the name ${name}. List them with tensors.keys().`,
        );
      }
      const { type, shape, start, end } = tensor;
      if (!type.dequantise) {
        throw new UnsupportedError(
          `readAsF32: expected F32, F16, BF16, Q8_0, Q4, Q5, a K-quant or IQ4_NL, got ${type.name} for ${name} of ${source.name}. Use the model in another quantisation.`,
        );
      }
      const out = new Float32Array(sizeOf(shape));
      const step = Math.max(1, Math.floor(PIECE_BYTES / type.bytes)) * type.bytes;
      for (let from = start; from < end; from += step) {
        const bytes = await source.read(from, Math.min(end, from + step));
        const first = ((from - start) / type.bytes) * type.block;
        type.dequantise(bytes, out.subarray(first, first + (bytes.length / type.bytes) * type.block));
      }
      return out;
    },
    close: () => source.close(),
  };
}
