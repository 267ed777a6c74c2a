/**
 * Text in, text out, for many prompts and several samples of each: decodes the engine's tokens as they
 * come and ends at stop strings.
 */
import { ConfigError } from '../base/errors.ts';
import type { Tokenizer } from '../base/tokenizer.ts';
import type { AttentionMask } from '../models/inputs.ts';
import type { LanguageModel } from '../models/language-model.ts';
import type { State } from '../models/state.ts';
import { generateTokens, type TokenStep } from './engine.ts';
import type { TokenLogprob } from './logprobs.ts';
import { PartBuffer, SharedState, type TextPart } from './part-buffer.ts';
import type { FinishReason } from './sequence.ts';
import { resolveSeeds, type TokenOptions, withoutPadding } from './token-options.ts';

export type Prompt = string | readonly number[];

export interface BatchOptions extends TokenOptions {
  /** Ends the text before any of these; they may span tokens. Needs a tokenizer. */
  stop?: string | readonly string[];
  /**
   * Begins the text and the tokens of each sequence with its prompt; with
   * logprobs, theirs too. Default false.
   */
  echo?: boolean;
  /** Padding in prompts of ids, on either side; texts have none. */
  attentionMask?: AttentionMask;
  /**
   * Sequences computed together; further prompts wait until all of these have ended. Bounds memory; does not
   * change the result beyond rounding. Default 16.
   */
  batchSize?: number;
}

export interface BatchPart {
  /** Index of the prompt. */
  row: number;
  /** Which of the prompt's n sequences. */
  sample: number;
  /**
   * Never half a character, never part of a stop string. All parts of a sequence together
   * are what its tokens decode to.
   */
  text: string;
  /** The ids behind the text; all of them when the model has no tokenizer. */
  tokens: number[];
  /** Of each token, when they were asked for; null for the first of an echoed prompt. */
  logprobs: (TokenLogprob | null)[] | null;
  /** Set in the sequence's last part only. */
  finishReason: FinishReason | null;
  /**
   * A copy of the sequence's state after the text so far, the caller's to dispose. Only
   * until the next part is asked for.
   */
  copyState(): State;
}

/**
 * Streams completions of all prompts, texts or ids, as they grow: parts of different sequences alternate. A
 * sequence ends by itself and costs nothing from then on. Empty prompts begin as in generate().
 *
 * Throws ConfigError for options out of range and for text without a tokenizer; see
 * generateTokens() for the rest.
 */
export async function* generateBatch(
  model: LanguageModel,
  prompts: readonly Prompt[],
  options: BatchOptions = {},
): AsyncGenerator<BatchPart, void, undefined> {
  for await (const { part, ...where } of textParts(model, prompts, options)) {
    const { place, ...rest } = part;
    yield { ...where, ...rest, copyState: () => place.shared.state.rows([place.index]) };
  }
}

/**
 * The engine's steps as text, for generate(), generateBatch() and completions(). A part's place is held
 * until the next part is asked for.
 */
export async function* textParts(
  model: LanguageModel,
  prompts: readonly Prompt[],
  options: BatchOptions,
): AsyncGenerator<{ row: number; sample: number; part: TextPart }, void, undefined> {
  const { n = 1, batchSize = 16, state = null, stop = [], attentionMask, ...rest } = options;
  if (!Number.isSafeInteger(batchSize) || batchSize < 1) {
    throw new ConfigError(
      `generate: expected batchSize an integer >= 1, got ${batchSize}. Correct this option.`,
    );
  }
  const stops = typeof stop === 'string' ? [stop] : stop;
  if (stops.length > 0) requireTokenizer(model.tokenizer, 'for stop strings');
  expectList('generate', prompts);
  const all = realIds(prompts, attentionMask).map((prompt) => promptIds(model.tokenizer, prompt, state));
  const seeds = resolveSeeds(options.seed, all.length, n);
  const count = Math.max(1, Math.floor(batchSize / n));
  for (let at = 0; at < all.length || at === 0; at += count) {
    const ids = all.slice(at, at + count);
    const isAll = ids.length === all.length;
    const own = state && !isAll ? state.rows(ids.map((_, i) => at + i)) : state;
    const seenIds = rest.seenIds?.slice(at, at + count);
    const group = { ...rest, n, seed: seeds.slice(at, at + count), state: own, seenIds };
    try {
      for await (const { row, ...part } of groupParts(model, ids, stops, group)) {
        yield { row: at + row, ...part };
      }
    } finally {
      if (own !== state) own?.dispose();
    }
  }
}

