/**
 * Reading texts of any length through the state: a piece of bounded size of each row at a time, pooled on the
 * way. Pieces are cut at the same places whatever a row is read with, and of sizes with which the kernels sum
 * in the same order, so a text gives the same bits alone, in any company and piece by piece.
 */
import type { Classifier, Direction } from '../models/classifier.ts';
import { RunningPool } from '../models/pooling.ts';
import type { State } from '../models/state.ts';
import { scope } from '../tensor/scope.ts';
import { noGrad } from '../tensor/tape.ts';
import { Tensor } from '../tensor/tensor.ts';

/**
 * Tokens per piece: as many as matrix products sum at once, so that no sum is split in a way that depends on
 * padding, and whole chunks of ssd.
 */
export const PIECE = 128;
/** Products of up to 16 rows sum in another order than longer ones; shorter pieces are padded. */
const LEAST = 17;

/** Some rows on their way through one stack. */
export class Reading {
  readonly direction: Direction;
  readonly #classifier: Classifier;
  readonly #pools: RunningPool[];
  /** Of the rows read last; null before the first piece. */
  #state: State | null = null;

  constructor(classifier: Classifier, direction: Direction, rows = 1) {
    const { pooling, backbone } = classifier.config;
    this.#classifier = classifier;
    this.direction = direction;
    this.#pools = Array.from({ length: rows }, () => new RunningPool(pooling, backbone.d_model));
  }

  /**
   * The next 1 to PIECE tokens of each of the first `pieces.length` rows, for the reverse stack
   * those before the last ones, from the end. Only with a whole PIECE may a row go on; the rows
   * behind the given ones have ended.
   */
  async read(pieces: readonly Int32Array[]): Promise<void> {
    const lengths = pieces.map(({ length }) => length);
    const width = Math.max(LEAST, ...lengths);
    const rows = pieces.map((piece) => {
      const row = new Int32Array(width);
      row.set(piece);
      return row;
    });
    const { pooled, state } = this.#step(rows, lengths);
    const values = await pooled.floats();
    pooled.dispose();
    this.dispose();
    this.#state = state;
    const d = values.length / rows.length;
    for (const [i, count] of lengths.entries())
      this.#pools[i]!.add(values.subarray(i * d, (i + 1) * d), count);
  }

  /** The pooled features (d) of a row. */
  features(row: number): Float32Array {
    return this.#pools[row]!.value();
  }

  /** An independent copy of a reading of one row. */
  fork(): Reading {
    const copy = new Reading(this.#classifier, this.direction, 0);
    for (const pool of this.#pools) copy.#pools.push(pool.clone());
    copy.#state = this.#state?.clone() ?? null;
    return copy;
  }

  dispose(): void {
    this.#state?.dispose();
    this.#state = null;
  }

  #step(rows: readonly Int32Array[], lengths: readonly number[]): { pooled: Tensor; state: State } {
    const before = this.#state;
    const isFewer = before !== null && before.batch > rows.length;
    const from = isFewer ? before.rows(rows.map((_, i) => i)) : before;
    try {
      return noGrad(() => this.#classifier.readPiece(rows, from, this.direction, { lengths }));
    } finally {
      if (isFewer) from?.dispose();
    }
  }
}

/** What a classifier says of a text. */
export interface Prediction {
  /** The one with the highest score. */
  label: string;
  /** Its probability. */
  score: number;
  /** The probability of every label; they add up to 1. */
  scores: Record<string, number>;
}

/**
 * From the pooled features of each direction to probabilities, in the order of the labels. One text
 * at a time: the same bits always.
 */
export async function probabilitiesOf(
  classifier: Classifier,
  features: readonly Float32Array[],
): Promise<Float64Array> {
  const joined = Float32Array.from(features.flatMap((part) => [...part]));
  const { device } = classifier;
  const logits = noGrad(() =>
    scope(() => classifier.classify(Tensor.from(joined, [1, joined.length], { device }))),
  );
  const values = await logits.floats();
  logits.dispose();
  return softmax(values);
}

export function softmax(logits: ArrayLike<number>): Float64Array {
  const values = Float64Array.from(logits);
  const most = values.reduce((a, b) => Math.max(a, b));
  const shares = values.map((value) => Math.exp(value - most));
  const sum = shares.reduce((a, b) => a + b);
  return shares.map((share) => share / sum);
}

export function predictionOf(labels: readonly string[], probabilities: Float64Array): Prediction {
  const best = probabilities.indexOf(probabilities.reduce((a, b) => Math.max(a, b)));
  const scores = Object.fromEntries(labels.map((label, i) => [label, probabilities[i]!]));
  return { label: labels[best]!, score: probabilities[best]!, scores };
}
