/**
 * safetensors, read lazily and checked fully: the header is proven consistent before any tensor is read, so a
 * damaged or lying file ends in one FormatError that names file, tensor and byte, never in wrong numbers.
 * Layout: u64 header length, JSON header { name: { dtype, shape, data_offsets } }, then the data without
 * holes. All numbers are little-endian, as on every machine this library runs on.
 */
import { FormatError } from '../base/errors.ts';
import { showShape, sizeOf } from '../base/shape.ts';
import type { ByteSource } from '../base/source.ts';
import { isObject, type Json, kindOf, parseJson } from './json.ts';
import {
  STORED_BYTES,
  type StoredDType,
  type TensorFile,
  type TensorInfo,
  tensorFile,
} from './tensor-file.ts';

/** The reference implementation refuses larger headers too. */
const MAX_HEADER_BYTES = 100_000_000;
/** Braces in a header, one a tensor; the largest models have some thousands. */
const MAX_OBJECTS = 1 << 14;
const PREFIX_BYTES = 8;
const AGAIN = 'The file is damaged or incomplete: download or save it again.';

/** Reads and checks the header. Throws FormatError for anything the format does not allow. */
export async function openSafetensors(source: ByteSource): Promise<TensorFile> {
  const { text, dataStart } = await readHeader(source);
  const encoder = new TextEncoder();
  const header = parseJson(text, source.name, {
    where: (position) => `byte ${PREFIX_BYTES + encoder.encode(text.slice(0, position)).length}`,
  });
  if (!isObject(header)) {
    throw damaged(source.name, `expected a header object, got ${kindOf(header)}`, PREFIX_BYTES);
  }
  const { __metadata__, ...entries } = header;
  const metadata = readMetadata(source.name, __metadata__);
  const tensors = new Map<string, TensorInfo>();
  for (const [tensor, entry] of Object.entries(entries)) {
    tensors.set(tensor, readEntry(source, dataStart, tensor, entry));
  }
  checkCoverage(source, dataStart, tensors);
  return tensorFile(source, tensors, metadata);
}

function damaged(file: string, problem: string, byte: number, remedy = AGAIN): FormatError {
  return new FormatError(`openSafetensors: ${problem} (${file}, byte ${byte}). ${remedy}`);
}

async function readHeader(source: ByteSource): Promise<{ text: string; dataStart: number }> {
  const { name, sizeBytes } = source;
  if (sizeBytes < PREFIX_BYTES + 2) {
    throw damaged(name, `expected at least ${PREFIX_BYTES + 2} bytes, got a file of ${sizeBytes}`, 0);
  }
  const prefix = await source.read(0, PREFIX_BYTES);
  const length = Number(new DataView(prefix.buffer, prefix.byteOffset, PREFIX_BYTES).getBigUint64(0, true));
  if (length > MAX_HEADER_BYTES) {
    const remedy = 'This is not a safetensors file, or its first bytes are damaged.';
    throw damaged(
      name,
      `expected a header of at most ${MAX_HEADER_BYTES} bytes, got length ${length}`,
      0,
      remedy,
    );
  }
  if (length > sizeBytes - PREFIX_BYTES) {
    throw damaged(name, `expected a header of ${length} bytes, got a file of ${sizeBytes} bytes`, 0);
  }
  const bytes = await source.read(PREFIX_BYTES, PREFIX_BYTES + length);
  if (bytes[0] !== 0x7b) throw damaged(name, 'expected the header to start with "{"', PREFIX_BYTES);
  // Counted before parsing: an entry of 60 bytes becomes more than a kilobyte of objects.
  let objects = 0;
  for (const byte of bytes) if (byte === 0x7b) objects++;
  if (objects > MAX_OBJECTS) {
    const remedy = 'This is not a model of ours.';
    throw damaged(name, `expected at most ${MAX_OBJECTS} tensors, got ${objects}`, PREFIX_BYTES, remedy);
  }
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    return { text, dataStart: PREFIX_BYTES + length };
  } catch {
    throw damaged(name, 'expected a header in UTF-8, got other bytes', PREFIX_BYTES);
  }
}

function readMetadata(file: string, value: Json | undefined): Record<string, string> {
  if (value === undefined) return {};
  if (!isObject(value)) {
    throw damaged(file, `expected __metadata__ to be an object, got ${kindOf(value)}`, PREFIX_BYTES);
  }
  return Object.fromEntries(
    Object.entries(value).map(([key, text]) => {
      if (typeof text === 'string') return [key, text];
      throw damaged(file, `expected __metadata__.${key} to be a string, got ${kindOf(text)}`, PREFIX_BYTES);
    }),
  );
}

function isCount(value: Json | undefined): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function isStoredDType(value: Json | undefined): value is StoredDType {
  return typeof value === 'string' && Object.hasOwn(STORED_BYTES, value);
}

function readEntry(source: ByteSource, dataStart: number, tensor: string, entry: Json): TensorInfo {
  const fail = (expected: string, got: Json | undefined, byte = PREFIX_BYTES, remedy = AGAIN): never => {
    const shown = typeof got === 'string' ? got : JSON.stringify(got);
    throw damaged(source.name, `tensor ${tensor}: expected ${expected}, got ${shown}`, byte, remedy);
  };
  if (!isObject(entry)) return fail('an object with dtype, shape and data_offsets', entry);
  const { dtype, shape, data_offsets: offsets } = entry;
  if (!isStoredDType(dtype)) {
    const remedy = 'Convert the tensor to one of these types.';
    return fail(`dtype ${Object.keys(STORED_BYTES).join(', ')}`, dtype, PREFIX_BYTES, remedy);
  }
  if (!Array.isArray(shape) || !shape.every(isCount)) return fail('a shape of integers >= 0', shape);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    return fail('data_offsets of two integers >= 0', offsets);
  }
  const [start, end] = [dataStart + offsets[0]!, dataStart + offsets[1]!];
  if (start > end || end > source.sizeBytes) {
    return fail(`data_offsets inside the ${source.sizeBytes - dataStart} data bytes`, offsets, start);
  }
  const sizeBytes = sizeOf(shape) * STORED_BYTES[dtype];
  if (sizeBytes !== end - start) {
    return fail(`${sizeBytes} bytes for ${dtype} ${showShape(shape)}`, `${end - start} bytes`, start);
  }
  return { dtype, shape, start, end };
}

/** The tensors must cover the data exactly: no byte twice, none left over. */
function checkCoverage(source: ByteSource, dataStart: number, tensors: Map<string, TensorInfo>): void {
  let [end, previous] = [dataStart, 'the header'];
  const sorted = [...tensors].sort(([, a], [, b]) => a.start - b.start || a.end - b.end);
  for (const [tensor, info] of sorted) {
    if (info.start !== end) {
      const got = info.start < end ? `an overlap of ${end - info.start}` : `a hole of ${info.start - end}`;
      throw damaged(
        source.name,
        `tensor ${tensor}: expected to start after ${previous}, got ${got} bytes`,
        info.start,
      );
    }
    [end, previous] = [info.end, `tensor ${tensor}`];
  }
  if (end !== source.sizeBytes) {
    const rest = source.sizeBytes - end;
    throw damaged(source.name, `expected the file to end after ${previous}, got ${rest} more bytes`, end);
  }
}
