/**
 * The texts that `predict` is asked about: arguments, files, or the lines of the
 * standard input as they arrive.
 */
import { FormatError, readExamples } from '../index.node.ts';
import { inputLineGroups } from './input-lines.ts';
import type { Output } from './output.ts';

export interface AskedText {
  text: string;
  /** `file:line` or `stdin:line`; null for an argument. */
  where: string | null;
}

/** Texts that are answered together: few enough that answers come soon, many enough to batch by length. */
const GROUP = 512;

export interface AskedSources {
  texts: readonly string[];
  data?: readonly string[];
  /** Columns of `data`. */
  text?: string[];
}

/**
 * In order. Throws FormatError for files as readExamples does, and when the standard
 * input has nothing but blank lines.
 */
export async function* askedTexts(
  { texts, data, text }: AskedSources,
  { io, log }: Pick<Output, 'io' | 'log'>,
): AsyncGenerator<AskedText[]> {
  if (data) {
    yield* groups(
      await readExamples(data, {
        textFields: text,
        isLabelled: false,
        onProgress: (event) => event.kind === 'notice' && log(event.message),
      }),
    );
  } else if (texts.length > 0) yield texts.map((text) => ({ text, where: null }));
  else yield* stdinTexts(io.stdin);
}

async function* stdinTexts(stdin: Output['io']['stdin']): AsyncGenerator<AskedText[]> {
  let line = 0;
  let isEmpty = true;
  for await (const lines of inputLineGroups(stdin)) {
    const asked = lines.map((text) => ({ text, where: `stdin:${++line}` }));
    const found = asked.filter(({ text }) => text.trim() !== '');
    if (found.length === 0) continue;
    isEmpty = false;
    yield* groups(found);
  }
  if (isEmpty)
    throw new FormatError('stdin: expected at least one line of text, got none. Write one text per line.');
}

function* groups(asked: readonly AskedText[]): Generator<AskedText[]> {
  for (let at = 0; at < asked.length; at += GROUP) yield asked.slice(at, at + GROUP);
}
