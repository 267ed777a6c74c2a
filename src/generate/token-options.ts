/** The options of the token engine: what they mean, which values hold, and the seed of each sequence. */
import { ConfigError, StateError } from '../base/errors.ts';
import { type AttentionMask, maskSpans } from '../models/inputs.ts';
import type { LanguageModel } from '../models/language-model.ts';
import type { State } from '../models/state.ts';
import { resolveSampler, type Sampler, type SamplerOptions } from './sampler.ts';

export interface TokenOptions extends SamplerOptions {
  /** Per sequence. 0 only reads the prompt. Default 256. */
  maxTokens?: number;
  /** Sequences per prompt. The prompt is read once and its state forked. Default 1. */
  n?: number;
  /**
   * A list has one seed per prompt; sample i of it draws from seed + i. One number s stands for the list
   * s, s + n, s + 2n, ... so that no two sequences draw alike. The same seed, device and prompt give the
   * same tokens, whatever else is in the batch, except where rounding decides (see
   * docs/guide/generate.md). Default: a new one each time.
   */
  seed?: number | readonly number[];
  /**
   * Ends a sequence, is not given out and does not reach the state. Default: the tokenizer's, without one
   * that of the model's config.json; null for none.
   */
  eosId?: number | null;
  /** Further ids that end a sequence in the same way. */
  stopIds?: readonly number[];
  /**
   * Added to the logits of these ids before anything else; -Infinity bans an id. The
   * ids are those below vocab_size.
   */
  logitBias?: Readonly<Record<number, number>> | ReadonlyMap<number, number>;
  /**
   * Gives the log-probability of each token, and of this many of the likeliest. They are the
   * model's own: natural logarithms over the ids below vocab_size, before bias, penalty,
   * temperature and filters. Default: none.
   */
  logprobs?: number;
  /** With logprobs: those of the prompt's tokens too, in the first step. Default false. */
  echo?: boolean;
  /**
   * Per prompt: ids behind `state`, for the repetition penalty, which else knows
   * the prompt only. Default: none.
   */
  seenIds?: readonly (readonly number[])[];
  /** Padding in the prompts, on either side: see ForwardOptions. It is taken away before anything is read. */
  attentionMask?: AttentionMask;
  /** Where to continue from, one row per prompt; not changed, not disposed. Default: an empty state. */
  state?: State | null;
  /** Ends all sequences cleanly, between two steps or passes. */
  signal?: AbortSignal;
  /**
   * Prompt tokens per forward pass, over all rows. Bounds memory; does not change the
   * result beyond rounding. Default 512.
   */
  prefillTokens?: number;
}

/** TokenOptions with all defaults. */
export interface TokenSettings {
  maxTokens: number;
  n: number;
  /** Per prompt. */
  seeds: readonly number[];
  eosId: number | null;
  stopIds: ReadonlySet<number>;
  /** Per prompt. */
  seenIds: readonly (readonly number[])[];
  logitBias: ReadonlyMap<number, number>;
  logprobs: number | null;
  echo: boolean;
  prefillTokens: number;
  sampler: Sampler;
  vocabSize: number;
}

const isCount = (n: number, min: number) => Number.isSafeInteger(n) && n >= min;

/** Throws ConfigError that lists every field out of range. */
export function resolveTokenOptions(
  model: LanguageModel,
  prompts: number,
  options: TokenOptions,
): TokenSettings {
  const { maxTokens = 256, n = 1, prefillTokens = 512, logprobs = null, echo = false } = options;
  const { vocab_size: vocabSize } = model.config;
  const problems: string[] = [];
  if (!isCount(maxTokens, 0)) problems.push(`maxTokens an integer >= 0, got ${maxTokens}`);
  if (!isCount(prefillTokens, 1)) problems.push(`prefillTokens an integer >= 1, got ${prefillTokens}`);
  if (logprobs !== null && !isCount(logprobs, 0)) problems.push(`logprobs an integer >= 0, got ${logprobs}`);
  const seeds = seedsOf(options.seed, prompts, n);
  problems.push(...seedProblems(seeds, prompts, n));
  const logitBias = resolveLogitBias(options.logitBias, vocabSize, problems);
  failOn(problems);
  return {
    maxTokens,
    n,
    seeds,
    eosId:
      options.eosId === undefined ? (model.tokenizer ? model.tokenizer.eosId : model.eosId) : options.eosId,
    stopIds: new Set(options.stopIds),
    seenIds: options.seenIds ?? [],
    logitBias,
    logprobs,
    echo,
    prefillTokens,
    sampler: resolveSampler(options),
    vocabSize,
  };
}

