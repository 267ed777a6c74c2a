/**
 * From logits to a token: pure functions over one row on the host. The order is fixed:
 *   repetition penalty, temperature, top-k, top-p, min-p, draw.
 * Each filter works on what the one before left, with the probabilities summing to 1 again (so top-p is the mass among the
 * top k). Ids from vocab_size on are padding and are never candidates.
 */
import { ConfigError, StateError } from '../base/errors.ts';
import type { Rng } from '../base/rng.ts';

export interface SamplerOptions {
  /** Divides the logits; below 1 is bolder. 0 takes the most likely token (the first of equals). Default 1. */
  temperature?: number;
  /** Only the k most likely tokens; 0 = all. Default 0. */
  topK?: number;
  /** Only the smallest set of most likely tokens whose mass reaches topP; 1 = all. Default 1. */
  topP?: number;
  /** Only tokens at least minP times as likely as the most likely one of the row; 0 = all. Default 0. */
  minP?: number;
  /** Divides the positive and multiplies the negative logits of ids seen in prompt and output (Keskar et al. 2019). Default 1. */
  repetitionPenalty?: number;
}

export type Sampler = Required<SamplerOptions>;

/** Fills defaults. Throws ConfigError that lists every field out of range. */
export function resolveSampler(options: SamplerOptions = {}): Sampler {
  const { temperature = 1, topK = 0, topP = 1, minP = 0, repetitionPenalty = 1 } = options;
  const problems: string[] = [];
  const require = (holds: boolean, field: string, range: string, value: unknown) => {
    if (!holds) problems.push(`${field} ${range}, got ${String(value)}`);
  };
  const finite = Number.isFinite;
  require(finite(temperature) && temperature >= 0, 'temperature', '>= 0', temperature);
  require(Number.isInteger(topK) && topK >= 0, 'topK', 'an integer >= 0', topK);
  require(finite(topP) && topP > 0 && topP <= 1, 'topP', 'in (0, 1]', topP);
  require(finite(minP) && minP >= 0 && minP <= 1, 'minP', 'in [0, 1]', minP);
  const penaltyHolds = finite(repetitionPenalty) && repetitionPenalty > 0;
  require(penaltyHolds, 'repetitionPenalty', '> 0', repetitionPenalty);
  if (problems.length > 0) {
    throw new ConfigError(`sampler: expected ${problems.join('; ')}. Correct these options.`);
  }
  return { temperature, topK, topP, minP, repetitionPenalty };
}

/**
 * One token id below `vocabSize`. Logits may be -Infinity (excluded); NaN, +Infinity and rows of nothing but -Infinity throw
 * StateError. `seen` are the ids that repetitionPenalty applies to. Draws one number of `rng` unless greedy.
 */
export function sample(
  logits: Float32Array,
  vocabSize: number,
  sampler: Sampler,
  rng: Rng,
  seen: ReadonlySet<number> = new Set(),
): number {
  let row = logits.subarray(0, vocabSize);
  if (sampler.repetitionPenalty !== 1) row = penalize(row.slice(), sampler.repetitionPenalty, seen);
  const best = greedy(row);
  if (sampler.temperature === 0 || sampler.topK === 1) return best;
  const { ids, weights } = candidates(row, best, sampler);
  let rest = rng.float() * total(weights);
  for (let i = 0; i < weights.length; i++) {
    rest -= weights[i]!;
    if (rest < 0) return ids ? ids[i]! : i;
  }
  return best; // rounding left a sliver above the last candidate
}

/** The first of the largest logits. */
export function greedy(row: Float32Array): number {
  let best = 0;
  let largest = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < row.length; i++) {
    const value = row[i]!;
    if (value > largest) {
      largest = value;
      best = i;
    } else if (Number.isNaN(value)) throw badLogits(`NaN at id ${i}`);
  }
  if (!Number.isFinite(largest)) throw badLogits(`${largest} as the largest`);
  return best;
}

