/** What a torch file is packed in: checksums, and numbers beyond 32 bits, without files of such a size. */
import { describe, expect, test } from 'vitest';
import { type ByteSource, memorySource } from '../../src/base/source.ts';
import { readZipDirectory, zipEntryStart } from '../../src/io/zip.ts';
import { crc32, localHeader, type WrittenEntry, zipChunks, zipDirectory } from '../../src/io/zip-write.ts';

/** CRC-32 as it is defined: a division of polynomials, bit by bit. */
function dividedBitwise(bytes: Uint8Array): number {
  let rest = 0xffffffff;
  for (const byte of bytes) {
    rest ^= byte;
    for (let bit = 0; bit < 8; bit++) rest = rest & 1 ? (rest >>> 1) ^ 0xedb88320 : rest >>> 1;
  }
  return (rest ^ 0xffffffff) >>> 0;
}

describe('checksums', () => {
  test('the known one', () => expect(crc32(new TextEncoder().encode('123456789'))).toBe(0xcbf43926));

  test('of any length, at any address, in any pieces', () => {
    const bytes = Uint8Array.from({ length: 64 }, (_, i) => (i * i * 37 + 11) & 255);
    for (let start = 0; start < 5; start++) {
      for (let end = start; end <= 32; end++) {
        const expected = dividedBitwise(bytes.subarray(start, end));
        expect(crc32(bytes.subarray(start, end))).toBe(expected);
        const cut = (start + end) >> 1;
        expect(crc32(bytes.subarray(cut, end), crc32(bytes.subarray(start, cut)))).toBe(expected);
      }
    }
  });
});

/** A file of any size that is zeros but for some stretches. */
function sparse(sizeBytes: number, stretches: readonly [at: number, bytes: Uint8Array][]): ByteSource {
  return {
    ...memorySource(new Uint8Array(0), 'sparse.zip'),
    sizeBytes,
    read: async (start, end) => {
      const out = new Uint8Array(end - start);
      for (const [at, bytes] of stretches) {
        const [from, to] = [Math.max(start, at), Math.min(end, at + bytes.length)];
        if (from < to) out.set(bytes.subarray(from - at, to - at), from - start);
      }
      return out;
    },
  };
}

const LIMIT = 2 ** 32 - 1;

describe.each([
  ['the last sizes of 32 bits', LIMIT - 1, 0],
  ['an entry of 4 GiB', LIMIT, 64],
  ['one of 6 GiB behind another', 6 * 2 ** 30 + 2, 2 ** 32 - 128],
  ['a small one behind 2^40 bytes', 7, 2 ** 40 + 9],
])('%s', (_, sizeBytes, headerOffset) => {
  test('is read as it was written, and starts at a multiple of 64', async () => {
    const entry: WrittenEntry = { name: 'a/ö', sizeBytes, checksum: 0x89abcdef, headerOffset };
    const header = localHeader(entry.name, sizeBytes, headerOffset);
    expect((headerOffset + header.length) % 64).toBe(0);
    const end = headerOffset + header.length + sizeBytes + 24;
    const directory = zipDirectory([entry], end);
    const source = sparse(end + directory.length, [
      [headerOffset, header],
      [end, directory],
    ]);
    const [read, ...others] = (await readZipDirectory(source)).values();
    expect(others).toEqual([]);
    expect(read).toEqual({ name: 'a/ö', method: 0, compressedBytes: sizeBytes, sizeBytes, headerOffset });
    expect(await zipEntryStart(source, read!)).toBe(headerOffset + header.length);
  });
});

test('more entries than 16 bits count', async () => {
  const entries = Array.from({ length: 70_000 }, (_, i) => ({
    name: `${i}`,
    sizeBytes: i,
    checksum: 0,
    headerOffset: 0,
  }));
  const read = await readZipDirectory(memorySource(zipDirectory(entries, 0)));
  expect(read.size).toBe(70_000);
  expect(read.get('69999')?.sizeBytes).toBe(69_999);
});

test('the sizes behind a content have 64 bits where those before it have', async () => {
  // Of 4 GiB only the header is written here; the descriptor of a small entry is the other form.
  const wide = localHeader('w', LIMIT, 0);
  const view = new DataView(wide.buffer);
  expect([view.getUint32(18, true), view.getUint32(22, true)]).toEqual([LIMIT, LIMIT]);
  expect(view.getUint16(31, true)).toBe(1); // the extra field with 64-bit sizes
  expect(view.getBigUint64(35, true)).toBe(BigInt(LIMIT));
  const chunks: Uint8Array[] = [];
  const content = new TextEncoder().encode('123456789');
  for await (const chunk of zipChunks([{ name: 'w', sizeBytes: 9, bytes: () => [content] }]))
    chunks.push(chunk);
  const [, , descriptor] = chunks;
  expect(descriptor).toEqual(new Uint8Array(Uint32Array.of(0x08074b50, 0xcbf43926, 9, 9).buffer));
});

test('a content of another size than was said', async () => {
  const chunks = zipChunks([{ name: 'w', sizeBytes: 9, bytes: () => [new Uint8Array(8)] }]);
  await expect(drain(chunks)).rejects.toThrow('expected 9 bytes for w, got 8');
});

async function drain(chunks: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const _ of chunks);
}
