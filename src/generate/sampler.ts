/**
 * From logits to a token: pure functions over one row on the host. The order is fixed:
 *   repetition penalty, temperature, top-k, top-p, min-p, draw.
 * Each filter works on what the one before left, with the probabilities summing to 1 again (so top-p is the
 * mass among the top k). Ids from vocab_size on are padding and are never candidates.
 */
import { ConfigError, StateError } from '../base/errors.ts';
import type { Rng } from '../base/rng.ts';
import { candidates } from './candidates.ts';

export interface SamplerOptions {
  /**
   * Divides the logits; below 1 is bolder. 0 takes the most likely token (the first of equals). Default 1.
   */
  temperature?: number;
  /** Only the k most likely tokens; 0 = all. Default 0. */
  topK?: number;
  /** Only the smallest set of most likely tokens whose mass reaches topP; 1 = all. Default 1. */
  topP?: number;
  /** Only tokens at least minP times as likely as the most likely one of the row; 0 = all. Default 0. */
  minP?: number;
  /**
   * Divides the positive and multiplies the negative logits of ids seen in prompt and output
   * (Keskar et al. 2019). Default 1.
   */
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
 * One token id below `vocabSize`. Logits may be -Infinity (excluded); NaN, +Infinity and rows of
 * nothing but -Infinity throw StateError. `seen` are the ids that repetitionPenalty applies to. Draws
 * one number of `rng` unless greedy.
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
  const { ids, weights, sum } = candidates(row, best, sampler);
  let rest = rng.float() * sum;
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
    if (value <= largest) continue;
    if (Number.isNaN(value)) throw badLogits(`NaN at id ${i}`);
    largest = value;
    best = i;
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
