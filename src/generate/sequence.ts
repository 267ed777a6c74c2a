/**
 * One sequence of a batch: its random numbers, what it has seen, when it ends.
 * Turns logits into its next token.
 */
import { Rng } from '../base/rng.ts';
import { type TokenLogprob, tokenLogprob } from './logprobs.ts';
import { sample } from './sampler.ts';
import type { TokenSettings } from './token-options.ts';

/** `stop`: a stop id or stop string; `length`: maxTokens; `abort`: the signal; `eos`: the end-of-text id. */
export type FinishReason = 'stop' | 'length' | 'abort' | 'eos';

export interface RowToken {
  /** Index of the prompt. */
  row: number;
  /** Which of the prompt's n sequences. */
  sample: number;
  /** Null when the sequence ended without another token (end of text, abort), and in the first step. */
  token: number | null;
  /** Of the token, when they were asked for. */
  logprob: TokenLogprob | null;
  /** Set once, in the sequence's last step. */
  finishReason: FinishReason | null;
}

export class Sequence {
  readonly row: number;
  readonly sample: number;
  readonly #settings: TokenSettings;
  readonly #rng: Rng;
  /** Ids that the repetition penalty applies to; empty when it is off. */
  readonly #seen: Set<number>;
  #count = 0;

  constructor(row: number, sample: number, prompt: readonly number[], settings: TokenSettings) {
    this.row = row;
    this.sample = sample;
    this.#settings = settings;
    this.#rng = new Rng(settings.seeds[row]! + sample);
    const isUsed = settings.sampler.repetitionPenalty !== 1;
    this.#seen = new Set(isUsed ? [...(settings.seenIds[row] ?? []), ...prompt] : []);
  }

  /** What the logits (padded vocabulary, not changed) lead to. */
  next(logits: Float32Array): RowToken {
    const { eosId, stopIds, logitBias, logprobs, maxTokens, sampler, vocabSize } = this.#settings;
    const biased = logitBias.size > 0 ? withBias(logits, logitBias) : logits;
    const token = sample(biased, vocabSize, sampler, this.#rng, this.#seen);
    if (token === eosId) return this.entry('eos');
    if (stopIds.has(token)) return this.entry('stop');
    if (sampler.repetitionPenalty !== 1) this.#seen.add(token);
    this.#count++;
    return {
      ...this.entry(this.#count === maxTokens ? 'length' : null),
      token,
      logprob: logprobs === null ? null : tokenLogprob(logits, vocabSize, token, logprobs),
    };
  }

  /** A step of this sequence without a token. */
  entry(finishReason: FinishReason | null): RowToken {
    const { row, sample } = this;
    return { row, sample, token: null, logprob: null, finishReason };
  }
}

function withBias(logits: Float32Array, bias: ReadonlyMap<number, number>): Float32Array {
  const copy = logits.slice();
  for (const [id, value] of bias) copy[id]! += value;
  return copy;
}
