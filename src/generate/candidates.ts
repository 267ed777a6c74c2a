/**
 * What may be drawn from one row of logits: weights proportional to probabilities, and the most likely of
 * them. All of it is a few passes over the row, without sorting it and without allocating: a vocabulary is
 * large and this runs for every token.
 */

/** What may be drawn: weights, and their ids (null: weight i is id i). Overwritten by the next call. */
export interface Candidates {
  ids: Int32Array | null;
  weights: Float64Array;
  /** Of the weights. */
  sum: number;
}

/** Scratch of one call, as long as the longest row so far. */
let scratch = { weights: new Float64Array(0), ids: new Int32Array(0) };

function reserve(count: number): typeof scratch {
  if (scratch.ids.length < count) {
    scratch = { weights: new Float64Array(count), ids: new Int32Array(count) };
  }
  return scratch;
}

/** exp(x) = 2^(i / STEPS) exp(r): two tables and four terms. */
const STEPS = 2048;
const SHIFT = 11;
const FRACTIONS = Float64Array.from({ length: STEPS }, (_, i) => 2 ** (i / STEPS));
/** The least normal number is 2^-1022. */
const POWERS = Float64Array.from({ length: 1023 }, (_, i) => 2 ** -i);
const LEAST = -708;

/**
 * weights[i] = exp((row[i] - largest) / temperature), and their sum. Relative errors are below 1e-13; weights
 * below 1e-307 are zero. Five times as fast as Math.exp, and the same everywhere.
 */
export function weigh(
  row: Float32Array,
  largest: number,
  temperature: number,
  weights: Float64Array,
): number {
  const scale = 1 / temperature;
  let sum = 0;
  for (let i = 0; i < row.length; i++) {
    const x = (row[i]! - largest) * scale;
    let weight = 0;
    if (x > LEAST) {
      const y = x * (STEPS * Math.LOG2E);
      const k = (y - 0.5) | 0; // to the nearest, for y <= 0
      const r = (y - k) * (Math.LN2 / STEPS);
      weight = (1 + r * (1 + r * (0.5 + r / 6))) * FRACTIONS[k & (STEPS - 1)]! * POWERS[-(k >> SHIFT)]!;
    }
    weights[i] = weight;
    sum += weight;
  }
  return sum;
}

/** The log of the sum of exp(row[i] - largest). */
export function logSumExp(row: Float32Array, largest: number): number {
  return Math.log(weigh(row, largest, 1, reserve(row.length).weights));
}

/** Applies temperature, top-k, top-p and min-p. `best` is the most likely id; its weight is 1. */
export function candidates(
  row: Float32Array,
  best: number,
  sampler: { temperature: number; topK: number; topP: number; minP: number },
): Candidates {
  const { temperature, topK, topP, minP } = sampler;
  const { weights, ids } = reserve(row.length);
  let found: Candidates;
  if (topK > 0 && topK < row.length) {
    const chosen = leading(row, topK, ids);
    const values = Float32Array.from(chosen, (id) => row[id]!);
    const sum = weigh(values, row[best]!, temperature, weights);
    found = { ids: chosen, weights: weights.subarray(0, topK), sum };
    if (topP < 1) found = cut(found, reach(found.weights, topP * sum));
  } else {
    found = {
      ids: null,
      weights: weights.subarray(0, row.length),
      sum: weigh(row, row[best]!, temperature, weights),
    };
    if (topP < 1) found = nucleus(row, found, sampler, row[best]!, ids);
  }
  return minP > 0 ? withoutUnlikely(found, minP) : found;
}

/** The k largest logits' ids, in order, equals by id. -Infinity counts as the smallest. */
export function mostLikely(row: Float32Array, k: number): number[] {
  const count = Math.min(k, row.length);
  return count === 0 ? [] : Array.from(leading(row, count, reserve(row.length).ids));
}

