/**
 * GGUF files, read lazily: opening proves the header, a tensor is read when it is asked for, in pieces, as it
 * is stored or widened to float32.
 */
import { FormatError, UnsupportedError } from '../base/errors.ts';
import { sizeOf } from '../base/shape.ts';
import type { ByteSource } from '../base/source.ts';
import type { WeightDType } from '../base/weight-types.ts';
import { type GgufHeader, readGgufHeader } from './gguf-header.ts';
import { aligned } from './quants.ts';
import { pieceRanges, readFloats, type StoredWeight, type WeightPiece } from './weight-pieces.ts';

export interface GgufFile extends GgufHeader {
  readonly name: string;
  /** A fresh float32 array, row-major; UnsupportedError for element types that cannot be read. */
  readAsF32(tensor: string): Promise<Float32Array>;
  /** F16, BF16, Q8_0 and Q4_0 as stored, everything else as f32; errors as above. */
  weight(tensor: string): StoredWeight;
  close(): Promise<void>;
}

/** Types whose blocks are ours, too. */
const OWN_TYPES: Readonly<Record<string, WeightDType>> = { F16: 'f16', BF16: 'bf16', Q8_0: 'q8', Q4_0: 'q4' };

/**
 * Opens a GGUF file of version 2 or 3. Throws FormatError, with file and byte, for
 * anything the format does not allow.
 */
export async function openGguf(source: ByteSource): Promise<GgufFile> {
  const header = await readGgufHeader(source);
  const weight = (name: string): StoredWeight => {
    const tensor = header.tensors.get(name);
    if (!tensor) {
      throw new FormatError(
        `readWeight: expected a tensor of ${source.name}, got the name ${name}. List them with tensors.keys().`,
      );
    }
    const { type, shape, start, end } = tensor;
    const { dequantise } = type;
    if (!dequantise) {
      throw new UnsupportedError(
        `readWeight: expected F32, F16, BF16, Q8_0, Q4, Q5, a K-quant or IQ4_NL, got ${type.name} for ${name} of ${source.name}. Use the model in another quantisation.`,
      );
    }
    const own = OWN_TYPES[type.name];
    const size = sizeOf(shape);
    return {
      dtype: own ?? 'f32',
      size,
      storedBytes: end - start,
      async *pieces(): AsyncGenerator<WeightPiece> {
        const byteOf = (element: number): number => start + (element / type.block) * type.bytes;
        for (const [at, count] of pieceRanges(size)) {
          const bytes = await source.read(byteOf(at), byteOf(at + count));
          const data = own ? ownData(bytes, own) : new Float32Array(count);
          if (data instanceof Float32Array) dequantise(bytes, data);
          yield { at, count, data };
        }
      },
    };
  };
  return {
    ...header,
    name: source.name,
    readAsF32: async (name) => readFloats(weight(name)),
    weight,
    close: () => source.close(),
  };
}

function ownData(bytes: Uint8Array, dtype: WeightDType): Uint8Array | Uint16Array {
  return dtype === 'q8' || dtype === 'q4' ? bytes : new Uint16Array(aligned(bytes));
}
