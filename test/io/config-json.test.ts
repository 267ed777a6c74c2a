import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ConfigError, MambaError, UnsupportedError } from '../../src/base/errors.ts';
import { configFromJson, toHuggingFaceConfig } from '../../src/io/config-json.ts';
import { toOriginalConfig } from '../../src/io/config-original.ts';
import { formatJson, type JsonObject, parseJsonObject } from '../../src/io/json.ts';
import { type Mamba1Config, resolveConfig } from '../../src/models/config.ts';

const MODELS = new URL('../fixtures/models/', import.meta.url);
const read = (path: string) => parseJsonObject(readFileSync(new URL(path, MODELS), 'utf8'), path);
const hf = read('mamba1-odd/hf/config.json');
const orig = read('mamba1-odd/orig/config.json');
const without = (json: JsonObject, ...keys: string[]): JsonObject =>
  Object.fromEntries(Object.entries(json).filter(([key]) => !keys.includes(key)));

test('both layouts of one model give the same configuration, up to the unpadded vocabulary', () => {
  for (const name of ['mamba1-tied', 'mamba1-odd', 'mamba1-bf16']) {
    const a = configFromJson(read(`${name}/hf/config.json`));
    const b = configFromJson(read(`${name}/orig/config.json`));
    const padded = Math.ceil(b.vocab_size / b.pad_vocab_size_multiple) * b.pad_vocab_size_multiple;
    expect(a).toEqual({ ...b, vocab_size: padded, pad_vocab_size_multiple: 1 });
  }
  expect(configFromJson(orig)).toMatchObject({
    d_model: 48,
    n_layer: 3,
    vocab_size: 445,
    pad_vocab_size_multiple: 8,
    d_state: 8,
    d_conv: 3,
    d_inner: 96,
    dt_rank: 5,
    bias: true,
    conv_bias: false,
    tie_embeddings: false,
    rms_norm: true,
    d_intermediate: 0,
  }); // prettier-ignore
});

test('the configuration of the official mamba-130m in its original layout', () => {
  const json = {
    d_model: 768,
    n_layer: 24,
    vocab_size: 50277,
    ssm_cfg: {},
    rms_norm: true,
    residual_in_fp32: true,
    fused_add_norm: true,
    pad_vocab_size_multiple: 8,
  }; // prettier-ignore
  expect(configFromJson(json)).toEqual(resolveConfig({ d_model: 768, n_layer: 24, vocab_size: 50277 }));
});

const anyConfig = fc
  .record({
    d_model: fc.integer({ min: 1, max: 5000 }),
    n_layer: fc.integer({ min: 1, max: 100 }),
    vocab_size: fc.integer({ min: 1, max: 200_000 }),
    pad_vocab_size_multiple: fc.integer({ min: 1, max: 128 }),
    d_state: fc.integer({ min: 1, max: 256 }),
    d_conv: fc.integer({ min: 1, max: 8 }),
    d_inner: fc.integer({ min: 1, max: 20_000 }),
    dt_rank: fc.integer({ min: 1, max: 500 }),
    bias: fc.boolean(),
    conv_bias: fc.boolean(),
    dt_min: fc.double({ min: 1e-5, max: 0.01, noNaN: true }),
    dt_max: fc.double({ min: 0.01, max: 1, noNaN: true }),
    dt_init: fc.constantFrom<Mamba1Config['dt_init'][]>('random', 'constant'),
    rms_norm: fc.boolean(),
    norm_eps: fc.constantFrom(1e-5, 1e-6),
    mixer_rms_eps: fc.constantFrom(null, null, 1e-6, 1e-5),
    d_intermediate: fc.constantFrom(0, 96, 256),
    tie_embeddings: fc.boolean(),
  })
  .map(resolveConfig);

test('any configuration comes back from our config.json', () => {
  fc.assert(
    fc.property(anyConfig, (config) => {
      const text = formatJson(toHuggingFaceConfig(config));
      expect(configFromJson(parseJsonObject(text, 'config.json'))).toEqual(config);
    }),
  );
});