/** The same, in `ids`. A heap of the k best so far has the worst of them on top; few of a row get past it. */
function leading(row: Float32Array, k: number, ids: Int32Array): Int32Array {
  const isWorse = (a: number, b: number) => row[a]! < row[b]! || (row[a]! === row[b]! && a > b);
  const sink = (from: number) => {
    const id = ids[from]!;
    let at = from;
    for (let child = 2 * at + 1; child < k; child = 2 * at + 1) {
      if (child + 1 < k && isWorse(ids[child + 1]!, ids[child]!)) child++;
      if (!isWorse(ids[child]!, id)) break;
      ids[at] = ids[child]!;
      at = child;
    }
    ids[at] = id;
  };
  for (let i = 0; i < k; i++) ids[i] = i;
  for (let i = (k >> 1) - 1; i >= 0; i--) sink(i);
  let worst = row[ids[0]!]!;
  for (let i = k; i < row.length; i++) {
    if (row[i]! <= worst) continue; // a later id loses against an equal one
    ids[0] = i;
    sink(0);
    worst = row[ids[0]!]!;
  }
  return ids.subarray(0, k).sort((a, b) => row[b]! - row[a]! || a - b);
}

const BUCKETS = 1024;
/**
 * The buckets cover what the logits do, but no more than this many temperatures:
 * all beyond shares the last one.
 */
const DEPTH = 20;
const masses = new Float64Array(BUCKETS);

/**
 * Only the smallest set of most likely ids whose mass reaches topP: weights of the others become 0. A
 * histogram over the logits finds where that is, and only the ids of one bucket are sorted.
 */
function nucleus(
  row: Float32Array,
  { weights, sum }: Candidates,
  { topP, temperature }: { topP: number; temperature: number },
  largest: number,
  ids: Int32Array,
): Candidates {
  const mass = topP * sum;
  let least = largest;
  for (let i = 0; i < row.length; i++) {
    const value = row[i]!;
    if (value < least && value > Number.NEGATIVE_INFINITY) least = value;
  }
  const scale = (BUCKETS - 1) / Math.min(DEPTH * temperature, largest - least || 1);
  masses.fill(0);
  for (let i = 0; i < row.length; i++) {
    const at = (largest - row[i]!) * scale;
    masses[at < BUCKETS - 1 ? at | 0 : BUCKETS - 1]! += weights[i]!;
  }
  let last = 0;
  let kept = 0;
  while (last < BUCKETS - 1 && kept + masses[last]! < mass) kept += masses[last++]!;
  // What lies above this bucket stays, what lies below goes, what lies in it is put in order.
  let inside = 0;
  let rest = 0;
  for (let i = 0; i < row.length; i++) {
    const at = (largest - row[i]!) * scale;
    const bucket = at < BUCKETS - 1 ? at | 0 : BUCKETS - 1;
    if (bucket < last) rest += weights[i]!;
    else if (bucket > last) weights[i] = 0;
    else ids[inside++] = i;
  }
  for (const id of ids.subarray(0, inside).sort((a, b) => row[b]! - row[a]! || a - b)) {
    if (kept >= mass) weights[id] = 0;
    kept += weights[id]!;
    rest += weights[id]!;
  }
  return { ids: null, weights, sum: rest };
}

/** How many of the descending weights it takes to reach a mass. */
function reach(weights: Float64Array, mass: number): number {
  let sum = 0;
  for (let i = 0; i < weights.length; i++) {
    sum += weights[i]!;
    if (sum >= mass) return i + 1;
  }
  return weights.length;
}

function cut({ ids, weights }: Candidates, count: number): Candidates {
  const kept = weights.subarray(0, count);
  return { ids, weights: kept, sum: kept.reduce((sum, weight) => sum + weight, 0) };
}

function withoutUnlikely({ ids, weights }: Candidates, minP: number): Candidates {
  let sum = 0;
  for (let i = 0; i < weights.length; i++) {
    if (weights[i]! < minP) weights[i] = 0;
    sum += weights[i]!;
  }
  return { ids, weights, sum };
}
