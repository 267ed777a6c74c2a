/**
 * The Large Movie Review Dataset: 25,000 reviews to train and 25,000 to test on, half positive, half
 * negative. The archive is fetched from its authors' page, kept in the cache folder, and read as it is,
 * without unpacking. Source: A. L. Maas et al., "Learning Word Vectors for Sentiment Analysis" (ACL 2011),
 * https://ai.stanford.edu/~amaas/data/sentiment/.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline, Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { FormatError } from '../base/errors.ts';
import { type DownloadOptions, downloadFile } from '../io/download.node.ts';
import { errorCode, fileError, isPresent, makeFolder } from '../io/file.ts';
import { DownloadError, type RequestOptions } from '../io/http.node.ts';
import { cacheFolder } from './corpus-cache.node.ts';
import type { Example } from './examples.ts';
import { ExampleCollector } from './examples-collect.ts';
import { readClassFolders } from './examples-folder.node.ts';
import { decodeText } from './examples-text.node.ts';

const URL = 'https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz';
const MD5 = '7c2ac02c03563afcf9b574c7e56c153a';
const FOLDER = 'aclImdb';
const ARCHIVE = 'aclImdb_v1.tar.gz';
/** Texts to train on or test with; the reviews without label are no examples. */
const EXAMPLE = /^(?:\.\/)?aclImdb\/(train|test)\/(pos|neg)\/[^/]+\.txt$/;
/** The longest review has 14 kB. */
const MAX_REVIEW_BYTES = 1 << 24;

export interface ImdbOptions extends RequestOptions, Pick<DownloadOptions, 'onProgress'> {
  /** Where the archive is kept. Default: `cacheFolder()`/imdb. */
  folder?: string;
  /** Another address of the archive. Default: MAMBA_IMDB_URL, else the official one. */
  url?: string;
  /** Of the archive. Default: the official one's, if it comes from the official address, else unchecked. */
  md5?: string;
  /** What each of the two parts must have. Default 25,000. */
  examplesPerPart?: number;
  onRead?: (examples: number) => void;
}

export interface Imdb {
  train: Example[];
  test: Example[];
}

/**
 * Both parts, labels `neg` and `pos`, ordered by path. A folder `aclImdb` or an archive `aclImdb_v1.tar.gz`
 * in the folder is used without network. Throws DownloadError that says which file to put where, FormatError
 * if it is not what it should be.
 */
export async function openImdb(options: ImdbOptions = {}): Promise<Imdb> {
  const folder = options.folder ?? join(cacheFolder(), 'imdb');
  const unpacked = join(folder, FOLDER);
  if (await isPresent(unpacked)) return checkCounts(await readUnpacked(unpacked, options), unpacked, options);
  const archive = join(folder, ARCHIVE);
  const isFetched = !(await isPresent(archive));
  if (isFetched) await fetchArchive(archive, folder, options);
  try {
    return checkCounts(await readArchive(archive, options), archive, options);
  } catch (error) {
    if (isFetched && error instanceof FormatError) await rm(archive, { force: true }); // of no use
    throw error;
  }
}

function collectors({ onRead }: ImdbOptions): Record<'train' | 'test', ExampleCollector> {
  const fields = { textFields: ['text'], labelField: 'label', isLabelled: true };
  const train = new ExampleCollector(fields, onRead);
  return { train, test: new ExampleCollector(fields, (examples) => onRead?.(train.records + examples)) };
}

async function readUnpacked(folder: string, options: ImdbOptions): Promise<Imdb> {
  const { train, test } = collectors(options);
  await readClassFolders(join(folder, 'train'), train);
  await readClassFolders(join(folder, 'test'), test);
  return { train: train.finish(), test: test.finish() };
}

async function readArchive(archive: string, options: ImdbOptions): Promise<Imdb> {
  const { createTarDecoder } = await import('modern-tar');
  const parts = collectors(options);
  const gunzip = createGunzip({ chunkSize: 1 << 18 });
  pipeline(createReadStream(archive), gunzip, () => {}); // an error shows where the result is read
  const entries = (Readable.toWeb(gunzip) as ReadableStream<Uint8Array>).pipeThrough(
    createTarDecoder({ strict: true }),
  );
  try {
    for await (const { header, body } of entries as unknown as AsyncIterable<TarEntry>) {
      if (/^\/|(^|\/)\.\.(\/|$)/.test(header.name)) throw new Error(`a path that leads out: ${header.name}`);
      const [, part] = EXAMPLE.exec(header.name) ?? [];
      if (part === undefined || header.type !== 'file') {
        await body.cancel();
        continue;
      }
      const where = join(archive, header.name);
      if (header.size > MAX_REVIEW_BYTES) throw new Error(`${header.size} bytes in ${header.name}`);
      const bytes = new Uint8Array(await new Response(body).arrayBuffer());
      const label = header.name.includes('/pos/') ? 'pos' : 'neg';
      parts[part as 'train' | 'test'].addText(decodeText(bytes, where), label, where);
    }
  } catch (error) {
    if (error instanceof FormatError) throw error;
    const code = errorCode(error);
    if (code !== '' && !code.startsWith('Z_')) throw fileError('data', `a readable file ${archive}`, error);
    throw new FormatError(
      `${archive}: expected the whole archive of reviews, got: ${(error as Error).message}. ` +
        'Remove it if it is still there and fetch it again.',
      { cause: error },
    );
  }
  return { train: inOrder(parts.train.finish()), test: inOrder(parts.test.finish()) };
}

interface TarEntry {
  header: { name: string; size: number; type?: string };
  body: ReadableStream<Uint8Array>;
}

function inOrder(examples: Example[]): Example[] {
  return examples.sort((a, b) => (a.where < b.where ? -1 : 1));
}

function checkCounts(parts: Imdb, path: string, { examplesPerPart = 25_000 }: ImdbOptions): Imdb {
  const { train, test } = parts;
  if (train.length === examplesPerPart && test.length === examplesPerPart) return parts;
  throw new FormatError(
    `${path}: expected ${examplesPerPart} reviews to train and as many to test on, got ${train.length} and ${test.length}. ` +
      'Remove it if it is still there and fetch it again, or name your own folder as data.',
  );
}

async function fetchArchive(archive: string, folder: string, options: ImdbOptions): Promise<void> {
  const url = options.url ?? process.env.MAMBA_IMDB_URL ?? URL;
  const md5 = options.md5 ?? (url === URL ? MD5 : null);
  const check = async (part: string): Promise<void> => {
    if (md5 === null) return;
    const hash = createHash('md5');
    for await (const chunk of createReadStream(part)) hash.update(chunk as Uint8Array);
    const got = hash.digest('hex');
    if (got === md5) return;
    throw new FormatError(`${url}: expected an archive with the MD5 ${md5}, got ${got}. Try again later.`);
  };
  try {
    makeFolder(folder);
    await downloadFile(url, archive, { ...options, check });
  } catch (error) {
    if (!(error instanceof DownloadError)) throw error;
    throw new DownloadError(
      `${error.message} Without network: fetch ${URL} elsewhere and put it at ${archive} (MD5 ${MD5}), ` +
        `or what is in it at ${join(folder, FOLDER)}.`,
      { cause: error },
    );
  }
}
