/**
 * Token data in a byte source of any size: ids of 1, 2 or 4 bytes, optionally with the starts of documents,
 * read through a page cache of fixed size, so that memory does not depend on the corpus.
 */
import { ConfigError } from '../base/errors.ts';
import type { ByteSource } from '../base/source.ts';
import { checkIds, type TokenData } from './data-tokens.ts';

const PAGE_BYTES = 1 << 16;
const MAX_PAGES = 256; // 16 MiB
export const START_BYTES = 8;

export interface PagedTokensOptions {
  name: string;
  fingerprint: string;
  vocabSize: number;
  /** Little-endian unsigned ids from byte 0 on. */
  bytesPerToken: 1 | 2 | 4;
  count: number;
  /** Where u64 little-endian positions of document starts lie, ascending. Default: one document. */
  starts?: { offsetBytes: number; count: number };
}

/** Takes over `source` and closes it with the data. */
export function pagedTokens(source: ByteSource, options: PagedTokensOptions): TokenData {
  const { name, vocabSize, bytesPerToken, count, starts } = options;
  const readBytes = pagedReader(source);

  const startAt = async (index: number): Promise<number> => {
    const offset = starts!.offsetBytes + index * START_BYTES;
    const bytes = await readBytes(offset, offset + START_BYTES);
    return Number(new DataView(bytes.buffer).getBigUint64(0, true));
  };

  /** The first document that begins at `position` or later. */
  const firstDocument = async (position: number): Promise<number> => {
    let low = 0;
    let high = starts!.count;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if ((await startAt(middle)) < position) low = middle + 1;
      else high = middle;
    }
    return low;
  };

  return {
    name,
    fingerprint: options.fingerprint,
    length: count,
    vocabSize,
    severalDocuments: starts !== undefined && starts.count > 1,
    read: async (start, end) => {
      if (!(start >= 0 && start <= end && end <= count)) {
        throw new ConfigError(
          `${name}: expected tokens within 0..${count}, got ${start}..${end}. Read inside the data.`,
        );
      }
      const ids = unpackIds(await readBytes(start * bytesPerToken, end * bytesPerToken), bytesPerToken);
      checkIds(ids, vocabSize, name, start);
      return ids;
    },
    documentStarts: async (start, end) => {
      if (starts === undefined) return start <= 0 && end > 0 ? [0] : [];
      const found: number[] = [];
      for (let i = await firstDocument(start); i < starts.count; i++) {
        const position = await startAt(i);
        if (position >= end) break;
        found.push(position);
      }
      return found;
    },
    close: () => source.close(),
  };
}

/** The narrowest width for a vocabulary. */
export function bytesPerTokenOf(vocabSize: number): 1 | 2 | 4 {
  if (vocabSize <= 2 ** 8) return 1;
  return vocabSize <= 2 ** 16 ? 2 : 4;
}

/** Little-endian ids of the given width; ids must fit. */
export function packIds(ids: ArrayLike<number>, bytesPerToken: 1 | 2 | 4): Uint8Array {
  if (bytesPerToken === 1) return Uint8Array.from(ids);
  const out = new Uint8Array(ids.length * bytesPerToken);
  for (let i = 0; i < ids.length; i++) {
    let rest = ids[i]!;
    for (let k = 0; k < bytesPerToken; k++, rest >>>= 8) out[i * bytesPerToken + k] = rest;
  }
  return out;
}

function unpackIds(bytes: Uint8Array, bytesPerToken: 1 | 2 | 4): Int32Array {
  if (bytesPerToken === 1) return Int32Array.from(bytes);
  const out = new Int32Array(bytes.length / bytesPerToken);
  for (let i = 0; i < out.length; i++) {
    let id = 0;
    for (let k = bytesPerToken - 1; k >= 0; k--) id = (id << 8) | bytes[i * bytesPerToken + k]!;
    out[i] = id;
  }
  return out;
}

/** Reads ranges by whole pages and keeps the pages used last; returns fresh arrays. */
function pagedReader(source: ByteSource): (start: number, end: number) => Promise<Uint8Array<ArrayBuffer>> {
  const pages = new Map<number, Uint8Array>(); // in order of use
  const page = async (index: number): Promise<Uint8Array> => {
    const start = index * PAGE_BYTES;
    const bytes =
      pages.get(index) ?? (await source.read(start, Math.min(start + PAGE_BYTES, source.sizeBytes)));
    pages.delete(index);
    pages.set(index, bytes);
    if (pages.size > MAX_PAGES) pages.delete(pages.keys().next().value!);
    return bytes;
  };
  return async (start, end) => {
    const out = new Uint8Array(end - start);
    for (let at = start; at < end; ) {
      const index = Math.floor(at / PAGE_BYTES);
      const bytes = await page(index);
      const from = at - index * PAGE_BYTES;
      const count = Math.min(bytes.length - from, end - at);
      out.set(bytes.subarray(from, from + count), at - start);
      at += count;
    }
    return out;
  };
}
