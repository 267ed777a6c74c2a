/**
 * The header of a GGUF file, versions 2 and 3: metadata and the list of tensors. All counts, lengths and
 * offsets are checked against the size of the file before anything is reserved for them, so a lying file
 * costs no memory and ends in a FormatError with file and byte. Layout (little-endian):
 *   "GGUF" | u32 version | u64 tensors | u64 keys | keys x (string name, u32 type, value)
 *   | tensors x (string name, u32 rank, rank x u64 extent (fastest first), u32 type,
 *   u64 offset) | padding | data
 * A string is u64 length and UTF-8; an array is u32 type, u64 count, values. Source: ggml, docs/gguf.md.
 */
import type { FormatError } from '../base/errors.ts';
import type { ByteSource } from '../base/source.ts';
import { GgufCursor, type GgufValue } from './gguf-cursor.ts';
import { GGML_TYPES, type GgmlType } from './quants.ts';

export interface GgufTensor {
  readonly type: GgmlType;
  /** Row-major, slowest axis first: the file's extents in reverse. */
  readonly shape: readonly number[];
  /** The bytes [start, end) of the file. */
  readonly start: number;
  readonly end: number;
}

export interface GgufHeader {
  readonly version: number;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: ReadonlyMap<string, GgufTensor>;
}

const MAGIC = 0x46554747;
/** Far above any model, and low enough that the objects of a lying count stay in the megabytes. */
const MAX_ENTRIES = 65_536;
const MAX_RANK = 4;
const MAX_NAME_BYTES = 1024;
const MAX_KEY_BYTES = 65_535;
/** The shortest key: empty name, type, one byte. The shortest tensor: empty name, rank 0, type, offset. */
const LEAST_KEY_BYTES = 13;
const LEAST_TENSOR_BYTES = 24;
const DEFAULT_ALIGNMENT = 32;

const [STRING, ARRAY] = [8, 9];

/** Reads and checks everything before the tensor data. */
export async function readGgufHeader(source: ByteSource): Promise<GgufHeader> {
  const cursor = new GgufCursor(source);
  const magic = await cursor.u32('the letters GGUF');
  if (magic !== MAGIC) {
    throw cursor.damaged('the letters GGUF', `0x${magic.toString(16)}`, 0, 'This is not a GGUF file.');
  }
  const version = await cursor.u32('a version');
  if (version !== 2 && version !== 3) {
    const isSwapped = version === 0x02000000 || version === 0x03000000;
    const got = isSwapped ? 'a big-endian file' : `version ${version}`;
    throw cursor.damaged('GGUF version 2 or 3', got, 4, 'Convert the file again with a recent llama.cpp.');
  }
  const tensorCount = await cursor.count('tensors', LEAST_TENSOR_BYTES, MAX_ENTRIES);
  const keyCount = await cursor.count('metadata keys', LEAST_KEY_BYTES, MAX_ENTRIES);
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < keyCount; i++) {
    const at = cursor.at;
    const key = await cursor.string('a metadata key', MAX_KEY_BYTES);
    if (metadata.has(key)) throw cursor.damaged('every metadata key once', `${key} again`, at);
    metadata.set(key, await readValue(cursor, key));
  }
  const alignment = metadata.get('general.alignment') ?? DEFAULT_ALIGNMENT;
  if (
    typeof alignment !== 'number' ||
    !(alignment > 0) ||
    2 ** Math.round(Math.log2(alignment)) !== alignment
  ) {
    throw cursor.damaged('general.alignment to be a power of two', String(alignment), cursor.at);
  }
  const infos: Info[] = [];
  for (let i = 0; i < tensorCount; i++) infos.push(await readInfo(cursor, alignment));
  const dataStart = Math.ceil(cursor.at / alignment) * alignment;
  return { version, metadata, tensors: place(source, cursor, infos, dataStart) };
}

async function readValue(cursor: GgufCursor, key: string): Promise<GgufValue> {
  const at = cursor.at;
  const type = await cursor.u32(`the type of ${key}`);
  if (type === STRING) return cursor.string(`the text of ${key}`);
  if (type !== ARRAY) return cursor.scalar(type, key, at);
  const element = await cursor.u32(`the element type of ${key}`);
  if (element === ARRAY) throw cursor.damaged(`${key} to hold plain values`, 'arrays in an array', at);
  if (element !== STRING) return cursor.numbers(element, key, at);
  const count = await cursor.count(`texts in ${key}`, 8, Number.MAX_SAFE_INTEGER);
  const texts: string[] = [];
  for (let i = 0; i < count; i++) texts.push(await cursor.string(`text ${i} of ${key}`));
  return texts;
}

interface Info {
  name: string;
  type: GgmlType;
  shape: number[];
  sizeBytes: number;
  offset: number;
  /** Where the entry stands in the header. */
  at: number;
}

async function readInfo(cursor: GgufCursor, alignment: number): Promise<Info> {
  const at = cursor.at;
  const name = await cursor.string('the name of a tensor', MAX_NAME_BYTES);
  const fail = (expected: string, got: string | number): FormatError =>
    cursor.damaged(`tensor ${name}: ${expected}`, String(got), at);
  const rank = await cursor.u32(`the rank of ${name}`);
  if (rank > MAX_RANK) throw fail(`at most ${MAX_RANK} axes`, rank);
  const extents: number[] = [];
  let elements = 1;
  for (let axis = 0; axis < rank; axis++) {
    const extent = Number(await cursor.u64(`an extent of ${name}`));
    elements *= extent;
    if (extent < 1 || !Number.isSafeInteger(elements))
      throw fail('extents from 1 to a size below 2^53', extent);
    extents.push(extent);
  }
  const id = await cursor.u32(`the type of ${name}`);
  const type = GGML_TYPES.get(id);
  if (!type) throw fail('a known element type', `number ${id}`);
  if ((extents[0] ?? 1) % type.block !== 0) {
    throw fail(`rows of whole blocks of ${type.block} for ${type.name}`, extents[0] ?? 1);
  }
  const offset = Number(await cursor.u64(`the offset of ${name}`));
  if (offset % alignment !== 0) throw fail(`an offset that is a multiple of ${alignment}`, offset);
  return {
    name,
    type,
    shape: extents.reverse(),
    sizeBytes: (elements / type.block) * type.bytes,
    offset,
    at,
  };
}

/** Tensors must lie inside the file, apart from each other; gaps are allowed. */
function place(
  source: ByteSource,
  cursor: GgufCursor,
  infos: readonly Info[],
  dataStart: number,
): Map<string, GgufTensor> {
  const tensors = new Map<string, GgufTensor>();
  for (const { name, type, shape, sizeBytes, offset, at } of infos) {
    if (tensors.has(name)) throw cursor.damaged('every tensor once', `${name} again`, at);
    const start = dataStart + offset;
    const end = start + sizeBytes;
    if (!(end <= source.sizeBytes)) {
      const got = `bytes ${start}..${end} of ${source.sizeBytes}`;
      throw cursor.damaged(`tensor ${name} (${type.name}) inside the file`, got, at);
    }
    tensors.set(name, { type, shape, start, end });
  }
  let [end, before] = [dataStart, 'the header'];
  for (const [name, tensor] of [...tensors].sort(([, a], [, b]) => a.start - b.start)) {
    if (tensor.start < end) {
      throw cursor.damaged(
        `tensor ${name} behind ${before}`,
        `an overlap of ${end - tensor.start} bytes`,
        tensor.start,
      );
    }
    [end, before] = [tensor.end, name];
  }
  return tensors;
}
