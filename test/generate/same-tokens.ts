/**
 * Two runs of one sequence in different company give the same tokens, except where rounding decides. A device may sum a product of a few
 * rows in another order than one of many, so logits differ by rounding; a token differs only if the number that was drawn lies between
 * the two roundings of a cumulative probability. This checks exactly that, at the first difference.
 */
import { expect } from 'vitest';
import { Rng } from '../../src/base/rng.ts';
import type { LanguageModel } from '../../src/models/language-model.ts';
import { noGrad } from '../../src/tensor/tape.ts';
import { roundings } from '../models/roundings.ts';

/** Largest difference of two computations of the same logits, by rounding alone. */
export function logitBound(model: LanguageModel, length: number, logits: ArrayLike<number>): number {
  const scale = Array.from(logits).reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  return 2 * roundings(model.config, length) * 2 ** -24 * scale;
}

/** For sequences drawn at temperature 1 without filters. */
export async function expectSameTokens(
  model: LanguageModel,
  prompt: readonly number[],
  seed: number,
  actual: readonly number[],
  expected: readonly number[],
): Promise<void> {
  const at = expected.findIndex((token, t) => actual[t] !== token);
  if (at < 0) return expect(actual).toHaveLength(expected.length);
  const ids = [...prompt, ...expected.slice(0, at)];
  const out = noGrad(() => model.forward([ids], { lastOnly: true }));
  const logits = (await out.logits.floats()).subarray(0, model.config.vocab_size);
  out.logits.dispose();
  out.state.dispose();
  const rng = new Rng(seed);
  for (let t = 0; t < at; t++) rng.float();
  const drawn = rng.float();
  const [low, high] = [actual[at]!, expected[at]!].sort((a, b) => a - b) as [number, number];
  const weights = Array.from(logits, Math.exp);
  const total = weights.reduce((sum, w) => sum + w, 0);
  let reached = 0;
  let nearest = Number.POSITIVE_INFINITY;
  for (let id = 0; id < high; id++) {
    reached += weights[id]! / total;
    if (id >= low) nearest = Math.min(nearest, Math.abs(drawn - reached));
  }
  // d(sum of p_i) = sum p_i (e_i - mean e), at most twice the largest e.
  expect(nearest, `token ${at}: ${low} or ${high}`).toBeLessThanOrEqual(
    2 * logitBound(model, ids.length, logits),
  );
}
