/**
 * What a model makes of a text, read once as one stream with the state carried along (as `evaluate` in the
 * mode `stream` does): the loss, and the likeliest token everywhere.
 */
import { ConfigError } from '../base/errors.ts';
import type { LanguageModel } from '../models/language-model.ts';
import type { State } from '../models/state.ts';
import { crossEntropy } from '../ops/cross-entropy.ts';
import { argmax, slice } from '../tensor/primitives.ts';
import { scope } from '../tensor/scope.ts';
import { noGrad } from '../tensor/tape.ts';
import { batchTensors, countTargets } from './batch-tensors.ts';
import { IGNORE_INDEX } from './data-batches.ts';
import { carriedTokens, evaluationStream } from './data-evaluation.ts';
import { checkVocabulary, type TokenData } from './data-tokens.ts';

export interface PredictTokensOptions {
  /** Tokens at once, default 256. Memory grows with it, results do not depend on it beyond rounding. */
  length?: number;
  onProgress?: (doneTokens: number, totalTokens: number) => void;
  /** Stops between pieces with the signal's reason. */
  signal?: AbortSignal;
}

export interface TokenPredictions {
  /** Mean cross-entropy per predicted token, in nats. */
  loss: number;
  /** The likeliest token at each of them, in order. */
  best: Int32Array;
}

/** Throws ConfigError for fewer than two tokens or data with more ids than the model knows. */
export async function predictTokens(
  model: LanguageModel,
  tokens: TokenData,
  { length = 256, onProgress, signal }: PredictTokensOptions = {},
): Promise<TokenPredictions> {
  checkVocabulary(tokens, model.config.vocab_size);
  const best = new Int32Array(Math.max(0, tokens.length - 1));
  let [nats, count, read] = [0, 0, 0];
  let state: State | null = null;
  try {
    for await (const piece of evaluationStream(tokens, { length, carried: carriedTokens(model.config) })) {
      signal?.throwIfAborted();
      if (piece.resets?.[0]) {
        state?.dispose();
        state = null;
      }
      const out = noGrad(() =>
        scope(() => {
          const { ids, targets, sequenceIds } = batchTensors(piece);
          const { logits, state: after } = model.forward(ids, { state, sequenceIds });
          const words = slice(logits, -1, 0, model.config.vocab_size); // padding is no answer
          return { loss: crossEntropy(logits, targets), likeliest: argmax(words, -1), after };
        }),
      );
      state?.dispose();
      state = out.after;
      const likeliest = await out.likeliest.data();
      nats += (await out.loss.item()) * countTargets(piece);
      out.loss.dispose();
      out.likeliest.dispose();
      piece.targets.forEach((target, i) => {
        if (target !== IGNORE_INDEX) best[count++] = likeliest[i]!;
      });
      read += piece.length;
      onProgress?.(read, tokens.length - 1);
    }
  } finally {
    state?.dispose();
  }
  if (count === 0) {
    throw new ConfigError(
      `predictTokens: expected a document of at least two tokens in ${tokens.name}, got none. Give more text.`,
    );
  }
  return { loss: nats / count, best: best.subarray(0, count) };
}
