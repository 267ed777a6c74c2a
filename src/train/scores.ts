/**
 * How good a classifier's answers are: accuracy, F1, area under the curve, log loss, calibration, confusion.
 * The order of the examples changes nothing but the rounding of sums. Conventions are scikit-learn's
 * (zero_division=0, log_loss, roc_auc_score); calibration is that of C. Guo et al., "On Calibration of Modern
 * Neural Networks" (2017).
 */
import { ConfigError, ShapeError } from '../base/errors.ts';

export interface ClassScore {
  label: string;
  /** Of the examples given this label, the share that has it; 0 when none was given it. */
  precision: number;
  /** Of the examples that have this label, the share that was given it; 0 when none has it. */
  recall: number;
  /** Harmonic mean of the two; 0 for a class that neither occurs nor was predicted. */
  f1: number;
  /** Examples that have this label. */
  count: number;
}

export interface ClassScores {
  examples: number;
  /** Share of the examples whose most probable class (the first of equals) is the true one. */
  accuracy: number;
  /** Mean of the classes' F1, each class counting the same, absent ones (0) included. */
  macroF1: number;
  /**
   * Area under the receiver operating characteristic. Two classes: the chance that an example of class 1 is
   * given a higher probability of class 1 than one of class 0, ties counting half. More: the mean of each
   * class against the rest, over the classes that occur. null where only one class occurs.
   */
  auc: number | null;
  /**
   * Mean of -log p(true class), nats; p is clipped to [eps, 1 - eps], eps = 2^-52, as by scikit-learn's
   * log_loss.
   */
  logLoss: number;
  /**
   * Expected calibration error: |accuracy - mean top probability|, averaged over 15 bins of it weighted by
   * size.
   */
  calibrationError: number;
  /** Examples by true class (rows) and predicted class (columns). */
  confusion: number[][];
  classes: ClassScore[];
}

const BINS = 15;

/**
 * Scores of `probabilities` (one row of classes per example, each summing to 1) against `truth` (class ids).
 * Throws ShapeError for unequal lengths, ConfigError for no examples, fewer than two labels, a class id that
 * is none, and rows that are not probabilities.
 */
export function scoreClasses(
  labels: readonly string[],
  truth: ArrayLike<number>,
  probabilities: readonly ArrayLike<number>[],
): ClassScores {
  check(labels, truth, probabilities);
  const examples = truth.length;
  const confusion = labels.map(() => labels.map(() => 0));
  const binGaps = new Float64Array(BINS); // sum over the bin of (right ? 1 : 0) - top probability
  let nats = 0;
  probabilities.forEach((row, i) => {
    const expected = truth[i]!;
    const answer = top(row);
    confusion[expected]![answer]!++;
    const p = Math.min(row[answer]!, 1);
    // Bins are open below and closed above, as in the paper.
    binGaps[Math.max(Math.ceil(p * BINS) - 1, 0)]! += (answer === expected ? 1 : 0) - p;
    nats -= Math.log(Math.min(Math.max(row[expected]!, Number.EPSILON), 1 - Number.EPSILON));
  });
  const classes = labels.map((label, k) => classScore(label, confusion, k));
  const right = confusion.reduce((sum, row, k) => sum + row[k]!, 0);
  return {
    examples,
    accuracy: right / examples,
    macroF1: classes.reduce((sum, { f1 }) => sum + f1, 0) / labels.length,
    auc: meanAuc(labels.length, truth, probabilities),
    logLoss: nats / examples,
    calibrationError: binGaps.reduce((sum, gap) => sum + Math.abs(gap), 0) / examples,
    confusion,
    classes,
  };
}

function classScore(label: string, confusion: readonly number[][], k: number): ClassScore {
  const hits = confusion[k]![k]!;
  const count = confusion[k]!.reduce((sum, n) => sum + n, 0);
  const predicted = confusion.reduce((sum, row) => sum + row[k]!, 0);
  return {
    label,
    precision: predicted > 0 ? hits / predicted : 0,
    recall: count > 0 ? hits / count : 0,
    f1: count + predicted > 0 ? (2 * hits) / (count + predicted) : 0,
    count,
  };
}

function top(row: ArrayLike<number>): number {
  let best = 0;
  for (let k = 1; k < row.length; k++) if (row[k]! > row[best]!) best = k;
  return best;
}

function meanAuc(
  classes: number,
  truth: ArrayLike<number>,
  probabilities: readonly ArrayLike<number>[],
): number | null {
  if (classes === 2) return classAuc(1, truth, probabilities);
  let sum = 0;
  let defined = 0;
  for (let k = 0; k < classes; k++) {
    const auc = classAuc(k, truth, probabilities);
    if (auc === null) continue;
    sum += auc;
    defined++;
  }
  return defined > 0 ? sum / defined : null;
}

/**
 * Class k against the rest by the Mann-Whitney statistic. All sums are whole halves, so the count is exact.
 */
function classAuc(
  k: number,
  truth: ArrayLike<number>,
  probabilities: readonly ArrayLike<number>[],
): number | null {
  const inside: number[] = [];
  const outside: number[] = [];
  probabilities.forEach((row, i) => {
    (truth[i] === k ? inside : outside).push(row[k]!);
  });
  if (inside.length === 0 || outside.length === 0) return null;
  const a = Float64Array.from(inside).sort();
  const b = Float64Array.from(outside).sort();
  let wins = 0;
  let below = 0; // members of b below a[i]
  let upTo = 0; // members of b not above a[i]
  for (const score of a) {
    while (below < b.length && b[below]! < score) below++;
    while (upTo < b.length && b[upTo]! <= score) upTo++;
    wins += (below + upTo) / 2;
  }
  return wins / (a.length * b.length);
}

function check(
  labels: readonly string[],
  truth: ArrayLike<number>,
  probabilities: readonly ArrayLike<number>[],
): void {
  const classes = labels.length;
  if (classes < 2) {
    throw new ConfigError(
      `scoreClasses: expected at least two labels, got ${classes}. Pass all labels of the task.`,
    );
  }
  if (truth.length !== probabilities.length) {
    throw new ShapeError(
      `scoreClasses: expected as many rows of probabilities as true classes, ${truth.length}, got ${probabilities.length}.`,
    );
  }
  if (truth.length === 0) {
    throw new ConfigError('scoreClasses: expected at least one example, got none. Give labelled examples.');
  }
  // A float32 softmax: its terms and their sum carry some roundings of 2^-24, the sum one more per class.
  const tolerance = (classes + 8) * 2 ** -23;
  probabilities.forEach((row, i) => {
    const expected = truth[i]!;
    if (!Number.isInteger(expected) || expected < 0 || expected >= classes) {
      throw new ConfigError(
        `scoreClasses: expected class ids from 0 to ${classes - 1}, got ${expected} for example ${i}. Number classes by their label's place.`,
      );
    }
    if (row.length !== classes) {
      throw new ShapeError(
        `scoreClasses: expected ${classes} probabilities per example, got ${row.length} for example ${i}.`,
      );
    }
    let sum = 0;
    for (let k = 0; k < classes; k++) {
      const p = row[k]!;
      if (!(p >= 0)) {
        throw new ConfigError(
          `scoreClasses: expected probabilities of 0 or more, got ${p} for example ${i}. Pass a softmax, not logits.`,
        );
      }
      sum += p;
    }
    if (!(Math.abs(sum - 1) <= tolerance)) {
      throw new ConfigError(
        `scoreClasses: expected probabilities that sum to 1, got a sum of ${sum} for example ${i}. Pass a softmax, not logits.`,
      );
    }
  });
}
