/**
 * How well a model predicts held-out tokens: every token but the first is predicted exactly once, without
 * sampling or dropout, so the same weights give the same numbers.
 */
import { ConfigError, StateError } from '../base/errors.ts';
import type { Tokenizer } from '../base/tokenizer.ts';
import type { LanguageModel } from '../models/language-model.ts';
import type { State } from '../models/state.ts';
import { scope } from '../tensor/scope.ts';
import { noGrad } from '../tensor/tape.ts';
import { batchTensors, countTargets } from './batch-tensors.ts';
import { carriedTokens, evaluationStream, evaluationWindows, targetTextBytes } from './data-evaluation.ts';
import { checkVocabulary, type TokenData } from './data-tokens.ts';

export interface EvaluateOptions {
  /** Tokens per window, default 1024. Longer windows see more context and give lower losses. */
  window?: number;
  /** Windows at once, default 8. It does not change the result beyond rounding. */
  batch?: number;
  /**
   * `windows`: each window from a zero state (default); `stream`: one pass that carries the state
   * to the end. With attention layers, whose state grows, it starts anew before it holds more
   * than ATTENTION_CONTEXT tokens.
   */
  mode?: 'windows' | 'stream';
  /** For bits per byte. Default: the model's own. */
  tokenizer?: Tokenizer | null;
  /** Called after each batch. */
  onProgress?: (doneTokens: number, totalTokens: number) => void;
  /** Stops between batches with the signal's reason. */
  signal?: AbortSignal;
}

export interface Evaluation {
  /** Mean cross-entropy per token, in nats. */
  loss: number;
  /** exp(loss). */
  perplexity: number;
  bitsPerToken: number;
  /** Of the UTF-8 text behind the predicted tokens; null without a tokenizer. */
  bitsPerByte: number | null;
  /** Tokens predicted. */
  tokens: number;
  /** Bytes of text they stand for; null without a tokenizer. */
  bytes: number | null;
}

/**
 * Throws ConfigError for fewer than two tokens or data with more ids than the model knows, StateError
 * for a loss that is not finite.
 */
export async function evaluate(
  model: LanguageModel,
  tokens: TokenData,
  options: EvaluateOptions = {},
): Promise<Evaluation> {
  const {
    window = 1024,
    batch = 8,
    mode = 'windows',
    tokenizer = model.tokenizer,
    onProgress,
    signal,
  } = options;
  checkVocabulary(tokens, model.config.vocab_size);
  const batches =
    mode === 'stream'
      ? evaluationStream(tokens, { length: window, carried: carriedTokens(model.config) })
      : evaluationWindows(tokens, { batch, length: window });
  let nats = 0;
  let count = 0;
  let state: State | null = null;
  try {
    for await (const piece of batches) {
      signal?.throwIfAborted();
      const targets = countTargets(piece);
      if (piece.resets?.[0]) {
        state?.dispose();
        state = null;
      }
      const carry = mode === 'stream';
      const out = noGrad(() =>
        scope(() => {
          const { ids, targets, sequenceIds } = batchTensors(piece);
          const { loss, state: after } = model.loss(ids, targets, { state, sequenceIds });
          return { loss, after: carry ? after : null };
        }),
      );
      state?.dispose();
      state = out.after;
      const loss = await out.loss.item();
      out.loss.dispose();
      if (!Number.isFinite(loss)) {
        throw new StateError(
          `evaluate: expected a finite loss, got ${loss}. The weights are damaged or training has diverged: use an earlier checkpoint.`,
        );
      }
      nats += loss * targets;
      count += targets;
      onProgress?.(count, tokens.length - 1);
    }
  } finally {
    state?.dispose();
  }
  if (count === 0) {
    throw new ConfigError(
      `evaluate: expected a document of at least two tokens in ${tokens.name}, got none. Give more text.`,
    );
  }
  const bytes = tokenizer ? await targetTextBytes(tokens, tokenizer) : null;
  const loss = nats / count;
  return {
    loss,
    perplexity: Math.exp(loss),
    bitsPerToken: loss / Math.LN2,
    bitsPerByte: bytes ? nats / Math.LN2 / bytes : null,
    tokens: count,
    bytes,
  };
}
