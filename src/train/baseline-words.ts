/**
 * Texts as numbered words, for the baselines of baselines.ts: what a bag-of-words model takes for a word, and
 * no more.
 */
import { turn } from '../base/turn.ts';

/** Letters, digits and combining marks. "don't" is two words, and a pair of words to who looks at pairs. */
const WORD = /[\p{L}\p{N}_][\p{L}\p{M}\p{N}_]*/gu;

/** Runs of scripts that write no spaces between words, or of all others. */
const UNSPACED =
  '\\p{Script=Han}\\p{Script=Hiragana}\\p{Script=Katakana}\\p{Script=Thai}\\p{Script=Lao}\\p{Script=Khmer}\\p{Script=Myanmar}';
const RUN = new RegExp(`[${UNSPACED}]+|[^${UNSPACED}]+`, 'gu');
const IS_UNSPACED = new RegExp(`[${UNSPACED}]`, 'u');

/**
 * The words of a text, lowercased. Where a script writes no spaces (Chinese, Japanese, Thai, Lao, Khmer,
 * Burmese), each two neighbouring characters are a word, the usual substitute (Lucene's CJKBigramFilter).
 */
export function words(text: string): string[] {
  const found: string[] = text.toLowerCase().match(WORD) ?? [];
  return IS_UNSPACED.test(text) ? found.flatMap(characterPairs) : found;
}

function characterPairs(word: string): string[] {
  const runs: string[] = word.match(RUN) ?? [];
  return runs.flatMap((run) => {
    if (!IS_UNSPACED.test(run)) return [run];
    const characters = [...run];
    if (characters.length === 1) return characters;
    return characters.slice(1).map((character, i) => characters[i]! + character);
  });
}

/**
 * Row i is ids[starts[i]] to ids[starts[i + 1]], the words of text i in order; -1 is a word that was not
 * known.
 */
export interface WordRows {
  ids: Int32Array;
  starts: Int32Array;
}

/** Numbers words in the order in which the training texts bring them. */
export class WordNumbers {
  readonly #ids = new Map<string, number>();

  get size(): number {
    return this.#ids.size;
  }

  /** Rows of the texts. `isTraining`: new words get a number; otherwise they are -1. */
  async read(texts: readonly string[], isTraining: boolean, signal?: AbortSignal): Promise<WordRows> {
    let ids = new Int32Array(1 << 16);
    const starts = new Int32Array(texts.length + 1);
    let n = 0;
    for (const [i, text] of texts.entries()) {
      if (i % 256 === 0) {
        await turn();
        signal?.throwIfAborted();
      }
      for (const word of words(text)) {
        let id = this.#ids.get(word);
        if (id === undefined) {
          id = isTraining ? this.#ids.size : -1;
          if (isTraining) this.#ids.set(word, id);
        }
        if (n === ids.length) ids = grown(ids);
        ids[n++] = id;
      }
      starts[i + 1] = n;
    }
    return { ids: ids.subarray(0, n), starts };
  }
}

/** Twice as long, the rest zero. */
export function grown(array: Int32Array): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(array.length * 2);
  larger.set(array);
  return larger;
}
