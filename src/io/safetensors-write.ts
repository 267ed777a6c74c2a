/**
 * Writing safetensors in pieces: the header is computed from shapes alone, then each tensor is asked for,
 * handed on and forgotten, so a file much larger than memory can be written. The order is that of the
 * reference implementation (wide element types first, then by name), so the same tensors give the same bytes.
 */
import { narrow } from '../base/dtype.ts';
import { ConfigError, DTypeError, ShapeError } from '../base/errors.ts';
import { showShape, sizeOf } from '../base/shape.ts';
import { STORED_BYTES, type StoredArray, type StoredDType } from './tensor-file.ts';

export interface TensorEntry {
  name: string;
  dtype: StoredDType;
  shape: readonly number[];
  /** The elements, row-major, in the array type that `read` gives for the dtype; F16 and BF16 may also be given
   *  as float32, which is rounded to nearest even. A function is called only when the tensor is written. */
  data: StoredArray | (() => StoredArray | Promise<StoredArray>);
}

const ORDER: readonly StoredDType[] = ['I64', 'F64', 'F32', 'I32', 'BF16', 'F16', 'U8'];
const ALIGNMENT = 8;

/** The bytes of a safetensors file, piece by piece. Pieces are views: use each before asking for the next. */
export async function* safetensorsChunks(
  entries: Iterable<TensorEntry>,
  metadata: Readonly<Record<string, string>> = {},
): AsyncGenerator<Uint8Array> {
  const sorted = [...entries].sort(
    (a, b) => ORDER.indexOf(a.dtype) - ORDER.indexOf(b.dtype) || (a.name < b.name ? -1 : 1),
  );
  yield encodeHeader(sorted, metadata);
  for (const entry of sorted) {
    const values = typeof entry.data === 'function' ? await entry.data() : entry.data;
    if (values.length > 0 || sizeOf(entry.shape) > 0) yield toBytes(entry, values);
  }
}

/** A whole file in memory; for small things such as a saved state. */
export async function encodeSafetensors(
  entries: Iterable<TensorEntry>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of safetensorsChunks(entries, metadata)) chunks.push(chunk);
  const out = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    out.set(chunk, at);
    at += chunk.length;
  }
  return out;
}

function encodeHeader(
  sorted: readonly TensorEntry[],
  metadata: Readonly<Record<string, string>>,
): Uint8Array {
  const seen = new Set(['__metadata__']);
  const members: [string, unknown][] = [];
  const keys = Object.keys(metadata).sort();
  if (keys.length > 0)
    members.push(['__metadata__', Object.fromEntries(keys.map((key) => [key, metadata[key]]))]);
  let at = 0;
  for (const { name, dtype, shape } of sorted) {
    if (seen.has(name)) {
      throw new ConfigError(
        `encodeSafetensors: expected every name once, got ${name} again. Rename the tensor.`,
      );
    }
    seen.add(name);
    if (!shape.every((extent) => Number.isSafeInteger(extent) && extent >= 0)) {
      throw new ShapeError(`encodeSafetensors: expected extents >= 0, got ${showShape(shape)} for ${name}.`);
    }
    const end = at + sizeOf(shape) * STORED_BYTES[dtype];
    members.push([name, { dtype, shape, data_offsets: [at, end] }]);
    at = end;
  }
  const json = new TextEncoder().encode(
    `{${members.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`).join(',')}}`,
  );
  const length = Math.ceil(json.length / ALIGNMENT) * ALIGNMENT;
  const out = new Uint8Array(8 + length).fill(0x20);
  new DataView(out.buffer).setBigUint64(0, BigInt(length), true);
  out.set(json, 8);
  return out;
}

function toBytes({ name, dtype, shape }: TensorEntry, values: StoredArray): Uint8Array {
  if (values.length !== sizeOf(shape)) {
    throw new ShapeError(
      `encodeSafetensors: expected ${sizeOf(shape)} elements for ${name} ${showShape(shape)}, got ${values.length}.`,
    );
  }
  const stored = toStored(dtype, values);
  if (!stored) {
    throw new DTypeError(
      `encodeSafetensors: expected an array for ${dtype} in ${name}, got ${values.constructor.name}. Convert it first.`,
    );
  }
  return new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength);
}

function toStored(dtype: StoredDType, values: StoredArray): StoredArray | BigInt64Array | null {
  if (dtype === 'F16' || dtype === 'BF16') {
    if (values instanceof Float32Array) return narrow(values, dtype === 'F16' ? 'f16' : 'bf16');
    return values instanceof Uint16Array ? values : null;
  }
  if (dtype === 'I64') {
    if (!(values instanceof Float64Array) || !values.every(Number.isSafeInteger)) return null;
    return BigInt64Array.from(values, BigInt);
  }
  const type = { F64: Float64Array, F32: Float32Array, I32: Int32Array, U8: Uint8Array }[dtype];
  return values instanceof type ? values : null;
}
