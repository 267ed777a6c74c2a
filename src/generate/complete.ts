/** Whole completions of many prompts: what generateBatch() streams, put together. */
import type { LanguageModel } from '../models/language-model.ts';
import { type BatchOptions, type BatchPart, type Prompt, textParts } from './batch.ts';
import type { FinishReason } from './sequence.ts';
import { resolveSeeds } from './token-options.ts';

export interface Completion extends Omit<BatchPart, 'copyState' | 'finishReason'> {
  /** What a single generate() needs to give the same. */
  seed: number;
  finishReason: FinishReason;
}

/** Not at its end yet. */
type Open = Omit<Completion, 'finishReason'>;

/** Each completion when it has ended, whichever ends first. For options and errors see generateBatch(). */
export async function* completions(
  model: LanguageModel,
  prompts: readonly Prompt[],
  options: BatchOptions = {},
): AsyncGenerator<Completion, void, undefined> {
  const { n = 1 } = options;
  const seeds = resolveSeeds(options.seed, prompts.length, n);
  const open = new Map<number, Open>();
  for await (const { part, row, sample } of textParts(model, prompts, { ...options, seed: seeds })) {
    const { text, tokens, logprobs, finishReason } = part;
    const key = row * n + sample;
    const one = open.get(key) ?? {
      row,
      sample,
      seed: seeds[row]! + sample,
      text: '',
      tokens: [],
      logprobs: logprobs && [],
    };
    open.set(key, one);
    one.text += text;
    one.tokens.push(...tokens);
    one.logprobs?.push(...(logprobs ?? []));
    if (!finishReason) continue;
    open.delete(key);
    yield { ...one, finishReason };
  }
}

/** All completions: the samples of the first prompt, then those of the second, and so on. */
export async function complete(
  model: LanguageModel,
  prompts: readonly Prompt[],
  options: BatchOptions = {},
): Promise<Completion[]> {
  const all: Completion[] = [];
  for await (const one of completions(model, prompts, options)) all.push(one);
  return all.sort((a, b) => a.row - b.row || a.sample - b.sample);
}
