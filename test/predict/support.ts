/** Classifiers and texts for the tests of this folder. */
import { readFileSync } from 'node:fs';
import { type Backend, withDevice } from '../../src/backend/backend.ts';
import type { Tokenizer } from '../../src/base/tokenizer.ts';
import { byteTokenizer, Classifier, type ClassifierHead, tokenizerFromJson } from '../../src/index.ts';
import { POOLINGS } from '../../src/models/classifier-config.ts';
import type { ModelConfigInput } from '../../src/models/config.ts';

export const LABELS = ['bad', 'good', 'mixed'];

export const KINDS = POOLINGS.flatMap((pooling) =>
  [false, true].map((bidirectional) => ({ pooling, bidirectional })),
);

export function bert(): Tokenizer {
  const file = JSON.parse(readFileSync(new URL('../fixtures/tokenizers/bert.json', import.meta.url), 'utf8'));
  return tokenizerFromJson(file['tokenizer.json'], file['tokenizer_config.json']);
}

/** What every other architecture adds to the two layers of a backbone. */
export const SHAPES = {
  mamba2: { model_type: 'mamba2', d_state: 16, headdim: 12, ngroups: 2 },
  mamba3: { model_type: 'mamba3', d_state: 16, headdim: 12 },
  'mamba3 of rank 2': { model_type: 'mamba3', d_state: 16, headdim: 12, is_mimo: true, mimo_rank: 2 },
  hybrid: {
    model_type: 'mamba2',
    d_state: 16,
    headdim: 12,
    attn_layer_idx: [1],
    attn_cfg: { num_heads: 4, num_heads_kv: 2, rotary_emb_dim: 4, d_conv: 4 },
  },
} as const;

/** Small, with scores far enough from equal that a mistake shows. */
export function makeClassifier(
  device: Backend,
  head: Partial<ClassifierHead> = {},
  options: {
    tokenizer?: Tokenizer;
    d?: number;
    seed?: number;
    shape?: (typeof SHAPES)[keyof typeof SHAPES];
  } = {},
): Classifier {
  const { tokenizer = byteTokenizer(), d = 24, seed = 5, shape } = options;
  return withDevice(device, () => {
    const backbone = {
      ...shape,
      d_model: d,
      n_layer: 2,
      vocab_size: tokenizer.vocabSize,
    } as ModelConfigInput;
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
