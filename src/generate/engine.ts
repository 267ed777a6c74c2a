/**
 * Tokens from a model, for a batch of prompts of any lengths: the prompts are read in chunks, so memory does not grow with them,
 * then every step adds a token to each row that still runs. Rows end one by one and leave the batch.
 */
import { ConfigError, StateError } from '../base/errors.ts';
import { Rng } from '../base/rng.ts';
import type { LanguageModel } from '../models/language-model.ts';
import type { State } from '../models/state.ts';
import { noGrad } from '../tensor/tape.ts';
import { resolveSampler, type SamplerOptions, sample } from './sampler.ts';
import { turn } from './turn.ts';

/** `stop`: a stop id or stop string; `length`: maxTokens; `abort`: the signal; `eos`: the end-of-text id. */
export type FinishReason = 'stop' | 'length' | 'abort' | 'eos';

export interface TokenOptions extends SamplerOptions {
  /** Per row. 0 only reads the prompt. Default 256. */
  maxTokens?: number;
  /** Same seed, device and prompt: the same tokens, whatever else is in the batch. Default: a new one each time. */
  seed?: number;
  /** Ends a row, is not given out and does not reach the state. Default: the tokenizer's; null for none. */
  eosId?: number | null;
  /** Further ids that end a row in the same way. */
  stopIds?: readonly number[];
  /** Where to continue from, one row per prompt; not changed, not disposed. Default: an empty state. */
  state?: State | null;
  /** Ends all rows cleanly, between two steps or chunks. */
  signal?: AbortSignal;
  /** Prompt tokens per forward pass. Bounds memory; does not change the result beyond rounding. Default 512. */
  prefillTokens?: number;
}

export interface RowToken {
  /** Index of the prompt. */
  row: number;
  /** Null when the row ended without another token (end of text, abort). */
  token: number | null;
  /** Set once, in the row's last step. */
  finishReason: FinishReason | null;
}

export interface TokenStep {
  /** The rows that still ran. */
  rows: readonly RowToken[];
  /**
   * The state after these tokens; its row i belongs to rows[i]. Valid until the next step: keep rows with state.rows(). In the
   * last step, where every row has ended, it is the caller's to dispose.
   */
  state: State;
}

/** The state in use; replacing it frees the one before. */
class Held {
  state: State;

  constructor(state: State) {
    this.state = state;
  }

  replace(next: State): void {
    if (next === this.state) return;
    this.state.dispose();
    this.state = next;
  }
}

/**
 * The first step has no tokens: it tells that the prompts were read. Throws ConfigError for options out of range or an empty prompt,
 * StateError for another model's state and for logits that are not finite, ShapeError for ids outside the vocabulary.
 */
export async function* generateTokens(
  model: LanguageModel,
  prompts: readonly (readonly number[])[],
  options: TokenOptions = {},
): AsyncGenerator<TokenStep, void, undefined> {
  const { maxTokens, prefillTokens, sampler, seed, signal } = resolveTokenOptions(options);
  const empty = prompts.findIndex((prompt) => prompt.length === 0);
  if (prompts.length === 0 || empty >= 0) {
    const got = empty >= 0 ? `an empty prompt in row ${empty}` : 'no prompts';
    throw new ConfigError(`generateTokens: expected at least one id in every prompt, got ${got}. Add one.`);
  }
  if (options.state && options.state.batch !== prompts.length) {
    throw new StateError(
      `generateTokens: expected a state of ${prompts.length} rows, got ${options.state.batch}. ` +
        'Use state.rows() to choose or repeat rows.',
    );
  }
  const eosId = options.eosId === undefined ? (model.tokenizer?.eosId ?? null) : options.eosId;
  const stopIds = new Set(options.stopIds);
  const vocabSize = model.config.vocab_size;
  const rngs = prompts.map((_, row) => new Rng(seed).fork(`row ${row}`));
  const seen = prompts.map((prompt) => new Set(sampler.repetitionPenalty === 1 ? [] : prompt));

  const held = new Held(options.state ? options.state.detach() : model.initialState(prompts.length));
  let isOurs = true;
  try {
    let active = prompts.map((_, row) => row);
    let logits = await prefill(model, prompts, held, prefillTokens, signal);
    const start = logits ? (maxTokens === 0 ? 'length' : null) : 'abort';
    isOurs = start === null;
    yield { rows: active.map((row) => ({ row, token: null, finishReason: start })), state: held.state };
    if (start !== null) return;

    for (let count = 1; ; count++) {
      await turn();
      if (signal?.aborted) {
        isOurs = false;
        const finishReason = 'abort';
        yield { rows: active.map((row) => ({ row, token: null, finishReason })), state: held.state };
        return;
      }
      const rows = active.map((row, i): RowToken => {
        const token = sample(logits![i]!, vocabSize, sampler, rngs[row]!, seen[row]);
        if (token === eosId) return { row, token: null, finishReason: 'eos' };
        if (stopIds.has(token)) return { row, token: null, finishReason: 'stop' };
        if (sampler.repetitionPenalty !== 1) seen[row]!.add(token);
        return { row, token, finishReason: count === maxTokens ? 'length' : null };
      });
      const next = await feed(model, rows, held);
      isOurs = rows.some(({ finishReason }) => finishReason === null);
      yield { rows, state: held.state };
      if (!isOurs) return;
      const going = indicesOf(rows, ({ finishReason }) => finishReason === null);
      if (going.length < rows.length) held.replace(held.state.rows(going));
      active = going.map((i) => rows[i]!.row);
      logits = going.map((i) => next[i]!);
    }
  } finally {
    if (isOurs) held.state.dispose();
  }
}

