/**
 * The token cache: one file per corpus and tokenizer, named by a hash of both. Layout, all little-endian:
 *   ids of 1, 2 or 4 bytes from byte 0 on (a flat array for any other program); u64 starts of documents;
 *   a footer of 64 bytes: "MAMBATOK", u32 version, u32 bytes per token, u64 ids, u64
 *   documents, SHA-256 of all before.
 * The footer comes last and the file is renamed into place, so a half-written one is never taken for a whole.
 */
import { createHash } from 'node:crypto';
import { accessSync, constants } from 'node:fs';
import { homedir, tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { FormatError } from '../base/errors.ts';
import type { ByteSource } from '../base/source.ts';
import { fileSource, makeFolder, writeFileAtomic } from '../io/file.ts';
import { readChunks } from './corpus-documents.node.ts';
import { pagedTokens, START_BYTES } from './data-paged.ts';
import type { TokenData } from './data-tokens.ts';

const MAGIC = 'MAMBATOK';
const VERSION = 1;
const FOOTER_BYTES = 64;
const HASHED_FOOTER_BYTES = 32;

/**
 * Where downloads and token caches live: MAMBA_CACHE, else XDG_CACHE_HOME/mamba-ts, else
 * ~/.cache/mamba-ts; where that cannot be written (containers, read-only homes), a folder of this
 * user among the temporary files.
 */
export function cacheFolder(): string {
  const { MAMBA_CACHE, XDG_CACHE_HOME } = process.env;
  if (MAMBA_CACHE) return MAMBA_CACHE;
  const usual = join(XDG_CACHE_HOME || join(homedir(), '.cache'), 'mamba-ts');
  try {
    makeFolder(usual);
    accessSync(usual, constants.W_OK);
    return usual;
  } catch {
    return join(tmpdir(), `mamba-ts-cache-${userInfo().uid}`);
  }
}

/** What the encoder yields: packed ids, and where in the row of ids a document begins. */
export interface EncodedPiece {
  ids: Uint8Array;
  /** Position of the first id of this piece if a document begins there. */
  documentStart?: number;
}

/** Writes a cache file atomically. Keeps 8 bytes per document in memory while it does. */
export async function writeTokenCache(
  path: string,
  bytesPerToken: 1 | 2 | 4,
  pieces: AsyncIterable<EncodedPiece>,
): Promise<void> {
  async function* content(): AsyncGenerator<Uint8Array> {
    const hash = createHash('sha256');
    const starts: number[] = [];
    let idBytes = 0;
    for await (const { ids, documentStart } of pieces) {
      if (documentStart !== undefined) starts.push(documentStart);
      idBytes += ids.length;
      hash.update(ids);
      yield ids;
    }
    for (let first = 0; first < starts.length; first += 1 << 13) {
      const bytes = packStarts(starts.slice(first, first + (1 << 13)));
      hash.update(bytes);
      yield bytes;
    }
    const footer = Buffer.alloc(FOOTER_BYTES);
    footer.write(MAGIC, 'latin1');
    footer.writeUInt32LE(VERSION, 8);
    footer.writeUInt32LE(bytesPerToken, 12);
    footer.writeBigUInt64LE(BigInt(idBytes / bytesPerToken), 16);
    footer.writeBigUInt64LE(BigInt(starts.length), 24);
    hash.update(footer.subarray(0, HASHED_FOOTER_BYTES)).digest().copy(footer, HASHED_FOOTER_BYTES);
    yield footer;
  }
  await writeFileAtomic(path, content());
}

function packStarts(starts: readonly number[]): Uint8Array {
  const bytes = Buffer.alloc(starts.length * START_BYTES);
  for (const [i, start] of starts.entries()) bytes.writeBigUInt64LE(BigInt(start), i * START_BYTES);
  return bytes;
}

/**
 * Opens a cache file after checking every byte of it against its checksum. Throws FileError if there is none,
 * FormatError if it is cut or damaged.
 */
export async function openTokenCache(
  path: string,
  expected: { name: string; fingerprint: string; vocabSize: number; bytesPerToken: 1 | 2 | 4 },
  onProgress?: (bytes: number) => void,
): Promise<TokenData> {
  const source = await fileSource(path);
  try {
    const { count, documents } = await checkCache(source, expected.bytesPerToken, onProgress);
    const starts = { offsetBytes: count * expected.bytesPerToken, count: documents };
    return pagedTokens(source, { ...expected, count, starts });
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function checkCache(
  source: ByteSource,
  bytesPerToken: number,
  onProgress?: (bytes: number) => void,
): Promise<{ count: number; documents: number }> {
  const size = source.sizeBytes;
  const fail = (got: string): never => {
    throw new FormatError(`${source.name}: expected a whole token cache, got ${got}. Delete the file.`);
  };
  if (size < FOOTER_BYTES) return fail(`${size} bytes`);
  const footer = Buffer.from(await source.read(size - FOOTER_BYTES, size));
  if (footer.toString('latin1', 0, 8) !== MAGIC) return fail('no footer');
  if (footer.readUInt32LE(8) !== VERSION || footer.readUInt32LE(12) !== bytesPerToken)
    return fail('another format');
  const count = Number(footer.readBigUInt64LE(16));
  const documents = Number(footer.readBigUInt64LE(24));
  if (count * bytesPerToken + documents * START_BYTES + FOOTER_BYTES !== size) return fail(`${size} bytes`);
  const hash = createHash('sha256');
  const range = { path: source.name, startBytes: 0, endBytes: size - FOOTER_BYTES };
  for await (const chunk of readChunks(range, onProgress)) hash.update(chunk);
  const digest = hash.update(footer.subarray(0, HASHED_FOOTER_BYTES)).digest();
  if (!digest.equals(footer.subarray(HASHED_FOOTER_BYTES))) return fail('another checksum');
  return { count, documents };
}
