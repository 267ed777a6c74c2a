/**
 * Looks through the pages of a Parquet column before they are decoded: sizes, counts and the lengths of
 * runs must fit together. The decoder trusts them, and a damaged run length would make it fill the
 * memory. Flat columns only. Layout: https://parquet.apache.org/docs/file-format/ (pages, RLE /
 * bit-packing hybrid, delta encodings).
 */
import type { ColumnMetaData, Compressors, SchemaElement } from 'hyparquet';
import { parquetHeader } from 'hyparquet/src/column.js';
import { decompressPage } from 'hyparquet/src/datapage.js';
import { readVarInt } from 'hyparquet/src/thrift.js';

const MAX_PAGE_BYTES = 1 << 30;

interface Reader {
  view: DataView;
  offset: number;
}

/**
 * `bytes` is the column chunk, from its first page on; `rows` what its row group has. Throws plain Errors.
 */
export function checkPages(
  bytes: ArrayBuffer,
  column: ColumnMetaData,
  element: SchemaElement,
  rows: number,
  compressors: Compressors,
): void {
  const reader = { view: new DataView(bytes), offset: 0 };
  const isNullable = element.repetition_type !== 'REQUIRED';
  for (let values = 0; values < rows; ) {
    const header = parquetHeader(reader);
    const stored = size(header.compressed_page_size, bytes.byteLength - reader.offset);
    const whole = size(header.uncompressed_page_size, MAX_PAGE_BYTES);
    const content = new Uint8Array(bytes, reader.offset, stored);
    reader.offset += stored;
    const unpack = (part: Uint8Array, length: number) =>
      readerOf(decompressPage(part, length, column.codec, compressors));
    const { data_page_header: v1, data_page_header_v2: v2, dictionary_page_header: dictionary } = header;
    if (header.type === 'DICTIONARY_PAGE' && dictionary) {
      size(dictionary.num_values, whole); // each takes a byte at least
    } else if (header.type === 'DATA_PAGE' && v1) {
      const count = size(v1.num_values, rows - values);
      const page = unpack(content, whole);
      const there = isNullable ? readLevels(page, page.view.getUint32(0, true), 4, count) : count;
      checkValues(page, v1.encoding, column.type, there);
      values += count;
    } else if (header.type === 'DATA_PAGE_V2' && v2) {
      const count = size(v2.num_values, rows - values);
      const levels = size(v2.definition_levels_byte_length, Math.min(stored, whole));
      if (v2.repetition_levels_byte_length !== 0) throw new Error('nested values');
      const there = isNullable ? readLevels(readerOf(content), levels, 0, count) : count;
      if (there !== count - v2.num_nulls) throw new Error(`${v2.num_nulls} empty values`);
      const rest = content.subarray(levels);
      const page = v2.is_compressed === false ? readerOf(rest) : unpack(rest, whole - levels);
      checkValues(page, v2.encoding, column.type, there);
      values += count;
    } else {
      throw new Error(`a page of type ${header.type}`);
    }
  }
}

function readerOf(bytes: Uint8Array): Reader {
  return { view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), offset: 0 };
}

function size(value: number, most: number): number {
  if (Number.isInteger(value) && value >= 0 && value <= most) return value;
  throw new Error(`a size of ${value} where at most ${most} fit`);
}

/** Of one bit per value: whether it is there. Returns how many are, and leaves the reader behind them. */
function readLevels(reader: Reader, lengthBytes: number, start: number, count: number): number {
  const end = start + size(lengthBytes, reader.view.byteLength - start);
  const levels = { view: new DataView(reader.view.buffer, reader.view.byteOffset, end), offset: start };
  const ones = checkRuns(levels, 1, count);
  reader.offset = end;
  return ones;
}

/** Walks through runs until they make `count` values; returns the number of ones, for a width of one bit. */
function checkRuns(reader: Reader, width: number, count: number): number {
  let ones = 0;
  for (let seen = 0; seen < count; ) {
    const header = readVarInt(reader);
    if (header & 1) {
      const groups = header >>> 1; // of eight values, `width` bytes each
      const bytes = Math.min(groups * width, reader.view.byteLength - reader.offset); // the last may be cut
      const values = Math.min(groups * 8, count - seen);
      if (groups === 0 || bytes * 8 < values * width) throw new Error('a cut run');
      if (width === 1) ones += countOnes(reader, values);
      reader.offset += bytes;
      seen += values;
    } else {
      const length = size(header >>> 1, count - seen);
      if (width === 1 && reader.view.getUint8(reader.offset) !== 0) ones += length;
      reader.offset += (width + 7) >> 3;
      seen += length;
    }
  }
  return ones;
}

function countOnes({ view, offset }: Reader, values: number): number {
  let ones = 0;
  for (let i = 0; i < values; i++) ones += (view.getUint8(offset + (i >> 3)) >> (i & 7)) & 1;
  return ones;
}

function checkValues(reader: Reader, encoding: string, type: string, count: number): void {
  if (encoding === 'PLAIN' || encoding === 'BYTE_STREAM_SPLIT') return;
  if (encoding === 'RLE_DICTIONARY' || encoding === 'PLAIN_DICTIONARY') {
    const width = size(reader.view.getUint8(reader.offset++), 32);
    if (width > 0) checkRuns(reader, width, count);
  } else if (encoding === 'RLE' && type === 'BOOLEAN') {
    readLevels(reader, reader.view.getUint32(reader.offset, true), reader.offset + 4, count);
  } else if (encoding === 'DELTA_BINARY_PACKED' || encoding === 'DELTA_LENGTH_BYTE_ARRAY') {
    const [block, parts, total] = [readVarInt(reader), readVarInt(reader), readVarInt(reader)];
    if (block <= 0 || parts <= 0 || block % 128 !== 0 || block % (parts * 32) !== 0 || total !== count)
      throw new Error('a damaged delta block');
  } else {
    throw new Error(`the encoding ${encoding}, which is not read here`);
  }
}
