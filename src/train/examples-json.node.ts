/** Examples from JSON: one object per line, or a whole array of objects. */
import { FormatError } from '../base/errors.ts';
import { parseJson } from '../io/json.ts';
import type { ExampleCollector } from './examples-collect.ts';
import { textLines, textPieces } from './examples-text.node.ts';

/** Above it an array is no longer read whole: a JavaScript string has an end. */
const MAX_ARRAY_CHARS = 1 << 28;

/** `.jsonl`, `.ndjson`: every line that is not blank is an object. */
export async function readJsonLines(path: string, collector: ExampleCollector): Promise<void> {
  const first = collector.records;
  for await (const { text, number } of textLines(path)) {
    const where = `${path}:${number}`;
    const value = parse(text, where);
    if (value instanceof FormatError) collector.problem('a line that is not JSON', where);
    else if (!isRecord(value)) collector.problem('a JSON value that is not an object', where);
    else addRecord(value, where, collector.records === first, collector);
  }
}

/** `.json`: an array of objects; a file that begins with an object is read line by line. */
export async function readJsonArray(path: string, collector: ExampleCollector): Promise<void> {
  const pieces: string[] = [];
  let isArray: boolean | null = null;
  let chars = 0;
  for await (const piece of textPieces(path)) {
    isArray ??= piece.trim() === '' ? null : piece.trimStart().startsWith('[');
    if (isArray === false) return readJsonLines(path, collector);
    pieces.push(piece);
    chars += piece.length;
    if (chars > MAX_ARRAY_CHARS) {
      throw new FormatError(
        `${path}: expected an array of at most ${MAX_ARRAY_CHARS} characters, got more. Save it as JSON lines (.jsonl).`,
      );
    }
  }
  if (isArray === null) return;
  const value = parse(pieces.join(''), path);
  if (value instanceof FormatError) throw value;
  for (const [i, item] of (value as unknown[]).entries()) {
    if (isRecord(item)) addRecord(item, `${path}[${i}]`, i === 0, collector);
    else collector.problem('a JSON value that is not an object', `${path}[${i}]`);
  }
}

/**
 * Missing fields of the first record mean that other names were meant, of a later one that it is incomplete.
 */
function addRecord(
  record: Record<string, unknown>,
  where: string,
  isFirst: boolean,
  collector: ExampleCollector,
): void {
  if (isFirst) collector.expectColumns(Object.keys(record), where);
  collector.add(where, (column) => (Object.hasOwn(record, column) ? record[column] : undefined));
}

/** Fast for JSON; the slower parser knows NaN and names the place. */
function parse(text: string, where: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    try {
      return parseJson(text, where);
    } catch (error) {
      if (error instanceof FormatError) return error;
      throw error;
    }
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
