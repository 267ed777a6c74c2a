/** Reads one entry of a zip archive as a stream, stored or deflated. The archive's directory: io/zip.ts. */
import { Readable } from 'node:stream';
import { createInflateRaw } from 'node:zlib';
import type { ByteSource } from '../base/source.ts';
import { readZipDirectory, zipDamaged, zipEntryStart } from '../io/zip.ts';

const CHUNK_BYTES = 1 << 20;

/** The bytes of the entry `name`. Throws FormatError for archives that are cut, damaged or lack it. */
export async function* unzipEntry(source: ByteSource, name: string): AsyncGenerator<Uint8Array> {
  const directory = await readZipDirectory(source);
  const entry = directory.get(name);
  if (!entry) {
    const names = [...directory.keys()].join(', ') || 'no entries';
    throw zipDamaged(source, `only ${names} and not ${name}`, source.sizeBytes);
  }
  const start = await zipEntryStart(source, entry);
  const compressed = readChunks(source, start, start + entry.compressedBytes);
  if (entry.method === 0) {
    yield* compressed;
    return;
  }
  if (entry.method !== 8) throw zipDamaged(source, `compression method ${entry.method}`, entry.headerOffset);
  const inflate = createInflateRaw();
  const input = Readable.from(compressed);
  input.on('error', (error) => inflate.destroy(error));
  try {
    for await (const chunk of input.pipe(inflate) as AsyncIterable<Uint8Array>) yield chunk;
  } catch (error) {
    if (String((error as { code?: unknown }).code).startsWith('Z_'))
      throw zipDamaged(source, 'damaged data', start, error);
    throw error;
  } finally {
    input.destroy();
  }
}

async function* readChunks(source: ByteSource, start: number, end: number): AsyncGenerator<Uint8Array> {
  for (let at = start; at < end; at += CHUNK_BYTES) yield source.read(at, Math.min(at + CHUNK_BYTES, end));
}