function resolveTokenOptions(options: TokenOptions) {
  const {
    maxTokens = 256,
    prefillTokens = 512,
    seed = Math.floor(Math.random() * 2 ** 32),
    signal,
  } = options;
  const problems: string[] = [];
  const isCount = (n: number, min: number) => Number.isSafeInteger(n) && n >= min;
  if (!isCount(maxTokens, 0)) problems.push(`maxTokens an integer >= 0, got ${maxTokens}`);
  if (!isCount(prefillTokens, 1)) problems.push(`prefillTokens an integer >= 1, got ${prefillTokens}`);
  if (!isCount(seed, 0)) problems.push(`seed an integer >= 0, got ${seed}`);
  if (problems.length > 0) {
    throw new ConfigError(`generate: expected ${problems.join('; ')}. Correct these options.`);
  }
  return { maxTokens, prefillTokens, seed, signal, sampler: resolveSampler(options) };
}

/** Reads the prompts chunk by chunk. The logits after the last token of each row, or null when aborted. */
async function prefill(
  model: LanguageModel,
  prompts: readonly (readonly number[])[],
  held: Held,
  chunk: number,
  signal: AbortSignal | undefined,
): Promise<Float32Array[] | null> {
  const result: Float32Array[] = [];
  const longest = prompts.reduce((most, { length }) => Math.max(most, length), 0);
  for (let at = 0; at < longest; at += chunk) {
    await turn();
    if (signal?.aborted) return null;
    const rows = indicesOf(prompts, ({ length }) => length > at);
    const ids = rows.map((row) => prompts[row]!.slice(at, at + chunk));
    const logits = advance(held, rows, (state) =>
      noGrad(() => model.forward(ids, { state, lastOnly: true })),
    );
    const ending = indicesOf(rows, (row) => prompts[row]!.length <= at + chunk);
    if (ending.length > 0) {
      const last = splitRows(await logits.floats(), rows.length);
      for (const i of ending) result[rows[i]!] = last[i]!;
    }
    logits.dispose();
  }
  return result;
}

/** Feeds the rows that got a token; the logits after it, by position in `rows`. */
async function feed(model: LanguageModel, rows: readonly RowToken[], held: Held): Promise<Float32Array[]> {
  const fed = indicesOf(rows, ({ token }) => token !== null);
  if (fed.length === 0) return [];
  const ids = fed.map((i) => rows[i]!.token!);
  const logits = advance(held, fed, (state) => model.step(ids, state));
  const result: Float32Array[] = [];
  if (rows.some(({ finishReason }) => finishReason === null)) {
    const host = splitRows(await logits.floats(), fed.length);
    for (const [at, i] of fed.entries()) result[i] = host[at]!;
  }
  logits.dispose();
  return result;
}

type Output = ReturnType<LanguageModel['step']>;

/** Runs the model on some rows of the held state, puts their new state in its place, and gives the logits. */
function advance(held: Held, rows: readonly number[], run: (state: State) => Output): Output['logits'] {
  if (rows.length === held.state.batch) {
    const { logits, state } = run(held.state);
    held.replace(state);
    return logits;
  }
  const before = held.state.rows(rows);
  const { logits, state } = run(before);
  held.replace(held.state.withRows(rows, state));
  before.dispose();
  state.dispose();
  return logits;
}

function splitRows(data: Float32Array, count: number): Float32Array[] {
  const size = data.length / count;
  return Array.from({ length: count }, (_, i) => data.subarray(i * size, (i + 1) * size));
}

function indicesOf<T>(items: readonly T[], test: (item: T) => boolean): number[] {
  return items.flatMap((item, i) => (test(item) ? [i] : []));
}
