/**
 * Examples from CSV and TSV. The first record names the columns; semicolons separate where it has them and no
 * comma, as Excel writes in many countries. A field that begins with a quote ends with the next single quote
 * and may hold separators and line breaks; "" in it stands for one quote. That holds for tabs as well as
 * commas. The syntax is papaparse's; line numbers, limits and checks are ours.
 */
import { FormatError } from '../base/errors.ts';
import type { ExampleCollector } from './examples-collect.ts';
import { textPieces } from './examples-text.node.ts';

/** A record longer than this (in characters) is most likely a quote that was never closed. */
const MAX_RECORD_CHARS = 1 << 24;

interface Row {
  fields: string[];
  hasBadQuotes: boolean;
}

/** Reads a file record by record; memory is that of a piece and of the examples. */
export async function readCsv(
  path: string,
  separator: ',' | '\t',
  collector: ExampleCollector,
): Promise<void> {
  const { default: papa } = await import('papaparse');
  let delimiter: string | null = null;
  let columns: string[] | null = null;
  let newline: '\n' | '\r' | null = null;
  let line = 1; // where the next record begins

  const take = ({ fields, hasBadQuotes }: Row): void => {
    const where = `${path}:${line}`;
    if (hasBadQuotes) throw badQuotes(where);
    for (const field of fields) line += field.split(newline!).length - 1;
    line++;
    const last = fields.length - 1;
    if (newline === '\n' && fields[last]!.endsWith('\r')) fields[last] = fields[last]!.slice(0, -1);
    if (fields.length === 1 && fields[0]!.trim() === '') return;
    if (columns === null) {
      columns = fields.map((name) => name.trim());
      collector.expectColumns(columns, where);
      return;
    }
    if (fields.length !== columns.length) {
      collector.problem(`other than ${columns.length} columns`, where);
      return;
    }
    const names = columns;
    const values = new Map(collector.columns.map((name) => [name, detached(fields[names.indexOf(name)]!)]));
    collector.add(where, (column) => values.get(column));
  };

  /** Takes all records of `text` but the last, which may go on; returns where that begins, and the record. */
  const takeWhole = (text: string): { start: number; last: Row | null } => {
    let start = 0;
    let end = 0;
    let last: Row | null = null;
    papa.parse<string[]>(text, {
      delimiter: delimiter!,
      newline: newline ?? '\n',
      step: ({ data, errors, meta }) => {
        if (last !== null) take(last);
        last = { fields: data, hasBadQuotes: errors.length > 0 };
        start = end;
        end = meta.cursor;
      },
    });
    return { start, last };
  };

  let rest = '';
  for await (const piece of textPieces(path)) {
    newline ??= piece.includes('\n') || !piece.includes('\r') ? '\n' : '\r';
    delimiter ??= separator === ',' && hasSemicolons(piece) ? ';' : separator;
    rest += piece;
    rest = rest.slice(takeWhole(rest).start);
    if (rest.length > MAX_RECORD_CHARS) throw tooLong(`${path}:${line}`);
  }
  const { last } = takeWhole(rest);
  if (last !== null) take(last);
}

/** Whether the names of the columns have semicolons between them, and no comma. */
function hasSemicolons(text: string): boolean {
  const [header = ''] = text.trimStart().split(/[\r\n]/, 1);
  const unquoted = header.replace(/"[^"]*"/g, '');
  return unquoted.includes(';') && !unquoted.includes(',');
}

/** A copy: what the parser gives is a slice, and would keep the whole piece of the file in memory. */
function detached(text: string): string {
  return Buffer.from(text).toString();
}

function badQuotes(where: string): FormatError {
  return new FormatError(
    `${where}: expected a quote at the end of each field that begins with one, got something else in this record. ` +
      'Close it; write "" for a quote inside, and put a field in quotes if it begins with one.',
  );
}

function tooLong(where: string): FormatError {
  return new FormatError(
    `${where}: expected a record of at most ${MAX_RECORD_CHARS} characters, got more. Is a quote not closed? Put longer texts in JSON lines.`,
  );
}
