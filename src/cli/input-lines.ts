/** Lines of the standard input as they arrive. */
import { Readable } from 'node:stream';
import { FormatError } from '../index.node.ts';
import type { CliIo } from './output.ts';

/** The lines of the input as they arrive, until its end or the signal. */
export async function* inputLines(stdin: CliIo['stdin'], signal: AbortSignal): AsyncGenerator<string> {
  const close = (): void => void (stdin instanceof Readable && stdin.destroy());
  signal.addEventListener('abort', close);
  try {
    for await (const lines of inputLineGroups(stdin)) yield* lines;
  } catch (error) {
    if (!signal.aborted) throw error; // else it was closed by us
  } finally {
    signal.removeEventListener('abort', close);
  }
}

/** The lines that arrived together, group by group. */
export async function* inputLineGroups(stdin: CliIo['stdin']): AsyncGenerator<string[]> {
  let rest = '';
  for await (const text of inputPieces(stdin)) {
    const lines = (rest + text).split(/\r?\n/);
    rest = lines.pop()!;
    if (lines.length > 0) yield lines;
  }
  if (rest !== '') yield [rest];
}

/** The input as text. Throws FormatError that names the line if it is not UTF-8. */
export async function* inputPieces(stdin: CliIo['stdin']): AsyncGenerator<string> {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  const lenient = new TextDecoder(); // shows where the other one stopped
  let line = 1;
  const decode = (bytes?: Uint8Array): string => {
    const options = { stream: bytes !== undefined };
    const shown = lenient.decode(bytes, options);
    try {
      return decoder.decode(bytes, options);
    } catch {
      const at = line + newlines(shown.slice(0, shown.indexOf('\ufffd')));
      throw new FormatError(
        `stdin:${at}: expected UTF-8, got other bytes. Convert it, for example with iconv.`,
      );
    }
  };
  for await (const chunk of stdin) {
    const text = typeof chunk === 'string' ? chunk : decode(chunk);
    line += newlines(text);
    yield text;
  }
  yield decode();
}

function newlines(text: string): number {
  return text.split('\n').length - 1;
}
