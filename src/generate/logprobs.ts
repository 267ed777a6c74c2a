/**
 * Log-probabilities of tokens under the model itself: a log-softmax over one row of
 * logits, on the host in float64.
 */
import { logSumExp, mostLikely } from './candidates.ts';
import { greedy } from './sampler.ts';

export interface TokenLogprob {
  token: number;
  /** Natural logarithm of its probability; -Infinity for a token the model excludes. */
  logprob: number;
  /** The likeliest tokens, best first, equals by id. The token itself may be among them. */
  top: readonly { token: number; logprob: number }[];
}

/**
 * Of `token` and the `count` likeliest ids below `vocabSize`. Throws StateError
 * for logits that are not finite.
 */
export function tokenLogprob(
  logits: Float32Array,
  vocabSize: number,
  token: number,
  count: number,
): TokenLogprob {
  const row = logits.subarray(0, vocabSize);
  const largest = row[greedy(row)]!;
  const normalizer = largest + logSumExp(row, largest);
  const logprobOf = (id: number) => row[id]! - normalizer;
  return {
    token,
    logprob: logprobOf(token),
    top: mostLikely(row, count).map((id) => ({ token: id, logprob: logprobOf(id) })),
  };
}
