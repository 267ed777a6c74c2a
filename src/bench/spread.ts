/** Several measurements as one figure. */

export interface Spread {
  median: number;
  min: number;
  max: number;
}

/** Of at least one value; the median of an even number is the upper one of the middle. */
export function spreadOf(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  return { median: sorted[Math.floor(sorted.length / 2)]!, min: sorted[0]!, max: sorted.at(-1)! };
}
