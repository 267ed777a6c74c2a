/** Lines of the standard input as they arrive. */
import { Readable } from 'node:stream';
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

/** The input as text, decoded from UTF-8. */
export async function* inputPieces(stdin: CliIo['stdin']): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  for await (const chunk of stdin)
    yield typeof chunk === 'string' ? chunk : decoder.decode(chunk, { stream: true });
  yield decoder.decode();
}
