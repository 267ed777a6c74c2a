/**
 * Whether a classifier's probabilities mean what they say: accuracy by confidence,
 * as a reliability diagram has it.
 */

/** The examples whose top probability is above `from` and up to `to`. */
export interface CalibrationBin {
  from: number;
  to: number;
  count: number;
  /** Their mean top probability; null when there are none. */
  confidence: number | null;
  /** The share of them that is right; null when there are none. */
  accuracy: number | null;
}

/** Equal bins of the top probability, from 0 to 1. `probabilities` has one row of classes per example. */
export function calibrationBins(
  truth: ArrayLike<number>,
  probabilities: readonly ArrayLike<number>[],
  bins = 15,
): CalibrationBin[] {
  const sums = Array.from({ length: bins }, () => ({ count: 0, confidence: 0, right: 0 }));
  probabilities.forEach((row, i) => {
    let best = 0;
    for (let k = 1; k < row.length; k++) if (row[k]! > row[best]!) best = k;
    const confidence = Math.min(row[best]!, 1);
    const bin = sums[Math.max(Math.ceil(confidence * bins) - 1, 0)]!;
    bin.count++;
    bin.confidence += confidence;
    if (best === truth[i]) bin.right++;
  });
  return sums.map(({ count, confidence, right }, i) => ({
    from: i / bins,
    to: (i + 1) / bins,
    count,
    confidence: count > 0 ? confidence / count : null,
    accuracy: count > 0 ? right / count : null,
  }));
}
