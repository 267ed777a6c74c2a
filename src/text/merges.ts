/**
 * Learns BPE merges from counted words. Pair counts are kept up to date instead of recounted: each pair knows
 * the words it occurs in, and a heap yields the best pair. Cost grows with the symbols that merges touch.
 *
 * Two facts keep it simple. A merge only lowers the counts of pairs that existed before it, so an entry of
 * the heap is never too small and is corrected when it comes up. And a string always merges in one way (the
 * inside of a token does not depend on its surroundings), so no two merges give the same token.
 */

/** A word as bytes, and how often the text has it. */
export interface CountedWord {
  bytes: Uint8Array;
  count: number;
}

interface Pair {
  left: number;
  right: number;
  count: number;
  /** The count by which the heap has sorted it; at least `count`. */
  ranked: number;
  /** Words that had the pair when it was counted; some may have lost it since. */
  words: number[];
}

/** Keys fit in a double exactly: symbols stay below 2^24 + 256. */
const KEY_BASE = 2 ** 25;

/**
 * Up to `wanted` merges as pairs of symbols: 0..255 are bytes, 256 + i is the result of merge i. Stops
 * early when no pair occurs twice.
 */
export function learnMerges(words: readonly CountedWord[], wanted: number): [number, number][] {
  const symbols = words.map((word) => Int32Array.from(word.bytes));
  const lengths = Int32Array.from(symbols, (word) => word.length);
  const pairs = new Map<number, Pair>();
  const heap: Pair[] = [];
  let fresh: Pair[] = [];

  const raise = (left: number, right: number, w: number): void => {
    const key = left * KEY_BASE + right;
    let pair = pairs.get(key);
    if (pair === undefined) {
      pair = { left, right, count: 0, ranked: 0, words: [] };
      pairs.set(key, pair);
      fresh.push(pair);
    }
    pair.count += words[w]!.count;
    if (pair.words.at(-1) !== w) pair.words.push(w);
  };
  const lower = (left: number, right: number, w: number): void => {
    pairs.get(left * KEY_BASE + right)!.count -= words[w]!.count;
  };
  const enqueue = (pair: Pair): void => {
    pair.ranked = pair.count;
    if (pair.count > 1) pushHeap(heap, pair);
  };

  /** Merges left to right in place and moves the counts of the neighbouring pairs. */
  const mergeIn = (w: number, { left, right }: Pair, symbol: number): void => {
    const word = symbols[w]!;
    const length = lengths[w]!;
    let end = 0;
    for (let i = 0; i < length; i++) {
      if (word[i] !== left || i + 1 === length || word[i + 1] !== right) {
        word[end++] = word[i]!;
        continue;
      }
      if (end > 0) {
        lower(word[end - 1]!, left, w);
        raise(word[end - 1]!, symbol, w);
      }
      if (i + 2 < length) {
        lower(right, word[i + 2]!, w);
        raise(symbol, word[i + 2]!, w);
      }
      word[end++] = symbol;
      i++;
    }
    lengths[w] = end;
  };

  symbols.forEach((word, w) => {
    for (let i = 1; i < word.length; i++) raise(word[i - 1]!, word[i]!, w);
  });
  fresh.forEach(enqueue);

  const merges: [number, number][] = [];
  while (merges.length < wanted) {
    const best = popHeap(heap);
    if (best === undefined) break;
    if (best.count < best.ranked) {
      enqueue(best);
      continue;
    }
    const symbol = 256 + merges.length;
    merges.push([best.left, best.right]);
    fresh = [];
    for (const w of best.words) mergeIn(w, best, symbol);
    pairs.delete(best.left * KEY_BASE + best.right);
    fresh.forEach(enqueue);
  }
  return merges;
}

function isBetter(a: Pair, b: Pair): boolean {
  if (a.ranked !== b.ranked) return a.ranked > b.ranked;
  return a.left !== b.left ? a.left < b.left : a.right < b.right;
}

function pushHeap(heap: Pair[], pair: Pair): void {
  let i = heap.length;
  heap.push(pair);
  while (i > 0) {
    const parent = (i - 1) >> 1;
    if (!isBetter(pair, heap[parent]!)) break;
    heap[i] = heap[parent]!;
    i = parent;
  }
  heap[i] = pair;
}

function popHeap(heap: Pair[]): Pair | undefined {
  const top = heap[0];
  const last = heap.pop();
  if (top === undefined || last === undefined || heap.length === 0) return top;
  let i = 0;
  for (;;) {
    let child = 2 * i + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && isBetter(heap[child + 1]!, heap[child]!)) child++;
    if (!isBetter(heap[child]!, last)) break;
    heap[i] = heap[child]!;
    i = child;
  }
  heap[i] = last;
  return top;
}