test('any configuration the original layout can hold comes back from it', () => {
  let written = 0;
  fc.assert(
    fc.property(anyConfig, (config) => {
      let json: JsonObject;
      try {
        json = toOriginalConfig(config);
      } catch (error) {
        expect((error as Error).message).toMatch(/norm_eps|d_inner|mixer_rms_eps/);
        return;
      }
      written++;
      expect(configFromJson(JSON.parse(JSON.stringify(json)) as JsonObject)).toEqual(config);
    }),
    { seed: 1 },
  );
  expect(written).toBeGreaterThan(10);
});

test('transformers finds every key it writes itself; what it cannot compute it must not recognise', () => {
  const json = toHuggingFaceConfig(configFromJson(orig), { eosId: 0 });
  for (const key of Object.keys(hf)) if (key !== 'transformers_version') expect(json).toHaveProperty(key);
  for (const key of [
    'hidden_size',
    'intermediate_size',
    'vocab_size',
    'time_step_rank',
    'state_size',
    'eos_token_id',
  ]) {
    expect(json[key]).toEqual(hf[key]);
  }
  expect(json).toMatchObject({
    model_type: 'mamba',
    architectures: ['MambaForCausalLM'],
    torch_dtype: 'float32',
    rescale_prenorm_residual: false, // true makes transformers 5 change the weights it loads
  });
  for (const change of [
    { rms_norm: false },
    { d_intermediate: 128 },
    { rms_norm: false, mixer_rms_eps: 1e-6 },
  ]) {
    const special = toHuggingFaceConfig({ ...configFromJson(orig), ...change });
    expect(special.model_type).toBe('mamba_ts');
    expect(configFromJson(special)).toMatchObject(change);
  }
});

test('Falcon-Mamba: its own type, its eps or the default, and nothing of it in a plain mamba', () => {
  const falcon = read('falcon-mamba/hf/config.json');
  const config = configFromJson(falcon);
  expect(config).toMatchObject({ mixer_rms_eps: 1e-6, tie_embeddings: false, d_inner: 128 });
  expect(configFromJson({ ...falcon, expand: 16 })).toEqual(config);
  expect(configFromJson({ ...falcon, mixer_rms_eps: 1e-5 })).toMatchObject({ mixer_rms_eps: 1e-5 });
  expect(configFromJson(without(falcon, 'mixer_rms_eps'))).toMatchObject({ mixer_rms_eps: 1e-6 });
  expect(configFromJson({ ...hf, mixer_rms_eps: 1e-6 })).toMatchObject({ mixer_rms_eps: null });
  expect(() => configFromJson({ ...falcon, mixer_rms_eps: 0 })).toThrow('mixer_rms_eps must be a positive');
  const json = toHuggingFaceConfig(config, { eosId: 0 });
  for (const key of Object.keys(falcon)) if (key !== 'transformers_version') expect(json).toHaveProperty(key);
  expect(json).toMatchObject({
    model_type: 'falcon_mamba',
    architectures: ['FalconMambaForCausalLM'],
    mixer_rms_eps: 1e-6,
  });
  expect(() => toOriginalConfig(config)).toThrow('mixer_rms_eps 0.000001');
});

test('intermediate_size wins over expand, which stands in for it; auto rank', () => {
  expect(configFromJson({ ...hf, expand: 16 }).d_inner).toBe(96);
  expect(configFromJson({ ...without(hf, 'intermediate_size'), expand: 3 }).d_inner).toBe(144);
  expect(configFromJson({ ...hf, time_step_rank: 'auto' })).toMatchObject({ dt_rank: 3 });
  expect(configFromJson(without(hf, 'tie_word_embeddings')).tie_embeddings).toBe(true);
});

