/**
 * Texts as sparse vectors of words and pairs of neighbouring words: (1 + ln count) * idf, each row of length
 * 1, with idf = 1 + ln((1 + texts) / (1 + texts that have it)). The same numbers as scikit-learn's
 * TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).
 */
import { turn } from '../base/turn.ts';
import { grown, type WordRows } from './baseline-words.ts';

/** Row i has the values at starts[i] to starts[i + 1], each in its column (compressed sparse rows). */
export interface SparseRows {
  starts: Int32Array;
  columns: Int32Array;
  values: Float32Array;
}

export class TfIdf {
  readonly #wordColumns: Int32Array; // column of each word, -1: left out
  readonly #pairs: PairNumbers;
  readonly #pairColumns: Int32Array;
  readonly #idf: number[] = []; // by column

  /**
   * Learns the features of the training texts. Of more than `maxFeatures` those in the fewest texts are left
   * out, all with the same number of texts alike.
   */
  static async fit(
    rows: WordRows,
    { wordCount, maxFeatures, signal }: { wordCount: number; maxFeatures: number; signal?: AbortSignal },
  ): Promise<TfIdf> {
    const texts = rows.starts.length - 1;
    const pairs = new PairNumbers();
    const ofWords = new TextCounts(wordCount);
    const ofPairs = new TextCounts(1 << 16);
    for (let i = 0; i < texts; i++) {
      if (i % 256 === 0) await breathe(signal);
      let before = -1;
      for (const id of wordsOf(rows, i)) {
        ofWords.see(id, i);
        if (before >= 0) ofPairs.see(pairs.add(before, id), i);
        before = id;
      }
    }
    const counts = [ofWords.counts.subarray(0, wordCount), ofPairs.counts.subarray(0, pairs.size)];
    return new TfIdf(pairs, counts, texts, fewestTexts(counts, texts, maxFeatures));
  }

  private constructor(pairs: PairNumbers, counts: readonly Int32Array[], texts: number, fewest: number) {
    const [wordColumns, pairColumns] = counts.map((of) =>
      of.map((count) => (count < fewest ? -1 : this.#idf.push(1 + Math.log((1 + texts) / (1 + count))) - 1)),
    );
    this.#wordColumns = wordColumns!;
    this.#pairColumns = pairColumns!;
    this.#pairs = pairs;
  }

  get features(): number {
    return this.#idf.length;
  }

  /**
   * The texts' vectors; what was not seen in training is left out. A text without any known feature is an
   * empty row.
   */
  async transform(rows: WordRows, signal?: AbortSignal): Promise<SparseRows> {
    const texts = rows.starts.length - 1;
    const starts = new Int32Array(texts + 1);
    const columns = new Int32Array(rows.ids.length * 2);
    const values = new Float32Array(rows.ids.length * 2);
    const counts = new Int32Array(this.features); // of the row at hand, zero between rows
    let end = 0;
    const count = (column: number): void => {
      if (column >= 0 && counts[column]!++ === 0) columns[end++] = column;
    };
    for (let i = 0; i < texts; i++) {
      if (i % 256 === 0) await breathe(signal);
      const start = end;
      let before = -1;
      for (const id of wordsOf(rows, i)) {
        if (id >= 0) {
          count(this.#wordColumns[id]!);
          const pair = before < 0 ? -1 : this.#pairs.find(before, id);
          if (pair >= 0) count(this.#pairColumns[pair]!);
        }
        before = id;
      }
      let squares = 0;
      for (let at = start; at < end; at++) {
        const column = columns[at]!;
        const value = (1 + Math.log(counts[column]!)) * this.#idf[column]!;
        values[at] = value;
        squares += value * value;
        counts[column] = 0;
      }
      const length = Math.sqrt(squares);
      for (let at = start; at < end; at++) values[at]! /= length;
      starts[i + 1] = end;
    }
    return { starts, columns: columns.slice(0, end), values: values.slice(0, end) };
  }
}

function wordsOf(rows: WordRows, i: number): Int32Array {
  return rows.ids.subarray(rows.starts[i], rows.starts[i + 1]);
}

async function breathe(signal: AbortSignal | undefined): Promise<void> {
  await turn();
  signal?.throwIfAborted();
}

/**
 * The smallest number of texts, from MIN_TEXTS, such that at most `maxFeatures` features are in as many or
 * more.
 */
function fewestTexts(counts: readonly Int32Array[], texts: number, maxFeatures: number): number {
  const features = new Int32Array(texts + 1); // by number of texts
  for (const of of counts) for (const count of of) features[count]!++;
  let fewest = texts + 1;
  let sum = 0;
  while (fewest > 1 && sum + features[fewest - 1]! <= maxFeatures) sum += features[--fewest]!;
  return fewest;
}

/** In how many texts each feature is, the texts coming one after another. */
class TextCounts {
  counts: Int32Array;
  #last: Int32Array; // one more than the last text that had it

  constructor(size: number) {
    this.counts = new Int32Array(size);
    this.#last = new Int32Array(size);
  }

  see(feature: number, text: number): void {
    if (feature >= this.counts.length) {
      this.counts = grown(this.counts);
      this.#last = grown(this.#last);
    }
    if (this.#last[feature] === text + 1) return;
    this.#last[feature] = text + 1;
    this.counts[feature]!++;
  }
}

/**
 * Numbers pairs of words in the order they come: a hash table without an object per pair, for there are
 * millions.
 */
class PairNumbers {
  size = 0;
  #firsts = new Int32Array(1 << 16);
  #seconds = new Int32Array(1 << 16);
  #slots = new Int32Array(1 << 17).fill(-1); // at least twice as many as pairs, a power of two

  /** -1 when the pair is new. */
  find(first: number, second: number): number {
    return this.#slots[this.#slot(first, second)]!;
  }

  add(first: number, second: number): number {
    const slot = this.#slot(first, second);
    if (this.#slots[slot]! >= 0) return this.#slots[slot]!;
    const number = this.size++;
    this.#slots[slot] = number;
    this.#firsts[number] = first;
    this.#seconds[number] = second;
    if (this.size === this.#firsts.length) this.#grow();
    return number;
  }

  /** Where the pair is, or where it would go. */
  #slot(first: number, second: number): number {
    let hash = Math.imul(Math.imul(first, 0x9e3779b1) ^ second, 0x85ebca6b);
    hash ^= hash >>> 15;
    const mask = this.#slots.length - 1;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const number = this.#slots[slot]!;
      if (number < 0 || (this.#firsts[number] === first && this.#seconds[number] === second)) return slot;
    }
  }

  #grow(): void {
    this.#firsts = grown(this.#firsts);
    this.#seconds = grown(this.#seconds);
    this.#slots = new Int32Array(this.#slots.length * 2).fill(-1);
    for (let number = 0; number < this.size; number++) {
      this.#slots[this.#slot(this.#firsts[number]!, this.#seconds[number]!)] = number;
    }
  }
}
