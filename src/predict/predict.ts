/**
 * Classifying texts that are there as a whole: encoded, read with others about as long, given in their order.
 */
import { ConfigError } from '../base/errors.ts';
import { turn } from '../base/turn.ts';
import type { Classifier, Direction } from '../models/classifier.ts';
import { encodeTexts } from './encode.ts';
import { PIECE, type Prediction, predictionOf, probabilitiesOf, Reading } from './reading.ts';

export interface PredictOptions {
  /**
   * Texts read together, those about as long with each other; bounds memory and changes no result. Default:
   * as many as make passes of about 2048 tokens.
   */
  batchSize?: number;
  /**
   * Texts are cut to this many tokens, special tokens included; null: never. Default:
   * as the classifier was trained.
   */
  maxTokens?: number | null;
  /** Throws the signal's reason, between two passes. */
  signal?: AbortSignal;
  /** Texts that are classified, and how many there are. */
  onProgress?: (done: number, total: number) => void;
}

const TOKENS_PER_PASS = 2048;

/**
 * A prediction per text, in their order. Texts of any length: they are read in pieces through the state, with
 * other texts or alone, to the same bits. Throws ConfigError for a text without anything to read (it names
 * the index), for options out of range, and for a classifier without a tokenizer.
 */
export async function predict(
  classifier: Classifier,
  texts: readonly string[],
  options: PredictOptions = {},
): Promise<Prediction[]> {
  const rows = await encodeTexts('predict', classifier, texts, options);
  const probabilities = await predictIds(classifier, rows, options);
  return probabilities.map((values) => predictionOf(classifier.config.labels, values));
}

/**
 * predict() of rows of ids: probabilities in the order of the labels. Nothing is cut. Throws
 * ConfigError for a row without ids.
 */
export async function predictIds(
  classifier: Classifier,
  rows: readonly Int32Array[],
  options: Omit<PredictOptions, 'maxTokens'> = {},
): Promise<Float64Array[]> {
  const { batchSize, signal, onProgress } = options;
  if (batchSize !== undefined && (!Number.isSafeInteger(batchSize) || batchSize < 1)) {
    throw new ConfigError(
      `predict: expected batchSize an integer >= 1, got ${batchSize}. Correct this option.`,
    );
  }
  const empty = rows.findIndex(({ length }) => length === 0);
  if (empty >= 0)
    throw new ConfigError(`predict: expected at least one id in every row, got none in row ${empty}.`);
  const order = rows.map((_, i) => i).sort((a, b) => rows[b]!.length - rows[a]!.length || a - b);
  const result: Float64Array[] = [];
  for (let done = 0; done < order.length; ) {
    const longest = Math.min(PIECE, rows[order[done]!]!.length);
    const count = batchSize ?? Math.floor(TOKENS_PER_PASS / longest);
    const batch = order.slice(done, done + count);
    const features: Float32Array[][] = batch.map(() => []);
    for (const direction of classifier.directions) {
      const own = batch.map((i) => rows[i]!);
      for (const [i, values] of (await readAll(classifier, direction, own, signal)).entries())
        features[i]!.push(values);
    }
    for (const [i, row] of batch.entries()) result[row] = await probabilitiesOf(classifier, features[i]!);
    done += batch.length;
    onProgress?.(done, order.length);
  }
  return result;
}

/** The pooled features of rows, longest first, in one direction. */
async function readAll(
  classifier: Classifier,
  direction: Direction,
  rows: readonly Int32Array[],
  signal: AbortSignal | undefined,
): Promise<Float32Array[]> {
  const reading = new Reading(classifier, direction, rows.length);
  try {
    for (let at = 0; at < rows[0]!.length; at += PIECE) {
      await turn();
      signal?.throwIfAborted();
      const left = rows.filter(({ length }) => length > at);
      await reading.read(left.map((ids) => pieceOf(ids, at, direction)));
    }
    return rows.map((_, i) => reading.features(i));
  } finally {
    reading.dispose();
  }
}

/** The tokens from `at` on in the order in which they are read. */
function pieceOf(ids: Int32Array, at: number, direction: Direction): Int32Array {
  if (direction === 'forward') return ids.subarray(at, at + PIECE);
  return ids.slice(Math.max(0, ids.length - at - PIECE), ids.length - at).reverse();
}
