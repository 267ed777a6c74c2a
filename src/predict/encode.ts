/** From texts to the ids that a classifier reads. */
import { ConfigError } from '../base/errors.ts';
import type { Tokenizer } from '../base/tokenizer.ts';
import { turn } from '../base/turn.ts';
import type { Classifier } from '../models/classifier.ts';
import { PieceEncoder } from '../text/piece-encoder.ts';

/** Characters that are encoded between two turns of the event loop. */
export const SLICE = 65_536;

export function tokenizerOf(op: string, { tokenizer }: Classifier): Tokenizer {
  if (tokenizer) return tokenizer;
  throw new ConfigError(
    `${op}: expected a classifier with a tokenizer, got none. Set its tokenizer, or load it from a folder that has one.`,
  );
}

/** Whether there is anything but white space. */
export function hasText(text: string): boolean {
  return /\S/.test(text);
}

/**
 * The ids of each text, cut to `maxTokens` (default: the classifier's). Throws ConfigError for
 * a text that has none, by index.
 */
export async function encodeTexts(
  op: string,
  classifier: Classifier,
  texts: readonly string[],
  options: { maxTokens?: number | null; signal?: AbortSignal },
): Promise<Int32Array[]> {
  const { maxTokens = classifier.config.maxTokens, signal } = options;
  const tokenizer = tokenizerOf(op, classifier);
  if (!Array.isArray(texts)) {
    throw new ConfigError(`${op}: expected a list of texts, got ${typeof texts}. Write [text].`);
  }
  const rows: Int32Array[] = [];
  let chars = 0;
  for (const [i, text] of (texts as readonly unknown[]).entries()) {
    if (typeof text !== 'string') {
      throw new ConfigError(`${op}: expected texts, got ${typeof text} at index ${i}. Pass strings.`);
    }
    const encoder = new PieceEncoder(tokenizer, { maxTokens });
    const ids: number[] = [];
    for (let at = 0; at < text.length && !encoder.isFull; at += SLICE) {
      for (const id of encoder.push(text.slice(at, at + SLICE))) ids.push(id);
      chars += Math.min(text.length - at, SLICE);
      if (chars < SLICE) continue;
      chars = 0;
      await turn();
      signal?.throwIfAborted();
    }
    for (const id of encoder.end()) ids.push(id);
    if (ids.length === 0 || !hasText(text)) {
      const what = text === '' ? 'an empty one' : 'one without anything to read';
      throw new ConfigError(`${op}: expected texts with words, got ${what} at index ${i}. Leave it out.`);
    }
    rows.push(Int32Array.from(ids));
  }
  return rows;
}
