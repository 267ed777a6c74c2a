/** A tiny language model and a text that it can learn, for tests of training. */
import { Rng } from '../../src/base/rng.ts';
import { LanguageModel } from '../../src/models/language-model.ts';
import { byteTokenizer } from '../../src/text/index.ts';
import { memoryTokens, type TokenData } from '../../src/train/data-tokens.ts';

export function toyModel(seed = 1): LanguageModel {
  const model = new LanguageModel({ d_model: 8, n_layer: 2, vocab_size: 256, d_state: 4 }, { seed });
  model.tokenizer = byteTokenizer();
  return model;
}

export const toyText = Array.from({ length: 40 }, (_, i) => `${i % 7} whales and ${i % 5} ships. `).join('');

export function toyTokens(documentStarts?: number[]): TokenData {
  return memoryTokens(new TextEncoder().encode(toyText), { vocabSize: 256, documentStarts, name: 'toy' });
}

export const toyRng = (): Rng => new Rng(5).fork('data');

/** All parameters, one after another. */
export async function weightsOf(model: LanguageModel): Promise<number[]> {
  const all: number[] = [];
  for (const tensor of model.parameters()) for (const x of await tensor.floats()) all.push(x);
  return all;
}
