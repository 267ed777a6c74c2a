/** Classifiers and texts for the tests of this folder. */
import { readFileSync } from 'node:fs';
import { type Backend, withDevice } from '../../src/backend/backend.ts';
import type { Tokenizer } from '../../src/base/tokenizer.ts';
import { byteTokenizer, Classifier, type ClassifierHead, tokenizerFromJson } from '../../src/index.ts';
import { POOLINGS } from '../../src/models/classifier-config.ts';

export const LABELS = ['bad', 'good', 'mixed'];

export const KINDS = POOLINGS.flatMap((pooling) =>
  [false, true].map((bidirectional) => ({ pooling, bidirectional })),
);

export function bert(): Tokenizer {
  const file = JSON.parse(readFileSync(new URL('../fixtures/tokenizers/bert.json', import.meta.url), 'utf8'));
  return tokenizerFromJson(file['tokenizer.json'], file['tokenizer_config.json']);
}

/** Small, with scores far enough from equal that a mistake shows. */
export function makeClassifier(
  device: Backend,
  head: Partial<ClassifierHead> = {},
  options: { tokenizer?: Tokenizer; d?: number; seed?: number } = {},
): Classifier {
  const { tokenizer = byteTokenizer(), d = 24, seed = 5 } = options;
  return withDevice(device, () => {
    const backbone = { d_model: d, n_layer: 2, vocab_size: tokenizer.vocabSize };
    const model = new Classifier({ backbone, labels: LABELS, ...head }, { seed });
    model.tokenizer = tokenizer;
    return model;
  });
}

/** `length` characters of words, different for every `seed`. */
export function textOf(length: number, seed: number): string {
  const words = ['a', 'night', 'of', 'films,', 'none', 'worth', 'it.', 'Truly', 'great', '(and', 'long)'];
  let text = '';
  for (let i = seed; text.length < length; i = (i * 31 + 7) % 1009) text += `${words[i % words.length]} `;
  return `${text.slice(0, length - 1)}${'xyz'[seed % 3]}`;
}
