/**
 * Writing GGUF version 3 in pieces: the header is computed from shapes alone, then each tensor is asked for
 * piece by piece, so a file much larger than memory can be written. Layout: gguf-header.ts.
 */
import { LAYOUTS, storageBytes } from '../base/dtype.ts';
import { ConfigError, ShapeError } from '../base/errors.ts';
import { type Shape, showShape, sizeOf } from '../base/shape.ts';
import type { WeightDType } from '../base/weight-types.ts';

export interface GgufEntry {
  name: string;
  /** Rows (the last axis) are whole blocks of the type. */
  dtype: WeightDType;
  /** Row-major. */
  shape: Shape;
  /** As stored, in any pieces. Called when the tensor is written. */
  bytes: () => AsyncIterable<Uint8Array>;
}

/** A metadata value with its type: GGUF tells 1 (u32) from 1 (f32). */
export type GgufField =
  | { type: 'u32' | 'f32'; value: number }
  | { type: 'bool'; value: boolean }
  | { type: 'string'; value: string }
  | { type: 'strings'; value: readonly string[] }
  | { type: 'i32s' | 'f32s'; value: readonly number[] };

/** The number of each type in the file. */
const TYPE_IDS: Readonly<Record<WeightDType, number>> = { f32: 0, f16: 1, q4: 2, q8: 8, bf16: 30 };
const ALIGNMENT = 32;

/** The bytes of a file, piece by piece; use each before asking for the next. */
export async function* ggufChunks(
  metadata: ReadonlyMap<string, GgufField>,
  entries: readonly GgufEntry[],
): AsyncGenerator<Uint8Array> {
  yield encodeHeader(metadata, entries);
  for (const { name, dtype, shape, bytes } of entries) {
    const sizeBytes = storageBytes(dtype, sizeOf(shape));
    let written = 0;
    for await (const piece of bytes()) {
      written += piece.length;
      yield piece;
    }
    if (written !== sizeBytes) {
      throw new ShapeError(
        `writeGguf: expected ${sizeBytes} bytes for ${name} ${showShape(shape)} in ${dtype}, got ${written}.`,
      );
    }
    const rest = -sizeBytes & (ALIGNMENT - 1);
    if (rest > 0) yield new Uint8Array(rest);
  }
}

function encodeHeader(metadata: ReadonlyMap<string, GgufField>, entries: readonly GgufEntry[]): Uint8Array {
  const out = new Bytes();
  out.text('GGUF');
  out.u32(3);
  out.u64(entries.length);
  out.u64(metadata.size);
  for (const [key, field] of metadata) {
    out.string(key);
    putField(out, field);
  }
  const seen = new Set<string>();
  let offset = 0;
  for (const { name, dtype, shape } of entries) {
    if (seen.has(name)) {
      throw new ConfigError(`writeGguf: expected every name once, got ${name} again. Rename the tensor.`);
    }
    seen.add(name);
    const { block } = LAYOUTS[dtype];
    if (shape.length > 4 || (shape.at(-1) ?? 1) % block !== 0) {
      const expected = `at most 4 axes and rows of whole blocks of ${block} for ${dtype}`;
      throw new ShapeError(`writeGguf: expected ${expected}, got ${showShape(shape)} for ${name}.`);
    }
    out.string(name);
    out.u32(shape.length);
    for (const extent of [...shape].reverse()) out.u64(extent);
    out.u32(TYPE_IDS[dtype]);
    out.u64(offset);
    offset += Math.ceil(storageBytes(dtype, sizeOf(shape)) / ALIGNMENT) * ALIGNMENT;
  }
  return out.padded(ALIGNMENT);
}

const [U32, I32, F32, BOOL, STRING, ARRAY] = [4, 5, 6, 7, 8, 9];

function putField(out: Bytes, field: GgufField): void {
  switch (field.type) {
    case 'strings':
      out.array(STRING, field.value.length);
      for (const text of field.value) out.string(text);
      return;
    case 'i32s':
      out.array(I32, field.value.length);
      for (const x of field.value) out.u32(x);
      return;
    case 'f32s':
      out.array(F32, field.value.length);
      for (const x of field.value) out.f32(x);
      return;
    case 'string':
      out.u32(STRING);
      out.string(field.value);
      return;
    case 'bool':
      out.u32(BOOL);
      out.u8(field.value ? 1 : 0);
      return;
    case 'f32':
      out.u32(F32);
      out.f32(field.value);
      return;
    case 'u32':
      out.u32(U32);
      out.u32(field.value);
      return;
  }
}

/** A growing buffer. */
class Bytes {
  #view = new DataView(new ArrayBuffer(1 << 16));
  #length = 0;
  readonly #encoder = new TextEncoder();

  #grow(bytes: number): number {
    const at = this.#length;
    this.#length += bytes;
    if (this.#length > this.#view.byteLength) {
      const larger = new Uint8Array(2 * this.#length);
      larger.set(new Uint8Array(this.#view.buffer, 0, at));
      this.#view = new DataView(larger.buffer);
    }
    return at;
  }

  u8(value: number): void {
    const at = this.#grow(1);
    this.#view.setUint8(at, value);
  }

  /** Also i32: the low 32 bits. */
  u32(value: number): void {
    const at = this.#grow(4);
    this.#view.setUint32(at, value, true);
  }

  f32(value: number): void {
    const at = this.#grow(4);
    this.#view.setFloat32(at, value, true);
  }

  u64(value: number): void {
    const at = this.#grow(8);
    this.#view.setBigUint64(at, BigInt(value), true);
  }

  text(text: string): number {
    const bytes = this.#encoder.encode(text);
    const at = this.#grow(bytes.length);
    new Uint8Array(this.#view.buffer).set(bytes, at);
    return bytes.length;
  }

  string(text: string): void {
    const at = this.#grow(8);
    const length = this.text(text);
    this.#view.setBigUint64(at, BigInt(length), true);
  }

  array(type: number, count: number): void {
    this.u32(ARRAY);
    this.u32(type);
    this.u64(count);
  }

  padded(alignment: number): Uint8Array {
    const rest = -this.#length & (alignment - 1);
    this.#grow(rest);
    return new Uint8Array(this.#view.buffer, 0, this.#length);
  }
}
