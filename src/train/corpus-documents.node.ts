/**
 * The documents of a corpus file as a stream of pieces, in constant memory: a text file is one document, in a
 * JSONL file every line is one. Pieces of text end where no tokenizer would join words across.
 */
import { createReadStream } from 'node:fs';
import { FormatError } from '../base/errors.ts';
import { fileError } from '../io/file.ts';
import type { CorpusFile } from './corpus-files.node.ts';

/** A piece of a document, or null at the end of one. */
export type DocumentPiece = string | Uint8Array | null;

export interface ReadDocumentsOptions {
  /** The field of a JSONL line that holds the text. */
  textField: string;
  /** Text files as raw bytes, for byte tokenizers; else as UTF-8 with U+FFFD for what is not. */
  raw: boolean;
  onProgress?: (bytes: number) => void;
}

/** Throws FormatError with `file:line` for a JSONL line that is not UTF-8, not JSON or has no text. */
export async function* readDocuments(
  file: CorpusFile,
  options: ReadDocumentsOptions,
): AsyncGenerator<DocumentPiece> {
  const chunks = readChunks(file, options.onProgress);
  if (file.kind === 'jsonl') {
    for await (const text of readLines(chunks, file.path, options.textField)) {
      yield* cutText(text);
      yield null;
    }
    return;
  }
  if (options.raw) yield* chunks;
  else yield* decodeText(chunks);
  yield null;
}

/** The bytes of a file or range, in order. */
export async function* readChunks(
  file: Pick<CorpusFile, 'path' | 'startBytes' | 'endBytes'>,
  onProgress?: (bytes: number) => void,
): AsyncGenerator<Uint8Array> {
  if (file.endBytes === file.startBytes) return;
  try {
    const range = { start: file.startBytes, end: file.endBytes - 1, highWaterMark: 1 << 20 };
    for await (const chunk of createReadStream(file.path, range) as AsyncIterable<Uint8Array>) {
      onProgress?.(chunk.length);
      yield chunk;
    }
  } catch (error) {
    throw fileError('data', `a readable file ${file.path}`, error);
  }
}

/** Enough to encode at once, little enough for flat memory. */
const PIECE_CHARS = 1 << 16;

async function* decodeText(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  let rest = '';
  for await (const chunk of chunks) rest = yield* cutLong(rest + decoder.decode(chunk, { stream: true }));
  yield* cutText(rest + decoder.decode());
}

function* cutText(text: string): Generator<string> {
  const rest = yield* cutLong(text);
  if (rest.length > 0) yield rest;
}

/** Yields pieces as long as plenty of text is left; returns what is left. */
function* cutLong(text: string): Generator<string, string> {
  let rest = text;
  while (rest.length > 2 * PIECE_CHARS) {
    const cut = cutPosition(rest);
    yield rest.slice(0, cut);
    rest = rest.slice(cut);
  }
  return rest;
}

/**
 * Where to cut a long text: behind a single line break, else before a single space, both between visible
 * characters. GPT-2's pattern and its successors split there anyway, so the ids are those of the whole text.
 * A text without any such place is cut between two characters, and tokenizers that put a space before every
 * text put one there: one token in 65,536 characters.
 */
function cutPosition(text: string): number {
  for (const [pattern, offset] of [
    [/\S\n\S/g, 2],
    [/\S \S/g, 1],
  ] as const) {
    pattern.lastIndex = PIECE_CHARS;
    const found = pattern.exec(text);
    if (found) return found.index + offset;
  }
  const isLowSurrogate = (text.charCodeAt(PIECE_CHARS) & 0xfc00) === 0xdc00;
  return PIECE_CHARS + (isLowSurrogate ? 1 : 0);
}

async function* readLines(
  chunks: AsyncIterable<Uint8Array>,
  path: string,
  textField: string,
): AsyncGenerator<string> {
  let parts: Uint8Array[] = [];
  let number = 0;
  for await (const chunk of chunks) {
    let start = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      parts.push(chunk.subarray(start, end));
      const text = parseLine(parts, path, ++number, textField);
      if (text !== null) yield text;
      parts = [];
      start = end + 1;
    }
    if (start < chunk.length) parts.push(chunk.subarray(start));
  }
  const text = parseLine(parts, path, number + 1, textField);
  if (text !== null) yield text;
}

/** The text of a line; null for an empty one. */
function parseLine(parts: Uint8Array[], path: string, number: number, textField: string): string | null {
  const fail = (got: string, cause?: unknown): never => {
    throw new FormatError(
      `${path}:${number}: expected a JSON object with text in "${textField}", got ${got}. ` +
        'Correct the line or name another text field.',
      { cause },
    );
  };
  let line: string;
  try {
    line = new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(parts));
  } catch (cause) {
    return fail('bytes that are not UTF-8', cause);
  }
  if (line.trim() === '') return null;
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    return fail(`${line.slice(0, 20).trim()}... (${(cause as Error).message})`, cause);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return fail('another JSON value');
  const text = (value as Record<string, unknown>)[textField];
  if (typeof text === 'string') return text;
  const keys = Object.keys(value).join(', ') || 'none';
  return fail(text === undefined ? `the fields ${keys}` : `a field of type ${typeof text}`);
}
