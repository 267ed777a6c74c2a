/**
 * pytorch_model.bin, read lazily and without executing anything: the zip container of torch 1.6 and later,
 * and the one before it (five pickles, then the storages in a row). Opening proves that every tensor lies
 * inside the file. Source: torch/serialization.py.
 */
import { FormatError, UnsupportedError } from '../base/errors.ts';
import { type Shape, showShape, sizeOf, stridesOf } from '../base/shape.ts';
import type { ByteSource } from '../base/source.ts';
import { type PickleOptions, readPickle } from './pickle.ts';
import { STORED_BYTES, type TensorFile, type TensorInfo, tensorFile } from './tensor-file.ts';
import {
  stateDict,
  storageCollector,
  TORCH_GLOBALS,
  type TorchStorage,
  type TorchTensor,
} from './torch-state.ts';
import { readZipDirectory, type ZipEntry, zipEntryStart } from './zip.ts';

/** A pickle takes about 100 bytes per tensor. */
const MAX_PICKLE_BYTES = 1 << 23;
const ZIP_MAGIC = Uint8Array.of(0x50, 0x4b, 0x03, 0x04);
/** A pickle of the number 0x1950a86a20f9469cfc6c. */
const LEGACY_MAGIC = Uint8Array.of(
  0x80,
  2,
  0x8a,
  10,
  0x6c,
  0xfc,
  0x9c,
  0x46,
  0xf9,
  0x20,
  0x6a,
  0xa8,
  0x50,
  0x19,
  0x2e,
);
const LEGACY_PROTOCOL = 1001;
const AGAIN = 'The file is damaged or incomplete: download or save it again.';

/** Whether the first bytes of a file are those of one of the two containers. */
export async function isTorchBin(source: ByteSource): Promise<boolean> {
  const start = await source.read(0, Math.min(source.sizeBytes, LEGACY_MAGIC.length));
  return startsWith(start, ZIP_MAGIC) || startsWith(start, LEGACY_MAGIC);
}

/**
 * Opens a state dict of tensors. Throws FormatError for damaged files, UnsupportedError for a pickle that
 * wants to import anything but the few names a state dict needs; both with file and byte.
 */
export async function openTorchBin(source: ByteSource): Promise<TensorFile> {
  const start = await source.read(0, Math.min(source.sizeBytes, LEGACY_MAGIC.length));
  const { tensors, places } = startsWith(start, LEGACY_MAGIC)
    ? await readLegacy(source)
    : await readZip(source);
  return tensorFile(source, locate(source, tensors, places), {});
}

interface Contents {
  tensors: Map<string, TorchTensor>;
  /** First byte of each storage; all its bytes are in the file. */
  places: ReadonlyMap<string, number>;
}

function startsWith(bytes: Uint8Array, magic: Uint8Array): boolean {
  return magic.every((byte, i) => bytes[i] === byte);
}

function damaged(source: ByteSource, problem: string, byte: number): FormatError {
  return new FormatError(`openTorchBin: ${problem} (${source.name}, byte ${byte}). ${AGAIN}`);
}

async function readZip(source: ByteSource): Promise<Contents> {
  const entries = await readZipDirectory(source);
  const path = [...entries.keys()].find((name) => name === 'data.pkl' || name.endsWith('/data.pkl'));
  if (path === undefined) {
    throw new FormatError(
      `openTorchBin: expected an entry data.pkl in ${source.name}, got ${entries.size} others. Is it a file of torch.save?`,
    );
  }
  const prefix = path.slice(0, -'data.pkl'.length);
  const byteorder = entries.get(`${prefix}byteorder`);
  if (byteorder) await checkByteOrder(source, byteorder);
  const pickle = entries.get(path)!;
  const offset = await storedEntry(source, pickle);
  if (pickle.sizeBytes > MAX_PICKLE_BYTES)
    throw damaged(
      source,
      `expected a pickle of at most ${MAX_PICKLE_BYTES} bytes, got ${pickle.sizeBytes}`,
      offset,
    );
  const { storages, persistent } = storageCollector();
  const bytes = await source.read(offset, offset + pickle.sizeBytes);
  const { value } = readPickle(bytes, { name: source.name, offset, globals: TORCH_GLOBALS, persistent });
  const places = new Map<string, number>();
  for (const storage of storages.values()) {
    const entry = entries.get(`${prefix}data/${storage.key}`);
    if (!entry) throw damaged(source, `expected an entry ${prefix}data/${storage.key}, got none`, offset);
    const place = await storedEntry(source, entry);
    if (entry.sizeBytes !== bytesOf(storage))
      throw damaged(
        source,
        `storage ${storage.key}: expected ${bytesOf(storage)} bytes, got ${entry.sizeBytes}`,
        place,
      );
    places.set(storage.key, place);
  }
  return { tensors: stateDict(value, source.name), places };
}

