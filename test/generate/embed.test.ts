/** Embeddings: pooled by hand, alone or together, in any pieces, without memory that grows. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { useDevice } from '../../src/backend/backend.ts';
import {
  ConfigError,
  cosineSimilarity,
  LanguageModel,
  noGrad,
  Rng,
  ShapeError,
} from '../../src/index.node.ts';
import { byteTokenizer } from '../../src/text/index.ts';
import { devices, reportMissing } from '../kernels/devices.ts';
import { roundings } from '../models/roundings.ts';
import { settle } from '../support/settle.ts';

beforeEach(settle);
reportMissing();

const rng = new Rng(4);
const TEXTS = [5, 1, 23, 23, 60, 2].map((n) => Array.from({ length: n }, () => rng.below(256)));
const LONGEST = 60;

describe.each(devices)('embed on $label', ({ backend }) => {
  let model: LanguageModel;
  beforeAll(async () => {
    await useDevice(backend);
    model = new LanguageModel({ vocab_size: 256, d_model: 20, n_layer: 2, d_state: 4 }, { seed: 8 });
    model.tokenizer = byteTokenizer();
  });
  afterAll(() => model.dispose());

  /** Roundings of the hidden states as of logits, those of the sum over tokens and of the division on top; relative to what is summed. */
  const expectClose = (actual: Float32Array, expected: ArrayLike<number>, scale: number) => {
    const relative = 2 * (roundings(model.config, LONGEST) + LONGEST + 4) * 2 ** -24;
    expect(actual).toHaveLength(expected.length);
    for (const [i, x] of actual.entries())
      expect(Math.abs(x - expected[i]!)).toBeLessThanOrEqual(relative * scale);
  };

  it.each(['mean', 'last'] as const)(
    '%s: what encode() gives, whatever is read together',
    async (pooling) => {
      const { liveBytes } = backend.memory;
      const expected: Float64Array[] = [];
      let scale = 0;
      for (const ids of TEXTS) {
        const { hidden, state } = noGrad(() => model.encode([ids]));
        const host = await hidden.floats();
        hidden.dispose();
        state.dispose();
        const d = model.config.d_model;
        scale = Math.max(scale, ...host.map(Math.abs));
        expected.push(
          Float64Array.from({ length: d }, (_, j) => {
            if (pooling === 'last') return host[(ids.length - 1) * d + j]!;
            return ids.reduce((sum, _, t) => sum + host[t * d + j]! / ids.length, 0);
          }),
        );
      }
      for (const options of [
        {},
        { batchSize: 1 },
        { batchSize: 4, prefillTokens: 7 },
        { prefillTokens: 1 },
      ]) {
        const vectors = await model.embed(TEXTS, { pooling, ...options });
        expect(vectors).toHaveLength(TEXTS.length);
        for (const [i, vector] of vectors.entries()) expectClose(vector, expected[i]!, scale);
        const shuffled = await model.embed([...TEXTS].reverse(), { pooling, ...options });
        for (const [i, vector] of shuffled.reverse().entries()) expectClose(vector, expected[i]!, scale);
      }
      const [scaled] = await model.embed(TEXTS.slice(0, 1), { pooling, normalize: true });
      const length = Math.hypot(...expected[0]!);
      expectClose(
        scaled!,
        expected[0]!.map((x) => x / length),
        scale / length,
      );
      expect(backend.memory.liveBytes).toBe(liveBytes);
    },
  );

  it('a long text, and many, need no more memory than a pass and the states of a batch', async () => {
    const peakOf = async (texts: string[]) => {
      await model.embed(texts, { prefillTokens: 32, batchSize: 2 });
      backend.resetPeak();
      const start = backend.memory.liveBytes;
      await model.embed(texts, { prefillTokens: 32, batchSize: 2 });
      return backend.memory.peakBytes - start;
    };
    const short = await peakOf(['x'.repeat(64), 'y'.repeat(64)]);
    expect(await peakOf(Array.from({ length: 5 }, () => 'z'.repeat(640)))).toBe(short);
  });

  it('reads text through the tokenizer', async () => {
    const ids = [...new TextEncoder().encode('é!')];
    expect(await model.embed(['é!'])).toEqual(await model.embed([ids]));
    expect(await model.embed([])).toEqual([]);
  });

  it('refuses empty texts by their index, options out of range, text without a tokenizer; ends when aborted', async () => {
    await expect(model.embed(['a', ''])).rejects.toThrow('an empty one at index 1');
    const bad = { pooling: 'max' as 'mean', batchSize: 0, prefillTokens: 1.5 };
    await expect(model.embed(['a'], bad)).rejects.toThrow(/pooling.*batchSize.*prefillTokens/);
    const { liveBytes } = backend.memory;
    await expect(model.embed(['a'], { signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow(
      'enough',
    );
    expect(backend.memory.liveBytes).toBe(liveBytes);
    model.tokenizer = null;
    await expect(model.embed(['a'])).rejects.toThrow(ConfigError);
    model.tokenizer = byteTokenizer();
  });
});

describe('cosineSimilarity', () => {
  it('is the cosine of the angle', () => {
    expect(cosineSimilarity([1, 0], [0, 2])).toBe(0);
    expect(cosineSimilarity([1, 2, 3], [2, 4, 6])).toBeCloseTo(1, 15);
    expect(cosineSimilarity([1, 2], [-1, -2])).toBeCloseTo(-1, 15);
    expect(cosineSimilarity([1, 1], [1, 0])).toBeCloseTo(Math.SQRT1_2, 15);
    expect(cosineSimilarity([0, 0], [1, 0])).toBe(0);
    expect(() => cosineSimilarity([1], [1, 2])).toThrow(ShapeError);
  });
});
