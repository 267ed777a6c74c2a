/**
 * Tokens from a model, for a batch of prompts of any lengths: the prompts are read in pieces, their
 * states forked once per sample, then every step adds a token to each sequence that still runs. Sequences
 * end one by one and leave the batch.
 */

import { turn } from '../base/turn.ts';
import type { LanguageModel } from '../models/language-model.ts';
import type { State } from '../models/state.ts';
import type { TokenLogprob } from './logprobs.ts';
import { Held, indicesOf, readPrompts, splitRows } from './prefill.ts';
import { type RowToken, Sequence } from './sequence.ts';
import { Stepper } from './stepper.ts';
import { checkPrompts, resolveTokenOptions, type TokenOptions } from './token-options.ts';

export type { FinishReason, RowToken } from './sequence.ts';
export type { TokenOptions } from './token-options.ts';

export interface TokenStep {
  /** The sequences that still ran. */
  rows: readonly RowToken[];
  /**
   * The state after these tokens; its row i belongs to rows[i]. Valid until the next step: keep rows with
   * state.rows(). In the last step, where every sequence has ended, it is the caller's to dispose.
   */
  state: State;
  /**
   * In the first step, with logprobs and echo: per prompt an entry per token (as far as it was
   * read), null for the first token.
   */
  promptLogprobs: readonly (readonly (TokenLogprob | null)[])[] | null;
  /** Takes the sequence of rows[index] out of the batch before the next step, e.g. after a stop string. */
  end(index: number): void;
}

/**
 * The first step has no tokens: it tells that the prompts were read. Throws ConfigError for options out of
 * range or an empty prompt, StateError for another model's state and for logits that are not finite,
 * ShapeError for ids outside the vocabulary and bad masks.
 */
export async function* generateTokens(
  model: LanguageModel,
  prompts: readonly (readonly number[])[],
  options: TokenOptions = {},
): AsyncGenerator<TokenStep, void, undefined> {
  const settings = resolveTokenOptions(model, prompts.length, options);
  const { maxTokens, n } = settings;
  const { signal } = options;
  const ids = checkPrompts(prompts, options);
  let active = ids.flatMap((prompt, row) =>
    Array.from({ length: n }, (_, sample) => new Sequence(row, sample, prompt, settings)),
  );

  const held = new Held(options.state ? options.state.detach() : model.initialState(prompts.length));
  const stepper = new Stepper(model);
  let isOurs = true;
  const ended = new Set<number>();
  const step = (rows: readonly RowToken[], promptLogprobs: TokenStep['promptLogprobs'] = null): TokenStep => {
    isOurs = rows.some(({ finishReason }) => finishReason === null);
    ended.clear();
    return {
      rows,
      state: isOurs ? held.state : held.own(),
      promptLogprobs,
      end: (index) => void ended.add(index),
    };
  };
  try {
    const read = await readPrompts(model, ids, held, settings, signal);
    if (n > 1) held.replace(held.state.rows(active.map(({ row }) => row)));
    const start = read.logits ? (maxTokens === 0 ? 'length' : null) : 'abort';
    let rows = active.map((sequence) => sequence.entry(start));
    let next = active.map(({ row }) => read.logits?.[row]);
    yield step(rows, read.promptLogprobs);

    for (;;) {
      const going = indicesOf(rows, ({ finishReason }, i) => finishReason === null && !ended.has(i));
      if (going.length === 0) return;
      if (going.length < rows.length) held.replace(held.state.rows(going));
      active = going.map((i) => active[i]!);
      const logits = going.map((i) => next[i]!);
      await turn();
      rows = active.map((sequence, i) =>
        signal?.aborted ? sequence.entry('abort') : sequence.next(logits[i]!),
      );
      next = await feed(stepper, rows, held);
      yield step(rows);
    }
  } finally {
    if (isOurs) held.dispose();
    stepper.dispose();
  }
}

/** Feeds the sequences that got a token; the logits after it, by position in `rows`. */
async function feed(stepper: Stepper, rows: readonly RowToken[], held: Held): Promise<Float32Array[]> {
  const fed = indicesOf(rows, ({ token }) => token !== null);
  if (fed.length === 0) return [];
  const ids = fed.map((i) => rows[i]!.token!);
  const { logits, isLent } = held.advance(fed, (state) => stepper.step(ids, state));
  const result: Float32Array[] = [];
  if (rows.some(({ finishReason }) => finishReason === null)) {
    const host = splitRows(await stepper.read(logits), fed.length);
    for (const [at, i] of fed.entries()) result[i] = host[at]!;
  }
  if (!isLent) logits.dispose();
  return result;
}