async function checkByteOrder(source: ByteSource, entry: ZipEntry): Promise<void> {
  const start = await storedEntry(source, entry);
  const text = new TextDecoder().decode(await source.read(start, start + Math.min(entry.sizeBytes, 16)));
  if (text !== 'little') throw bigEndian(source, text);
}

function bigEndian(source: ByteSource, got: string): UnsupportedError {
  return new UnsupportedError(
    `openTorchBin: expected little-endian numbers in ${source.name}, got byte order ${JSON.stringify(got)}. Save it on another machine.`,
  );
}

/** The first byte of an entry that is stored as it is. */
async function storedEntry(source: ByteSource, entry: ZipEntry): Promise<number> {
  if (entry.method !== 0 || entry.compressedBytes !== entry.sizeBytes) {
    const got = `method ${entry.method}, ${entry.compressedBytes} bytes for ${entry.sizeBytes}`;
    throw damaged(
      source,
      `expected ${entry.name} to be stored without compression, got ${got}`,
      entry.headerOffset,
    );
  }
  return zipEntryStart(source, entry);
}

function bytesOf({ count, dtype }: TorchStorage): number {
  return count * STORED_BYTES[dtype];
}

async function readLegacy(source: ByteSource): Promise<Contents> {
  const head = await source.read(0, Math.min(source.sizeBytes, MAX_PICKLE_BYTES));
  const { storages, persistent } = storageCollector();
  let at = LEGACY_MAGIC.length;
  const next = (options: Pick<PickleOptions, 'globals' | 'persistent'>): unknown => {
    const { value, end } = readPickle(head.subarray(at), { name: source.name, offset: at, ...options });
    at += end;
    return value;
  };
  const none = { globals: new Map() };
  const protocol = next(none);
  if (protocol !== LEGACY_PROTOCOL)
    throw damaged(
      source,
      `expected protocol ${LEGACY_PROTOCOL}, got ${String(protocol)}`,
      LEGACY_MAGIC.length,
    );
  const system = next(none);
  if (system instanceof Map && system.get('little_endian') === false) throw bigEndian(source, 'big');
  const state = next({ globals: TORCH_GLOBALS, persistent });
  const listed = at;
  const keys = next(none);
  if (!Array.isArray(keys) || new Set(keys).size !== keys.length || keys.length !== storages.size)
    throw damaged(source, `expected a list of the ${storages.size} storages`, listed);
  const places = new Map<string, number>();
  for (const key of keys as unknown[]) {
    const storage = storages.get(String(key));
    if (!storage) throw damaged(source, 'expected the storages of the tensors, got another one', listed);
    const end = at + 8 + bytesOf(storage);
    if (end > source.sizeBytes)
      throw damaged(
        source,
        `storage ${storage.key}: expected to end at byte ${end}, got ${source.sizeBytes}`,
        at,
      );
    const prefix = await source.read(at, at + 8);
    const count = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigInt64(0, true);
    if (count !== BigInt(storage.count))
      throw damaged(source, `storage ${storage.key}: expected ${storage.count} elements, got ${count}`, at);
    places.set(storage.key, at + 8);
    at = end;
  }
  if (at !== source.sizeBytes)
    throw damaged(source, `expected the end of the file, got ${source.sizeBytes - at} more bytes`, at);
  return { tensors: stateDict(state, source.name), places };
}

/** Tensors that are the same part of the same storage (tied weights) share one TensorInfo. */
function locate(
  source: ByteSource,
  tensors: ReadonlyMap<string, TorchTensor>,
  places: ReadonlyMap<string, number>,
): Map<string, TensorInfo> {
  const shared = new Map<string, TensorInfo>();
  const infos = new Map<string, TensorInfo>();
  for (const [name, { storage, offset, shape, strides, span }] of tensors) {
    const { dtype } = storage;
    const start = places.get(storage.key)! + offset * STORED_BYTES[dtype];
    // Strides of 0 make much of little; what is larger than the file was not saved as a weight.
    if (sizeOf(shape) * STORED_BYTES[dtype] > source.sizeBytes)
      throw damaged(
        source,
        `tensor ${name}: expected at most the bytes of the file, got ${showShape(shape)}`,
        start,
      );
    const end = start + span * STORED_BYTES[dtype];
    const layout = isRowMajor(shape, strides) ? {} : { strides };
    const key = `${storage.key} ${offset} ${shape} ${strides}`;
    const info = shared.get(key) ?? { dtype, shape, start, end, ...layout };
    shared.set(key, info);
    infos.set(name, info);
  }
  return infos;
}

function isRowMajor(shape: Shape, strides: readonly number[]): boolean {
  const full = stridesOf(shape);
  return shape.includes(0) || shape.every((extent, axis) => extent === 1 || strides[axis] === full[axis]);
}
