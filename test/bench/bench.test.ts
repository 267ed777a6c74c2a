/** What `mamba-ts bench` reports: work counted by hand, random models of every kind, and figures that agree with each other. No test looks at a time. */
import { afterEach, describe, expect, it } from 'vitest';
import { workOf } from '../../src/bench/work.ts';
import {
  benchModel,
  benchText,
  ConfigError,
  LanguageModel,
  type RegimeResult,
  randomModel,
  UnsupportedError,
} from '../../src/index.node.ts';
import { PRESETS, type Preset } from '../../src/train/index.ts';

const TINY = { d_model: 32, n_layer: 2, vocab_size: 64, d_state: 4 } as const;
const FAST = { prompt: 5, generate: 3, rounds: 2 };
const models: LanguageModel[] = [];
const held = (model: LanguageModel) => {
  models.push(model);
  return model;
};
afterEach(() => {
  for (const model of models.splice(0)) model.dispose();
});

describe('work', () => {
  it('of Mamba-1, counted by hand', () => {
    const work = workOf(held(new LanguageModel(TINY)));
    // e = 64, r = 2, n = 4: in_proj 128 x 32, x_proj 10 x 64, dt_proj 64 x 2, out_proj 32 x 64; two operations each, two layers.
    expect(work.layers).toBe(2 * 2 * (128 * 32 + 10 * 64 + 64 * 2 + 32 * 64));
    expect(work.head).toBe(2 * 64 * 32);
    expect(work.recurrence).toBe(2 * 64 * 4 * 22);
    expect(work).toMatchObject({ attention: 0, weights: 'f32' });
    expect(work.weightBytes).toBe(4 * work.parameters);
  });

  it('a head of its own is read, the embedding then is not', () => {
    const work = workOf(held(new LanguageModel({ ...TINY, tie_embeddings: false })));
    expect(work.weightBytes).toBe(4 * (work.parameters - 64 * 32));
    expect(work.head).toBe(2 * 64 * 32);
  });

  it('of Mamba-2 and -3, one decay per head; attention for what it looks back on', () => {
    const two = { ...TINY, model_type: 'mamba2', headdim: 16 } as const;
    expect(workOf(held(new LanguageModel(two))).recurrence).toBe(2 * 64 * 4 * 5);
    const hybrid = { ...two, attn_layer_idx: [1], attn_cfg: { num_heads: 2 } };
    const work = workOf(held(new LanguageModel(hybrid)));
    expect(work.recurrence).toBe(64 * 4 * 5);
    expect(work.attention).toBe(4 * 32);
    const three = { ...TINY, model_type: 'mamba3', headdim: 16, is_mimo: true, mimo_rank: 2 } as const;
    expect(workOf(held(new LanguageModel(three))).recurrence).toBe(2 * 64 * 4 * 13);
  });
});

describe('randomModel', () => {
  const small = { d_model: 32, n_layer: 3, vocab_size: 64, d_intermediate: 0 };

  it.each(['mamba-130m', 'mamba2attn-2.7b', 'mamba3-mimo-187m'] as Preset[])('%s, smaller', async (name) => {
    const attention = name === 'mamba2attn-2.7b' && { attn_layer_idx: [2], attn_cfg: { num_heads: 2 } };
    const model = held(
      await randomModel({ ...PRESETS[name], ...small, ...attention, headdim: undefined, ...heads(name) }),
    );
    const { logits, state } = model.forward([[1, 2, 3]]);
    const values = await logits.floats();
    expect(values.every(Number.isFinite)).toBe(true);
    expect(new Set(values).size).toBeGreaterThan(64);
    for (const tensor of [logits, state]) tensor.dispose();
  });

  it('keeps matrices as asked; the head of q4 has eight bits', async () => {
    const model = held(await randomModel(TINY, { weights: 'q4' }));
    const types = new Map([...model.namedParameters()].map(([name, { dtype }]) => [name, dtype]));
    expect(types.get('backbone.layers.1.mixer.in_proj.weight')).toBe('q4');
    expect(types.get('backbone.layers.1.mixer.A_log')).toBe('f32');
    expect(types.get('backbone.embeddings.weight')).toBe('q8');
    expect(workOf(model).weights).toBe('q4');
  });

  it('the same seed gives the same weights', async () => {
    const [a, b, c] = await Promise.all([1, 1, 2].map((seed) => randomModel(TINY, { seed })));
    expect(held(a!).fingerprint).toBe(held(b!).fingerprint);
    expect(held(c!).fingerprint).not.toBe(a!.fingerprint);
  });
});

/** Heads that fit the width. */
function heads(name: Preset) {
  return name === 'mamba-130m' ? {} : { headdim: 16 };
}

describe('benchModel', () => {
  it('measures all regimes, and its figures agree', async () => {
    const model = held(new LanguageModel(TINY));
    const seen: number[] = [];
    const options = { ...FAST, batch: 2, train: true, onRound: (round: number) => void seen.push(round) };
    const result = await benchModel(model, options);
    expect(seen).toEqual([0, 1, 2]);
    expect(result.settings).toEqual({ batch: 2, prompt: 5, generate: 3, train: true, rounds: 2 });
    expect(result.model.parameters).toBe(model.parameterCount);
    for (const regime of [result.prefill, result.decode!, result.train!]) expectConsistent(regime);
    expect(result.peakBytes).toBeGreaterThan(result.devicePeakBytes);
    const text = benchText('tiny', result);
    for (const part of ['tiny: mamba1', 'prefill 2 x 5', 'decode 2 x 3', 'train 2 x 5', 'memory at most'])
      expect(text).toContain(part);
  });

  it('leaves out what is not asked for, and ends early when told', async () => {
    const result = await benchModel(held(new LanguageModel(TINY)), {
      ...FAST,
      generate: 0,
      rounds: 1000,
      signal: AbortSignal.abort(),
    });
    expect(result).toMatchObject({ decode: null, train: null });
    expect(result.prefill.tokensPerSecond.min).toBe(result.prefill.tokensPerSecond.max);
    expect(benchText('tiny', result)).not.toContain('decode');
  });

  it('refuses options out of range, all at once, and training of narrow weights', async () => {
    const model = held(await randomModel(TINY, { weights: 'q8' }));
    const bad = benchModel(model, { batch: 0, prompt: 1.5, generate: -1 });
    await expect(bad).rejects.toThrow(ConfigError);
    await expect(bad).rejects.toThrow(
      'batch an integer of at least 1, got 0; prompt an integer of at least 1, got 1.5; generate an integer of at least 0, got -1',
    );
    await expect(benchModel(model, { ...FAST, train: true })).rejects.toThrow(UnsupportedError);
  });
});

function expectConsistent({ tokensPerSecond: rate, share, limitTokensPerSecond: limit }: RegimeResult): void {
  expect(rate.min).toBeGreaterThan(0);
  expect(rate.min).toBeLessThanOrEqual(rate.median);
  expect(rate.median).toBeLessThanOrEqual(rate.max);
  if (!share || !limit) {
    expect([share, limit]).toEqual([null, null]); // a device that cannot measure itself
    return;
  }
  // A round's share is its rate by its limit, so that the rates of all rounds bound it.
  expect(share.max).toBeLessThanOrEqual((rate.max / limit.min) * (1 + 1e-9));
  expect(share.min).toBeGreaterThanOrEqual((rate.min / limit.max) * (1 - 1e-9));
}
