/** Text files as strict UTF-8, in pieces or lines: what is not UTF-8 is named with its line and byte. */
import { readFileSync } from 'node:fs';
import { FormatError } from '../base/errors.ts';
import { fileError } from '../io/file.ts';
import { readChunks } from './corpus-documents.node.ts';

/** A line longer than this is no line of a data set. */
const MAX_LINE_CHARS = 1 << 26;

/** Decodes a file piece by piece. A UTF-8 byte order mark is left out. */
export class TextDecoding {
  readonly #path: string;
  readonly #decoder = new TextDecoder('utf-8', { fatal: true });
  #offset = 0;
  #line = 1;
  #tail = new Uint8Array(0); // the last bytes of the piece before: a character may go on in the next

  constructor(path: string) {
    this.#path = path;
  }

  push(bytes: Uint8Array): string {
    if (this.#offset === 0 && isUtf16(bytes)) this.#fail('a byte order mark of UTF-16', bytes, 0);
    const zero = bytes.indexOf(0);
    if (zero >= 0) this.#fail('a NUL byte', bytes, zero);
    let text: string;
    try {
      text = this.#decoder.decode(bytes, { stream: true });
    } catch {
      const at = this.#firstBad(bytes);
      const byte = at < 0 ? this.#tail.at(at)! : bytes[at]!;
      return this.#fail(`the byte 0x${byte.toString(16).padStart(2, '0')}`, bytes, at);
    }
    this.#offset += bytes.length;
    this.#line += countLines(bytes, bytes.length);
    if (bytes.length > 0) this.#tail = bytes.slice(-3);
    return text;
  }

  end(): void {
    try {
      this.#decoder.decode();
    } catch {
      this.#fail('the end within a character', new Uint8Array(0), 0);
    }
  }

  /** Where the character begins at which a strict decoder stops; negative: in the piece before. */
  #firstBad(bytes: Uint8Array): number {
    const lead = this.#tail.findIndex((byte) => (byte & 0xc0) !== 0x80); // before it: ends of whole characters
    const carried = lead < 0 ? new Uint8Array(0) : this.#tail.subarray(lead);
    const all = Buffer.concat([carried, bytes]);
    let good = 0;
    let bad = all.length;
    while (bad - good > 1) {
      const middle = (good + bad) >> 1;
      try {
        new TextDecoder('utf-8', { fatal: true }).decode(all.subarray(0, middle), { stream: true });
        good = middle;
      } catch {
        bad = middle;
      }
    }
    // What was good so far may end within a character: its first byte is the one that is out of place.
    for (let start = good - 1; start >= Math.max(0, good - 3); start--) {
      if ((all[start]! & 0xc0) === 0x80) continue;
      const needed = all[start]! >= 0xf0 ? 4 : all[start]! >= 0xe0 ? 3 : all[start]! >= 0xc0 ? 2 : 1;
      if (start + needed > good) good = start;
      break;
    }
    return good - carried.length;
  }

  #fail(got: string, bytes: Uint8Array, at: number): never {
    const line = this.#line + countLines(bytes, at);
    throw new FormatError(
      `${this.#path}:${line}: expected UTF-8, got ${got} (byte ${this.#offset + at} of the file). Save it as UTF-8.`,
    );
  }
}

function isUtf16(bytes: Uint8Array): boolean {
  const [a, b] = bytes;
  return (a === 0xff && b === 0xfe) || (a === 0xfe && b === 0xff);
}

function countLines(bytes: Uint8Array, end: number): number {
  let count = 0;
  for (let at = bytes.indexOf(10); at >= 0 && at < end; at = bytes.indexOf(10, at + 1)) count++;
  return count;
}

/** The text of a file in pieces of about 1 MB. */
export async function* textPieces(path: string): AsyncGenerator<string> {
  const decoding = new TextDecoding(path);
  for await (const chunk of readChunks({ path, startBytes: 0, endBytes: Number.POSITIVE_INFINITY })) {
    const text = decoding.push(chunk);
    if (text !== '') yield text;
  }
  decoding.end();
}

/** The lines of a file that are not blank, with their numbers from 1. */
export async function* textLines(path: string): AsyncGenerator<{ text: string; number: number }> {
  let rest = '';
  let number = 0;
  for await (const piece of textPieces(path)) {
    const lines = piece.split('\n');
    lines[0] = rest + lines[0]!;
    rest = lines.pop()!;
    for (const text of lines) {
      number++;
      if (text.trim() !== '') yield { text, number };
    }
    if (rest.length > MAX_LINE_CHARS) {
      throw new FormatError(
        `${path}:${number + 1}: expected a line of at most ${MAX_LINE_CHARS} characters, got more. Is it a text file?`,
      );
    }
  }
  if (rest.trim() !== '') yield { text: rest, number: number + 1 };
}

/** A whole text from its bytes. */
export function decodeText(bytes: Uint8Array, path: string): string {
  const decoding = new TextDecoding(path);
  const text = decoding.push(bytes);
  decoding.end();
  return text;
}

/**
 * A file that is one text, read at once: of fifty thousand small files most of
 * the time would go into waiting.
 */
export function readWholeText(path: string): string {
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    throw fileError('data', `a readable file ${path}`, error);
  }
  return decodeText(bytes, path);
}
