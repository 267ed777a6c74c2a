/**
 * Opens a corpus: finds the files, encodes them once, keeps the ids in the token cache and reads them from
 * there. A single text file under the byte tokenizer is its own token file and is used in place.
 */
import { createHash } from 'node:crypto';
import { basename, join } from 'node:path';
import { ConfigError, FormatError } from '../base/errors.ts';
import type { Tokenizer } from '../base/tokenizer.ts';
import { FileError, fileSource } from '../io/file.ts';
import { cacheFolder, type EncodedPiece, openTokenCache, writeTokenCache } from './corpus-cache.node.ts';
import { readChunks, readDocuments } from './corpus-documents.node.ts';
import { type CorpusFile, listCorpusFiles } from './corpus-files.node.ts';
import { bytesPerTokenOf, packIds, pagedTokens } from './data-paged.ts';
import { checkIds, type TokenData } from './data-tokens.ts';

export interface CorpusProgress {
  /**
   * `hash`: reading the files for the cache key; `encode`: building the cache;
   * `verify`: checking an existing one.
   */
  phase: 'hash' | 'encode' | 'verify';
  doneBytes: number;
  /** 0 if unknown. */
  totalBytes: number;
}

export interface CorpusOptions {
  tokenizer: Tokenizer;
  /** The field of a JSONL line that holds the text. Default `text`. */
  textField?: string;
  /** Default: `cacheFolder()`/tokens. */
  tokenFolder?: string;
  onProgress?: (progress: CorpusProgress) => void;
}

/**
 * The tokens of files, folders and globs (or of byte ranges of files). A text file is a document, a JSONL
 * line is one. Each document ends in the tokenizer's end-of-text id; a tokenizer without one (bytes) gets a
 * line break between documents instead, unless there is one. Empty documents are skipped.
 *
 * The cache is keyed by the contents of the files and the tokenizer, so it survives moves and notices edits;
 * a damaged one is built anew. Throws ConfigError for paths without files or without text, FormatError for
 * bad JSONL lines, FileError for what cannot be read or written.
 */
export async function openCorpus(
  sources: readonly (string | CorpusFile)[],
  options: CorpusOptions,
): Promise<TokenData> {
  const { tokenizer, textField = 'text' } = options;
  const files = await listCorpusFiles(sources);
  const name =
    files.length === 1
      ? basename(files[0]!.path)
      : `${basename(files[0]!.path)} and ${files.length - 1} more`;
  if (files.every((file) => file.endBytes === file.startBytes)) throw emptyCorpus(name);
  const fingerprint = await hashCorpus(files, tokenizer, textField, options.onProgress);
  const only = files.length === 1 ? files[0]! : null;
  if (only !== null && only.kind === 'text' && tokenizer.kind === 'bytes') {
    return openInPlace(only, name, fingerprint);
  }
  const bytesPerToken = bytesPerTokenOf(tokenizer.vocabSize);
  const expected = { name, fingerprint, vocabSize: tokenizer.vocabSize, bytesPerToken };
  const path = join(options.tokenFolder ?? join(cacheFolder(), 'tokens'), `${fingerprint}.tokens`);
  const found = await openTokenCache(path, expected, counter('verify', 0, options.onProgress)).catch(
    (error) => {
      if (error instanceof FormatError || error instanceof FileError) return null; // damaged or not there: build it
      throw error;
    },
  );
  if (found !== null) return found;
  await writeTokenCache(
    path,
    bytesPerToken,
    encodeFiles(files, name, bytesPerToken, { ...options, textField }),
  );
  return openTokenCache(path, expected);
}

async function openInPlace(file: CorpusFile, name: string, fingerprint: string): Promise<TokenData> {
  const source = await fileSource(file.path);
  const { startBytes, endBytes } = file;
  const range = {
    ...source,
    sizeBytes: endBytes - startBytes,
    read: (start: number, end: number) => source.read(startBytes + start, startBytes + end),
  };
  return pagedTokens(range, { name, fingerprint, vocabSize: 256, bytesPerToken: 1, count: range.sizeBytes });
}

/** Everything that decides the ids: contents, order and kind of the files, the tokenizer, the text field. */
async function hashCorpus(
  files: readonly CorpusFile[],
  tokenizer: Tokenizer,
  textField: string,
  onProgress?: (progress: CorpusProgress) => void,
): Promise<string> {
  const hash = createHash('sha256');
  hash.update(
    JSON.stringify([
      1,
      textField,
      tokenizer.kind,
      tokenizer.eosId,
      Object.entries(tokenizer.toFiles()).sort(),
    ]),
  );
  const count = counter('hash', totalBytes(files), onProgress);
  for (const file of files) {
    hash.update(`\n${file.kind} ${file.endBytes - file.startBytes}\n`);
    for await (const chunk of readChunks(file, count)) hash.update(chunk);
  }
  return hash.digest('hex').slice(0, 40);
}

async function* encodeFiles(
  files: readonly CorpusFile[],
  name: string,
  bytesPerToken: 1 | 2 | 4,
  { tokenizer, textField, onProgress }: CorpusOptions & { textField: string },
): AsyncGenerator<EncodedPiece> {
  const raw = tokenizer.kind === 'bytes';
  const lineBreak = tokenizer.eosId === null ? tokenizer.encode('\n') : [];
  const count = counter('encode', totalBytes(files), onProgress);
  let total = 0;
  let last = -1; // the last id so far
  let inDocument = false;
  const pack = (ids: ArrayLike<number>): Uint8Array => {
    checkIds(ids, tokenizer.vocabSize, name, total);
    total += ids.length;
    if (ids.length > 0) last = ids[ids.length - 1]!;
    return packIds(ids, bytesPerToken);
  };
  for (const file of files) {
    for await (const piece of readDocuments(file, { textField, raw, onProgress: count })) {
      if (piece === null) {
        if (inDocument && tokenizer.eosId !== null) yield { ids: pack([tokenizer.eosId]) };
        inDocument = false;
        continue;
      }
      const ids = typeof piece === 'string' ? tokenizer.encode(piece) : piece;
      if (ids.length === 0) continue;
      if (inDocument) {
        yield { ids: pack(ids) };
        continue;
      }
      if (total > 0 && lineBreak.length > 0 && last !== lineBreak.at(-1)) yield { ids: pack(lineBreak) };
      inDocument = true;
      const documentStart = total;
      yield { ids: pack(ids), documentStart };
    }
  }
  if (total === 0) throw emptyCorpus(name);
}

function emptyCorpus(name: string): ConfigError {
  return new ConfigError(
    `data: expected text, got only empty documents in ${name}. Check the files and the text field.`,
  );
}

function totalBytes(files: readonly CorpusFile[]): number {
  return files.reduce((sum, file) => sum + file.endBytes - file.startBytes, 0);
}

function counter(
  phase: CorpusProgress['phase'],
  total: number,
  onProgress?: (progress: CorpusProgress) => void,
): (bytes: number) => void {
  let doneBytes = 0;
  return (bytes) => {
    doneBytes += bytes;
    onProgress?.({ phase, doneBytes, totalBytes: total });
  };
}
