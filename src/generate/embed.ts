/** Texts as vectors: the hidden states after the final norm, pooled over the tokens of each text. */
import { ConfigError, ShapeError } from '../base/errors.ts';
import { turn } from '../base/turn.ts';
import type { LanguageModel } from '../models/language-model.ts';
import { matmul } from '../tensor/primitives.ts';
import { scope } from '../tensor/scope.ts';
import { noGrad } from '../tensor/tape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { expectList, type Prompt, requireTokenizer } from './batch.ts';
import { Held, type Pass, passesOf, splitRows } from './prefill.ts';

export type Pooling = 'mean' | 'last';

export interface EmbedOptions {
  /**
   * `mean`: of the hidden states of all tokens (default). `last`: that of the last token, the only one that
   * has seen the whole text of a causal model.
   */
  pooling?: Pooling;
  /** Scales each vector to length 1. Default false. */
  normalize?: boolean;
  /**
   * Texts read together, those about as long with each other. Does not change the
   * result beyond rounding. Default 16.
   */
  batchSize?: number;
  /**
   * Tokens per forward pass, over all texts of a batch. Bounds memory; does not change the
   * result beyond rounding. Default 512.
   */
  prefillTokens?: number;
  /** Throws the signal's reason, between two passes. */
  signal?: AbortSignal;
}

/**
 * A vector (d_model) per text, or per list of ids, in their order. Texts of any length: they are read in
 * pieces through the state. Throws ConfigError for an empty text (nothing to pool), for options out of range,
 * and for text without a tokenizer.
 */
export async function embed(
  model: LanguageModel,
  texts: readonly Prompt[],
  options: EmbedOptions = {},
): Promise<Float32Array[]> {
  const { pooling = 'mean', normalize = false, batchSize = 16, prefillTokens = 512, signal } = options;
  const problems: string[] = [];
  if (pooling !== 'mean' && pooling !== 'last') problems.push(`pooling mean or last, got ${String(pooling)}`);
  for (const [name, value] of Object.entries({ batchSize, prefillTokens })) {
    if (!Number.isSafeInteger(value) || value < 1) problems.push(`${name} an integer >= 1, got ${value}`);
  }
  if (problems.length > 0)
    throw new ConfigError(`embed: expected ${problems.join('; ')}. Correct these options.`);
  expectList('embed', texts);
  const ids = texts.map((text) =>
    typeof text === 'string'
      ? requireTokenizer(model.tokenizer, 'for text').encode(text, { addSpecialTokens: true })
      : text,
  );
  const empty = ids.findIndex(({ length }) => length === 0);
  if (empty >= 0) {
    throw new ConfigError(
      `embed: expected at least one token in every text, got an empty one at index ${empty}. Leave it out.`,
    );
  }
  const order = ids.map((_, i) => i).sort((a, b) => ids[b]!.length - ids[a]!.length || a - b);
  const result: Float32Array[] = [];
  for (let at = 0; at < order.length; at += batchSize) {
    const batch = order.slice(at, at + batchSize);
    const sums = await poolBatch(
      model,
      batch.map((i) => ids[i]!),
      pooling,
      prefillTokens,
      signal,
    );
    for (const [i, sum] of sums.entries()) {
      const count = pooling === 'mean' ? ids[batch[i]!]!.length : 1;
      const length = normalize ? Math.hypot(...sum) || 1 : count;
      result[batch[i]!] = Float32Array.from(sum, (x) => x / length);
    }
  }
  return result;
}

/** Per row the sum of the hidden states of its tokens, or the last of them. */
async function poolBatch(
  model: LanguageModel,
  rows: readonly (readonly number[])[],
  pooling: Pooling,
  prefillTokens: number,
  signal: AbortSignal | undefined,
): Promise<Float64Array[]> {
  const sums = rows.map(() => new Float64Array(model.config.d_model));
  const held = new Held(model.initialState(rows.length));
  try {
    for (const pass of passesOf(rows, prefillTokens)) {
      await turn();
      signal?.throwIfAborted();
      const { pooled } = held.advance(pass.rows, (state) =>
        noGrad(() =>
          scope(() => {
            const lastOnly = pooling === 'last';
            const out = model.encode(pass.ids, { state, lastOnly });
            return { state: out.state, pooled: lastOnly ? out.hidden : sumTokens(out.hidden, pass) };
          }),
        ),
      );
      const host = splitRows(await pooled.floats(), pass.rows.length);
      pooled.dispose();
      const added = pooling === 'last' ? pass.ending : pass.rows.keys();
      for (const i of added) {
        const sum = sums[pass.rows[i]!]!;
        for (const [j, x] of host[i]!.entries()) sum[j]! += x;
      }
    }
  } finally {
    held.state.dispose();
  }
  return sums;
}

/** (b, l, d) -> (b, 1, d), padding left out. */
function sumTokens(hidden: Tensor, { ids }: Pass): Tensor {
  const [b, l] = hidden.dims(3);
  const isReal = Float32Array.from({ length: b * l }, (_, at) =>
    at % l < ids[Math.floor(at / l)]!.length ? 1 : 0,
  );
  return matmul(Tensor.from(isReal, [b, 1, l], { device: hidden.device }), hidden);
}

/**
 * The cosine of the angle between two vectors, in [-1, 1]; 0 if one of them is zero. Throws
 * ShapeError for different lengths.
 */
export function cosineSimilarity(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) {
    throw new ShapeError(
      `cosineSimilarity: expected vectors of one length, got ${a.length} and ${b.length}.`,
    );
  }
  let [product, squaresA, squaresB] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    product += a[i]! * b[i]!;
    squaresA += a[i]! ** 2;
    squaresB += b[i]! ** 2;
  }
  const scale = Math.sqrt(squaresA) * Math.sqrt(squaresB);
  return scale === 0 ? 0 : Math.min(1, Math.max(-1, product / scale));
}