/** Prompts that are computed together. */
async function* groupParts(
  model: LanguageModel,
  ids: readonly (readonly number[])[],
  stops: readonly string[],
  options: TokenOptions,
): AsyncGenerator<{ row: number; sample: number; part: TextPart }, void, undefined> {
  const { n = 1, echo = false, logprobs } = options;
  const hasLogprobs = logprobs !== undefined;
  const buffers = ids.flatMap(() =>
    Array.from({ length: n }, () => new PartBuffer(model.tokenizer, stops, hasLogprobs)),
  );
  let isFirst = true;
  try {
    for await (const step of generateTokens(model, ids, options)) {
      const isLast = step.rows.every(({ finishReason }) => finishReason);
      const shared = new SharedState(step.state, isLast || stops.length > 0);
      if (isLast) step.state.dispose(); // the engine's last state is ours
      try {
        for (const [index, entry] of step.rows.entries()) {
          const { row, sample } = entry;
          const buffer = buffers[row * n + sample]!;
          const prompt = isFirst && echo ? echoOf(ids[row]!, step.promptLogprobs?.[row]) : [];
          const part = buffer.push(entry, { shared, index }, prompt);
          if (part) yield { row, sample, part };
          if (!part?.finishReason) continue;
          step.end(index);
          buffer.dispose();
        }
      } finally {
        shared.release();
      }
      isFirst = false;
    }
  } finally {
    for (const buffer of buffers) buffer.dispose();
  }
}

/** When an abort cut the reading short, the tokens after it have no log-probabilities. */
function echoOf(
  ids: readonly number[],
  logprobs: NonNullable<TokenStep['promptLogprobs']>[number] | undefined,
) {
  return ids.map((token, i) => ({ token, logprob: logprobs?.[i] ?? null }));
}

/** One text in the place of a list is a common slip where no compiler looks. */
export function expectList(op: string, texts: unknown): void {
  if (Array.isArray(texts)) return;
  throw new ConfigError(
    `${op}: expected a list of texts or of token ids, got ${typeof texts}. Write [text].`,
  );
}

function realIds(prompts: readonly Prompt[], mask: AttentionMask | undefined): readonly Prompt[] {
  if (!mask) return prompts;
  const ids = prompts.map((prompt) => {
    if (typeof prompt !== 'string') return prompt;
    throw new ConfigError('generate: expected ids under an attentionMask, got text. Leave the mask out.');
  });
  return withoutPadding(ids, mask);
}

function promptIds(tokenizer: Tokenizer | null, prompt: Prompt, state: State | null): readonly number[] {
  const ids =
    typeof prompt === 'string'
      ? requireTokenizer(tokenizer, 'for text').encode(
          prompt,
          state ? { isContinuation: true } : { addSpecialTokens: true },
        )
      : prompt;
  if (ids.length > 0) return ids;
  if (state) {
    throw new ConfigError(
      'generate: expected a prompt to continue a state with, got an empty one. Give at least one token.',
    );
  }
  const start = tokenizer?.eosId ?? (tokenizer?.kind === 'bytes' ? NEWLINE : null);
  if (start !== null) return [start];
  throw new ConfigError(
    'generate: expected a prompt, got an empty one, and the tokenizer has no end-of-text id to start from. Give a prompt.',
  );
}

/** What a byte model starts from: a text may begin after a line break. */
const NEWLINE = 10;

export function requireTokenizer(tokenizer: Tokenizer | null, purpose: string): Tokenizer {
  if (tokenizer) return tokenizer;
  throw new ConfigError(
    `generate: expected a model with a tokenizer ${purpose}, got none. Pass token ids, or name a tokenizer (--tokenizer, for loadModel an option).`,
  );
}
