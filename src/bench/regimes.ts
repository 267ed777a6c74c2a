/**
 * The three regimes, each run once: reading prompts, continuing them, training on them.
 * Seconds and the least work of each.
 */
import { UnsupportedError } from '../base/errors.ts';
import { isNarrow } from '../base/weight-types.ts';
import { generateTokens } from '../generate/engine.ts';
import type { LanguageModel } from '../models/language-model.ts';
import { scope } from '../tensor/scope.ts';
import { Tensor } from '../tensor/tensor.ts';
import { AdamW } from '../train/adamw.ts';
import type { Task } from './limits.ts';
import type { BenchSettings } from './options.ts';
import type { Work } from './work.ts';

/** Prompt tokens of one forward pass, the default of generation. */
const PASS_TOKENS = 512;
/** Backward: two more products for each, and the recurrence computed again and twice more. */
const TRAIN_PRODUCTS = 3;
const TRAIN_RECURRENCES = 4;
/** AdamW reads parameter, gradient and two moments and writes all but the gradient. */
const OPTIMIZER_BYTES = 28;

/** Ids spread over the vocabulary, the same in every run. */
export function benchIds(vocabSize: number, count: number): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => (i * 7919 + 11) % vocabSize);
}

/** Reads the prompts and continues them through the public engine, greedily. Seconds of each part. */
export async function runGeneration(
  model: LanguageModel,
  { batch, prompt, generate }: BenchSettings,
): Promise<{ prefill: number; decode: number }> {
  const ids = benchIds(model.config.vocab_size, batch * prompt);
  const prompts = Array.from({ length: batch }, (_, row) => [
    ...ids.subarray(row * prompt, (row + 1) * prompt),
  ]);
  const start = performance.now();
  let read: number | null = null;
  for await (const step of generateTokens(model, prompts, {
    maxTokens: generate,
    temperature: 0,
    eosId: null,
  })) {
    read ??= performance.now();
    if (step.rows.every(({ finishReason }) => finishReason !== null)) step.state.dispose();
  }
  const end = performance.now();
  return { prefill: (read! - start) / 1000, decode: (end - read!) / 1000 };
}

/** Training steps on the same batch. Throws UnsupportedError for narrow weights. */
export function trainer(model: LanguageModel, { batch, prompt }: BenchSettings): () => Promise<number> {
  const narrow = model.parameters().find(({ dtype }) => isNarrow(dtype));
  if (narrow) {
    throw new UnsupportedError(
      `bench: expected f32 weights for training, got ${narrow.dtype}. Measure training with weights f32, or leave it out.`,
    );
  }
  model.requireGrad(true);
  const optimizer = new AdamW(model.namedParameters(), { maxNorm: 1 });
  const ids = benchIds(model.config.vocab_size, batch * prompt);
  return async () => {
    const start = performance.now();
    const loss = scope(() => {
      const x = Tensor.from(ids, [batch, prompt]);
      const out = model.loss(x, x);
      out.loss.backward();
      return out.loss;
    });
    optimizer.step(1e-4).dispose();
    await loss.item();
    loss.dispose();
    return (performance.now() - start) / 1000;
  };
}

/** The least work of one run of each regime. */
export function tasksOf(work: Work, { batch, prompt, generate }: BenchSettings): Record<Regime, Task> {
  const { layers, head, recurrence, attention, weightBytes, parameters } = work;
  const tokens = batch * prompt;
  const looking = (attention * prompt) / 2;
  return {
    prefill: {
      product: tokens * layers + batch * head,
      float: tokens * (recurrence + looking),
      bytes: Math.ceil(tokens / PASS_TOKENS) * weightBytes,
    },
    decode: {
      product: batch * generate * (layers + head),
      float: batch * generate * (recurrence + attention * (prompt + generate / 2)),
      bytes: generate * weightBytes,
    },
    train: {
      product: TRAIN_PRODUCTS * tokens * (layers + head),
      float: tokens * (TRAIN_RECURRENCES * recurrence + TRAIN_PRODUCTS * looking),
      bytes: OPTIMIZER_BYTES * parameters,
    },
  };
}

export type Regime = 'prefill' | 'decode' | 'train';
