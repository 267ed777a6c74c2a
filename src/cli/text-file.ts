/**
 * Texts from a file, one per line: plain lines, or JSONL with the text in a field. Empty lines do not count.
 */
import { FormatError, readText } from '../index.node.ts';

/** Throws FileError and FormatError, the latter with `file:line`. */
export async function readTexts(path: string, field: string): Promise<string[]> {
  const lines = (await readText(path)).split(/\r?\n/);
  const isJsonl = /\.(jsonl|ndjson)$/.test(path);
  const texts = lines.flatMap((line, i) => {
    if (line.trim() === '') return [];
    return [isJsonl ? fieldOf(line, field, `${path}:${i + 1}`) : line];
  });
  if (texts.length > 0) return texts;
  throw new FormatError(`${path}: expected at least one line of text, got none. Write one per line.`);
}

function fieldOf(line: string, field: string, where: string): string {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw new FormatError(`${where}: expected JSON, got a line that is none. Write one object per line.`, {
      cause,
    });
  }
  const text =
    typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[field] : value;
  if (typeof text === 'string') return text;
  throw new FormatError(
    `${where}: expected a JSON object with text in "${field}", got ${typeof text}. Add it.`,
  );
}
