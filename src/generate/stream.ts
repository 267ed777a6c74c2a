/** One prompt, one completion: generateBatch() with a single sequence, whose state comes with every part. */
import type { LanguageModel } from '../models/language-model.ts';
import type { State } from '../models/state.ts';
import { type BatchOptions, type BatchPart, type Prompt, textParts } from './batch.ts';

export interface GenerateOptions extends Omit<BatchOptions, 'n' | 'seed' | 'attentionMask' | 'batchSize'> {
  /** The same seed, device and prompt give the same text. Default: a new one each time. */
  seed?: number;
}

export interface GeneratedPart extends Omit<BatchPart, 'row' | 'sample' | 'copyState'> {
  /**
   * After prompt and tokens of all parts so far. Valid until the next part is asked for or the loop is left:
   * clone() it to keep it. The state of the last part is the caller's, to dispose when done.
   */
  state: State;
}

/**
 * Streams a completion of `prompt`, text or ids. An empty prompt starts from the tokenizer's end-of-text id,
 * or from a newline if the tokens are bytes. The last part has a finishReason. A token that straddles the
 * start of a stop string counts as given out if any of its text was.
 *
 * Throws ConfigError for options out of range and for text without a tokenizer; see
 * generateTokens() for the rest.
 */
export async function* generate(
  model: LanguageModel,
  prompt: Prompt,
  options: GenerateOptions = {},
): AsyncGenerator<GeneratedPart, void, undefined> {
  for await (const { part } of textParts(model, [prompt], options)) {
    const { place, ...rest } = part;
    const { state } = place.shared;
    yield { ...rest, state: rest.finishReason ? state.detach() : state };
  }
}
