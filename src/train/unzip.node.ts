/**
 * Reads one entry of a zip archive as a stream. Stored and deflated entries; no zip64, encryption or split archives.
 * Source: PKWARE APPNOTE 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16.
 */
import { Readable } from 'node:stream';
import { createInflateRaw } from 'node:zlib';
import { FormatError } from '../base/errors.ts';
import type { ByteSource } from '../base/source.ts';

const END_BYTES = 22;
const MAX_COMMENT_BYTES = 0xffff;
const CHUNK_BYTES = 1 << 20;

interface Entry {
  method: number;
  compressedBytes: number;
  headerOffset: number;
}

/** The bytes of the entry `name`. Throws FormatError for archives that are cut, damaged or lack it. */
export async function* unzipEntry(source: ByteSource, name: string): AsyncGenerator<Uint8Array> {
  const { method, compressedBytes, headerOffset } = await findEntry(source, name);
  const header = view(await readRange(source, headerOffset, headerOffset + 30));
  if (header.getUint32(0, true) !== 0x04034b50) throw damaged(source, 'no local header');
  const start = headerOffset + 30 + header.getUint16(26, true) + header.getUint16(28, true);
  const compressed = readChunks(source, start, start + compressedBytes);
  if (method === 0) {
    yield* compressed;
    return;
  }
  if (method !== 8) throw damaged(source, `compression method ${method}`);
  const inflate = createInflateRaw();
  const input = Readable.from(compressed);
  input.on('error', (error) => inflate.destroy(error));
  try {
    for await (const chunk of input.pipe(inflate) as AsyncIterable<Uint8Array>) yield chunk;
  } catch (error) {
    if (String((error as { code?: unknown }).code).startsWith('Z_'))
      throw damaged(source, 'damaged data', error);
    throw error;
  } finally {
    input.destroy();
  }
}

async function findEntry(source: ByteSource, name: string): Promise<Entry> {
  const tailStart = Math.max(0, source.sizeBytes - END_BYTES - MAX_COMMENT_BYTES);
  const tail = view(await source.read(tailStart, source.sizeBytes));
  let end = tail.byteLength - END_BYTES;
  while (end >= 0 && tail.getUint32(end, true) !== 0x06054b50) end--;
  if (end < 0) throw damaged(source, 'no directory at its end');
  const sizeBytes = tail.getUint32(end + 12, true);
  const offset = tail.getUint32(end + 16, true);
  const directory = view(await readRange(source, offset, offset + sizeBytes));
  const names: string[] = [];
  for (let at = 0; at + 46 <= sizeBytes; ) {
    if (directory.getUint32(at, true) !== 0x02014b50) throw damaged(source, 'a damaged directory');
    const nameBytes = directory.getUint16(at + 28, true);
    if (at + 46 + nameBytes > sizeBytes) throw damaged(source, 'a damaged directory');
    const entryName = new TextDecoder().decode(
      new Uint8Array(directory.buffer, directory.byteOffset + at + 46, nameBytes),
    );
    if (entryName === name) {
      return {
        method: directory.getUint16(at + 10, true),
        compressedBytes: directory.getUint32(at + 20, true),
        headerOffset: directory.getUint32(at + 42, true),
      };
    }
    names.push(entryName);
    at += 46 + nameBytes + directory.getUint16(at + 30, true) + directory.getUint16(at + 32, true);
  }
  throw damaged(source, `only ${names.join(', ') || 'no entries'} and not ${name}`);
}

async function* readChunks(source: ByteSource, start: number, end: number): AsyncGenerator<Uint8Array> {
  for (let at = start; at < end; at += CHUNK_BYTES) {
    yield await readRange(source, at, Math.min(at + CHUNK_BYTES, end));
  }
}

async function readRange(source: ByteSource, start: number, end: number): Promise<Uint8Array> {
  if (end > source.sizeBytes)
    throw damaged(source, `an entry that ends at byte ${end} of ${source.sizeBytes}`);
  return source.read(start, end);
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function damaged(source: ByteSource, got: string, cause?: unknown): FormatError {
  return new FormatError(
    `${source.name}: expected a whole zip archive, got ${got}. Remove it if it is still there and fetch it again.`,
    {
      cause,
    },
  );
}