/** One seed per prompt; see TokenOptions.seed. Throws ConfigError for seeds or an n out of range. */
export function resolveSeeds(seed: TokenOptions['seed'], prompts: number, n: number): readonly number[] {
  const seeds = seedsOf(seed, prompts, n);
  failOn(seedProblems(seeds, prompts, n));
  return seeds;
}

function seedsOf(seed: TokenOptions['seed'], prompts: number, n: number): readonly number[] {
  if (typeof seed === 'object') return seed;
  const first = seed ?? Math.floor(Math.random() * 2 ** 32);
  return Array.from({ length: prompts }, (_, row) => first + row * n);
}

function seedProblems(seeds: readonly number[], prompts: number, n: number): string[] {
  if (!isCount(n, 1)) return [`n an integer >= 1, got ${n}`];
  if (seeds.length !== prompts) return [`a seed for each of ${prompts} prompts, got ${seeds.length}`];
  const bad = seeds.find((value) => !isCount(value, 0) || !isCount(value + n - 1, 0));
  return bad === undefined ? [] : [`seed an integer >= 0, got ${bad}`];
}

function failOn(problems: readonly string[]): void {
  if (problems.length === 0) return;
  throw new ConfigError(`generate: expected ${problems.join('; ')}. Correct these options.`);
}

function resolveLogitBias(
  given: TokenOptions['logitBias'],
  vocabSize: number,
  problems: string[],
): ReadonlyMap<number, number> {
  const entries = given instanceof Map ? [...given] : Object.entries(given ?? {}).map(([id, b]) => [+id, b]);
  const bias = new Map<number, number>();
  for (const [id, value] of entries as [number, number][]) {
    if (!isCount(id, 0) || id >= vocabSize) problems.push(`logitBias of ids in [0, ${vocabSize}), got ${id}`);
    else if (!Number.isFinite(value) && value !== Number.NEGATIVE_INFINITY) {
      problems.push(`logitBias finite or -Infinity, got ${value} for id ${id}`);
    } else bias.set(id, value);
  }
  if (vocabSize > 0 && [...bias.values()].filter((b) => b === Number.NEGATIVE_INFINITY).length === vocabSize)
    problems.push('logitBias that leaves an id to choose, got -Infinity for all');
  return bias;
}

/**
 * The prompts without their padding. Throws ConfigError for an empty one, StateError for a state of other
 * rows, ShapeError for a bad mask.
 */
export function checkPrompts(
  prompts: readonly (readonly number[])[],
  { attentionMask, state }: TokenOptions,
): readonly (readonly number[])[] {
  const empty = prompts.findIndex((prompt) => prompt.length === 0);
  if (prompts.length === 0 || empty >= 0) {
    const got = empty >= 0 ? `an empty prompt in row ${empty}` : 'no prompts';
    throw new ConfigError(`generateTokens: expected at least one id in every prompt, got ${got}. Add one.`);
  }
  if (state && state.batch !== prompts.length) {
    throw new StateError(
      `generateTokens: expected a state of ${prompts.length} rows, got ${state.batch}. ` +
        'Use state.rows() to choose or repeat rows.',
    );
  }
  return attentionMask ? withoutPadding(prompts, attentionMask) : prompts;
}

/** Throws ShapeError for a bad mask. */
export function withoutPadding(
  prompts: readonly (readonly number[])[],
  mask: AttentionMask,
): readonly (readonly number[])[] {
  const spans = maskSpans(
    mask,
    prompts.map(({ length }) => length),
  );
  return spans.map(({ start, length }, row) => prompts[row]!.slice(start, start + length));
}
