/**
 * enwik8: the first 100,000,000 bytes of an English Wikipedia dump, the usual benchmark of byte-level models.
 * Fetched from its author's page, checked, unpacked and cached; the first 90 million bytes are for training,
 * the next 5 for validation, the last 5 for testing. Source: Matt Mahoney,
 * http://mattmahoney.net/dc/textdata.html.
 */
import { createHash } from 'node:crypto';
import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { FormatError } from '../base/errors.ts';
import { type DownloadOptions, downloadFile } from '../io/download.node.ts';
import { FileError, fileSource, makeFolder, writeFileAtomic } from '../io/file.ts';
import { DownloadError, type RequestOptions } from '../io/http.node.ts';
import { cacheFolder } from './corpus-cache.node.ts';
import { readChunks } from './corpus-documents.node.ts';
import type { CorpusFile } from './corpus-files.node.ts';
import { unzipEntry } from './unzip.node.ts';

const URL = 'http://mattmahoney.net/dc/enwik8.zip';
const ENTRY = 'enwik8';

export interface Enwik8Options extends RequestOptions, Pick<DownloadOptions, 'onProgress'> {
  /** Where `enwik8` is kept. Default: `cacheFolder()`/enwik8. */
  folder?: string;
  /** Another address of the archive. Default: MAMBA_ENWIK8_URL, else the official one. */
  url?: string;
  /** What the unpacked file must be. Defaults: 100,000,000 bytes and the official SHA-1. */
  sizeBytes?: number;
  sha1?: string;
}

export interface Enwik8 {
  train: CorpusFile;
  valid: CorpusFile;
  test: CorpusFile;
}

/**
 * The three parts, for openCorpus. A file `enwik8` or `enwik8.zip` in the folder is used without network.
 * Throws DownloadError that says which file to put where, FormatError if a file is not what it should be.
 */
export async function openEnwik8(options: Enwik8Options = {}): Promise<Enwik8> {
  const sizeBytes = options.sizeBytes ?? 100_000_000;
  const sha1 = options.sha1 ?? '57b8363b814821dc9d47aa4d41f58733519076b2';
  const folder = options.folder ?? join(cacheFolder(), 'enwik8');
  const path = join(folder, ENTRY);
  const archive = `${path}.zip`;
  const content = { sizeBytes, sha1 };

  if (await isFile(path)) await checkContent(path, content);
  else if (await isFile(archive)) await unpack(archive, path, content);
  else {
    await fetchArchive(archive, folder, content, options);
    try {
      await unpack(archive, path, content);
    } finally {
      await rm(archive, { force: true }); // unpacked, or of no use
    }
  }
  const train = Math.floor(sizeBytes * 0.9);
  const valid = Math.floor(sizeBytes * 0.95);
  const part = (startBytes: number, endBytes: number): CorpusFile => ({
    path,
    kind: 'text',
    startBytes,
    endBytes,
  });
  return { train: part(0, train), valid: part(train, valid), test: part(valid, sizeBytes) };
}

interface Content {
  sizeBytes: number;
  sha1: string;
}

async function fetchArchive(
  archive: string,
  folder: string,
  content: Content,
  options: Enwik8Options,
): Promise<void> {
  const url = options.url ?? process.env.MAMBA_ENWIK8_URL ?? URL;
  try {
    makeFolder(folder);
    await downloadFile(url, archive, options);
  } catch (error) {
    if (!(error instanceof DownloadError)) throw error;
    throw new DownloadError(
      `${error.message} Without network: fetch ${URL} elsewhere and put it at ${archive}, ` +
        `or its content (${content.sizeBytes} bytes, SHA-1 ${content.sha1}) at ${join(folder, ENTRY)}.`,
      { cause: error },
    );
  }
}

async function unpack(archive: string, path: string, content: Content): Promise<void> {
  const source = await fileSource(archive);
  try {
    await writeFileAtomic(path, checked(unzipEntry(source, ENTRY), archive, content));
  } finally {
    await source.close();
  }
}

async function checkContent(path: string, content: Content): Promise<void> {
  const { size } = await stat(path);
  for await (const _ of checked(readChunks({ path, startBytes: 0, endBytes: size }), path, content));
}

/**
 * Passes the bytes on and throws at the end, or when there are too many, if they are not the expected ones.
 */
async function* checked(
  chunks: AsyncIterable<Uint8Array>,
  name: string,
  { sizeBytes, sha1 }: Content,
): AsyncGenerator<Uint8Array> {
  const hash = createHash('sha1');
  let size = 0;
  const fail = (got: string): never => {
    throw new FormatError(
      `${name}: expected enwik8 (${sizeBytes} bytes, SHA-1 ${sha1}), got ${got}. Remove it if it is still there and fetch it again.`,
    );
  };
  for await (const chunk of chunks) {
    size += chunk.length;
    if (size > sizeBytes) fail(`more than ${sizeBytes} bytes`);
    hash.update(chunk);
    yield chunk;
  }
  const digest = hash.digest('hex');
  if (size !== sizeBytes || digest !== sha1) fail(`${size} bytes, SHA-1 ${digest}`);
}

async function isFile(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => null);
  if (found === null || found.isFile()) return found !== null;
  throw new FileError(`enwik8: expected a file at ${path}, got something else. Move it away.`);
}