function badLogits(got: string): StateError {
  return new StateError(
    `sample: expected finite logits, got ${got}. The weights are damaged or the training has diverged.`,
  );
}

/** Divides positive and multiplies negative logits of the seen ids, in place. */
export function penalize(row: Float32Array, penalty: number, seen: ReadonlySet<number>): Float32Array {
  for (const id of seen) {
    if (id < row.length) row[id] = row[id]! > 0 ? row[id]! / penalty : row[id]! * penalty;
  }
  return row;
}

/** What may be drawn: weights proportional to probabilities, and their ids (null: weight i is id i). */
export interface Candidates {
  ids: number[] | null;
  weights: Float64Array | number[];
}

/** Applies temperature, top-k, top-p and min-p. `best` is the most likely id; its weight is 1. */
export function candidates(row: Float32Array, best: number, sampler: Sampler): Candidates {
  const { temperature, topK, topP, minP } = sampler;
  const largest = row[best]!;
  const weightOf = (id: number) => Math.exp((row[id]! - largest) / temperature);
  const isCut = topK > 0 && topK < row.length;
  let ids: number[] | null = null;
  let weights: number[] | Float64Array;
  if (isCut) {
    ids = leading(row, best, topK, null).slice(0, topK);
    weights = ids.map(weightOf);
  } else {
    weights = new Float64Array(row.length);
    for (let i = 0; i < row.length; i++) weights[i] = weightOf(i);
  }
  if (topP < 1) {
    const mass = topP * total(weights);
    ids ??= leading(row, best, mass, weights);
    const sorted = ids.map(weightOf);
    sorted.length = reach(sorted, mass);
    weights = sorted;
  }
  if (minP > 0) {
    for (let i = 0; i < weights.length; i++) if (weights[i]! < minP) weights[i] = 0;
  }
  return { ids, weights };
}

/** The k largest logits' ids, in order, equals by id. -Infinity counts as the smallest. */
export function mostLikely(row: Float32Array, k: number): number[] {
  return k === 0 ? [] : leading(row, greedy(row), k, null).slice(0, k);
}

const BUCKETS = 1024;

/**
 * The most likely ids in order, at least until their weights (null: each counts 1) sum to `enough`. A histogram over the range of
 * the logits finds where that is, and only the ids above are sorted: about O(v), where sorting everything is O(v log v).
 */
function leading(
  row: Float32Array,
  best: number,
  enough: number,
  weights: Float64Array | number[] | null,
): number[] {
  const largest = row[best]!;
  let smallest = largest;
  for (let i = 0; i < row.length; i++) {
    if (row[i]! < smallest && row[i]! !== Number.NEGATIVE_INFINITY) smallest = row[i]!;
  }
  const scale = smallest < largest ? (BUCKETS - 1) / (largest - smallest) : 0;
  const bucketOf = (id: number) =>
    row[id]! === Number.NEGATIVE_INFINITY ? BUCKETS - 1 : Math.floor((largest - row[id]!) * scale);
  const mass = new Float64Array(BUCKETS);
  for (let i = 0; i < row.length; i++) mass[bucketOf(i)]! += weights ? weights[i]! : 1;
  let last = 0;
  // One bucket more than enough: the sums here and those of the caller round differently.
  for (let sum = mass[0]!; last < BUCKETS - 1 && sum < enough; ) sum += mass[++last]!;
  last++;
  const ids: number[] = [];
  for (let i = 0; i < row.length; i++) if (bucketOf(i) <= last) ids.push(i);
  return ids.sort((a, b) => row[b]! - row[a]! || a - b);
}

/** How many of the descending weights it takes to reach a mass. */
function reach(weights: readonly number[], mass: number): number {
  let sum = 0;
  for (let i = 0; i < weights.length; i++) {
    sum += weights[i]!;
    if (sum >= mass) return i + 1;
  }
  return weights.length;
}

function total(weights: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < weights.length; i++) sum += weights[i]!;
  return sum;
}