describe('problems come all at once', () => {
  const own = { vocab_size: 445, pad_vocab_size_multiple: 8, rms_norm: true, d_intermediate: 0 };
  const cases: [name: string, json: JsonObject, messages: string[]][] = [
    [
      'missing fields',
      { model_type: 'mamba' },
      [
        'vocab_size',
        'hidden_size',
        'num_hidden_layers',
        'state_size',
        'conv_kernel',
        'intermediate_size',
        'time_step_rank',
        'use_bias',
        'use_conv_bias',
        'layer_norm_epsilon',
      ].map((key) => `${key} is missing`),
    ],
    [
      'contradictions',
      { ...hf, d_model: 64, n_layer: 4, d_inner: 128 },
      [
        'hidden_size 48 contradicts d_model 64',
        'num_hidden_layers 3 contradicts n_layer 4',
        'intermediate_size 96 contradicts d_inner 128',
      ],
    ],
    [
      'wrong kinds',
      { ...hf, hidden_size: '48', use_bias: 1 },
      ['hidden_size must be a number, got "48"', 'use_bias must be a boolean, got 1'],
    ],
    [
      'out of range',
      { ...hf, state_size: 0, conv_kernel: 2.5 },
      ['d_state must be a positive integer, got 0', 'd_conv must be a positive integer, got 2.5'],
    ],
    [
      'not finite',
      { ...hf, layer_norm_epsilon: Number.NaN, time_step_max: Number.POSITIVE_INFINITY },
      ['norm_eps', 'dt_max'],
    ],
    [
      'padding',
      { ...hf, mamba_ts: { ...own, vocab_size: 500 } },
      ['vocab_size 448 contradicts mamba_ts.vocab_size 500 padded to a multiple of 8'],
    ],
    [
      'unknown own field',
      { ...hf, mamba_ts: { ...own, rmsnorm: true } },
      ['mamba_ts.rmsnorm is not a known field'],
    ],
    ['own type without its block', { ...hf, model_type: 'mamba_ts' }, ['mamba_ts is missing']],
    ['own block of a wrong kind', { ...hf, mamba_ts: 3 }, ['mamba_ts must be an object, got a number']],
    ['original, missing', { d_model: 64, ssm_cfg: {} }, ['n_layer is missing', 'vocab_size is missing']],
    ['original, a typo', { ...orig, ssm_cfg: { dstate: 8 } }, ['ssm_cfg.dstate is not a known field']],
    ['neither layout', { foo: 1 }, ['got neither']],
  ];
  test.each(cases)('%s', (_, json, messages) => {
    const attempt = () => configFromJson(json, 'models/x/config.json');
    expect(attempt).toThrow(ConfigError);
    expect(attempt).toThrow('models/x/config.json');
    for (const message of messages) expect(attempt).toThrow(message);
  });
});

describe('other models are named, not guessed', () => {
  const cases: [JsonObject, string][] = [
    [{ ...hf, model_type: 'jamba' }, '"jamba"'],
    [{ ...hf, model_type: 5 }, '5'],
    [{ ...hf, hidden_act: 'gelu' }, '"gelu"'],
    [{ ...hf, model_type: 'mamba3' }, '"mamba3"'],
    [{ ...orig, ssm_cfg: { layer: 'Mamba2Simple' } }, '"Mamba2Simple"'],
    [{ ...orig, ssm_cfg: { layer: 2 } }, 'ssm_cfg.layer Mamba1, Mamba2, Mamba3'],
    [{ ...orig, attn_layer_idx: [1], attn_cfg: { num_heads: 4 } }, 'attn_cfg.causal true'],
    [{ ...orig, attn_layer_idx: [1], attn_cfg: { num_heads: 4, causal: false } }, 'got false'],
  ];
  test.each(cases)('%o', (json, message) => {
    expect(() => configFromJson(json)).toThrow(UnsupportedError);
    expect(() => configFromJson(json)).toThrow(message);
  });
});

test('any damage to a configuration gives a configuration or an error of this library', () => {
  const json = toHuggingFaceConfig(configFromJson(orig));
  for (const base of [json, hf, orig]) {
    const change = fc.tuple(
      fc.constantFrom(...Object.keys(base)),
      fc.oneof(fc.constant(undefined), fc.jsonValue()),
    );
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
        const damaged = { ...base, ...Object.fromEntries(changes) } as JsonObject;
        try {
          const config = configFromJson(damaged);
          expect(config).toEqual(resolveConfig(config));
        } catch (error) {
          expect(error).toBeInstanceOf(MambaError);
        }
      }),
      { numRuns: 500 },
    );
  }
});
