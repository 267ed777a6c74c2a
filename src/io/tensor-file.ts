/**
 * What every format of weights looks like from outside: named tensors that are read when asked for, in the
 * type they are stored in or as float32. The formats (safetensors, torch) only say where the bytes are.
 */
import { DTypeError, FormatError } from '../base/errors.ts';
import { type Shape, sizeOf } from '../base/shape.ts';
import type { ByteSource } from '../base/source.ts';
import type { WeightDType } from '../base/weight-types.ts';
import { pieceRanges, readFloats, type StoredWeight, type WeightPiece } from './weight-pieces.ts';

export type StoredDType = 'F64' | 'F32' | 'F16' | 'BF16' | 'I64' | 'I32' | 'U8';
/** F64 and I64 as float64, F16 and BF16 as raw bits. */
export type StoredArray = Float64Array | Float32Array | Int32Array | Uint16Array | Uint8Array;

export const STORED_BYTES: Record<StoredDType, number> = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  I64: 8,
  I32: 4,
  U8: 1,
};

export interface TensorInfo {
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  /** The bytes [start, end) of the file. */
  readonly start: number;
  readonly end: number;
  /** Distance of neighbours along each axis, in elements; absent: row-major without gaps. */
  readonly strides?: readonly number[];
}

/** The tensors of one file or of one sharded set; data is read when asked for. */
export interface TensorFile {
  readonly name: string;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly metadata: Readonly<Record<string, string>>;
  /** The elements as stored; I64 beyond 2^53 is a FormatError. */
  read(tensor: string): Promise<StoredArray>;
  /** A fresh float32 copy: BF16 and F16 exactly, F64 rounded to nearest; DTypeError for integers. */
  readAsF32(tensor: string): Promise<Float32Array>;
  /** F32, BF16 and F16 as stored, F64 as f32; DTypeError for integers. */
  weight(tensor: string): StoredWeight;
  close(): Promise<void>;
}

/** Reads `tensors`, which lie inside `source`. */
export function tensorFile(
  source: ByteSource,
  tensors: ReadonlyMap<string, TensorInfo>,
  metadata: Record<string, string>,
): TensorFile {
  const find = (tensor: string): TensorInfo => {
    const info = tensors.get(tensor);
    if (info) return info;
    throw new FormatError(
      `readTensor: expected a tensor of ${source.name}, got the name ${tensor}. It holds ${tensors.size} tensors; list them with tensors.keys().`,
    );
  };
  const read = async (tensor: string, { dtype, shape, start, end, strides }: TensorInfo) => {
    const elements = toElements(await source.read(start, end), dtype, `${source.name}, tensor ${tensor}`);
    return strides ? gather(elements, shape, strides) : elements;
  };
  const weight = (tensor: string): StoredWeight => {
    const info = find(tensor);
    const { dtype, shape } = info;
    if (dtype === 'I64' || dtype === 'I32' || dtype === 'U8') {
      throw new DTypeError(
        `readWeight: expected a floating point tensor, got ${dtype} for ${tensor} of ${source.name}. Use read().`,
      );
    }
    const size = sizeOf(shape);
    return {
      dtype: WEIGHT_TYPES[dtype],
      size,
      storedBytes: size * STORED_BYTES[dtype],
      async *pieces(): AsyncGenerator<WeightPiece> {
        const whole = info.strides ? await read(tensor, info) : null;
        for (const [at, count] of pieceRanges(size)) {
          const values = whole?.subarray(at, at + count) ?? (await read(tensor, part(info, at, count)));
          const data = values instanceof Float64Array ? Float32Array.from(values) : values;
          yield { at, count, data };
        }
      },
    };
  };
  return {
    name: source.name,
    tensors,
    metadata,
    read: async (tensor) => read(tensor, find(tensor)),
    readAsF32: async (tensor) => {
      const info = find(tensor);
      return info.dtype === 'F32' ? ((await read(tensor, info)) as Float32Array) : readFloats(weight(tensor));
    },
    weight,
    close: () => source.close(),
  };
}

const WEIGHT_TYPES: Readonly<Record<'F64' | 'F32' | 'BF16' | 'F16', WeightDType>> = {
  F64: 'f32',
  F32: 'f32',
  BF16: 'bf16',
  F16: 'f16',
};

/** Elements [at, at + count) of a tensor without strides. */
function part({ dtype, start }: TensorInfo, at: number, count: number): TensorInfo {
  const first = start + at * STORED_BYTES[dtype];
  return { dtype, shape: [count], start: first, end: first + count * STORED_BYTES[dtype] };
}

/**
 * The elements of a strided tensor in row-major order. `values` reaches from its first to its last element.
 */
function gather(values: StoredArray, shape: Shape, strides: readonly number[]): StoredArray {
  const out = new (values.constructor as new (length: number) => StoredArray)(sizeOf(shape));
  const index = new Array<number>(shape.length).fill(0);
  let from = 0;
  for (let i = 0; i < out.length; i++) {
    out[i] = values[from]!;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += strides[axis]!;
      if (++index[axis]! < shape[axis]!) break;
      from -= strides[axis]! * shape[axis]!;
      index[axis] = 0;
    }
  }
  return out;
}

/** The elements in bytes of their own: a view where the source gave a whole buffer, else a copy. */
function toElements(bytes: Uint8Array, dtype: StoredDType, what: string): StoredArray {
  const own = bytes.byteLength === bytes.buffer.byteLength ? bytes : new Uint8Array(bytes);
  const buffer = own.buffer;
  if (dtype === 'F64') return new Float64Array(buffer);
  if (dtype === 'F32') return new Float32Array(buffer);
  if (dtype === 'I32') return new Int32Array(buffer);
  if (dtype === 'U8') return own;
  if (dtype !== 'I64') return new Uint16Array(buffer);
  return Float64Array.from(new BigInt64Array(buffer), (value, i) => {
    if (Number.isSafeInteger(Number(value))) return Number(value);
    throw new FormatError(
      `read: expected integers within 2^53, got ${value} at element ${i} (${what}). Store smaller numbers.`,
    );
  });
}
