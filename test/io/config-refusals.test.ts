/** Configurations of the family that are wrong: everything that is wrong with them is named, with the file. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { ConfigError, UnsupportedError } from '../../src/base/errors.ts';
import { configFromJson, toHuggingFaceConfig } from '../../src/io/config-json.ts';
import { type JsonObject, parseJsonObject } from '../../src/io/json.ts';

const MODELS = new URL('../fixtures/models/', import.meta.url);
const read = (path: string) => parseJsonObject(readFileSync(new URL(path, MODELS), 'utf8'), path);
const hf = read('mamba2-g2/hf/config.json');
const mamba2 = read('mamba2-g2/orig/config.json');
const hybrid = read('mamba2-hybrid/orig/config.json');
const mimo = read('mamba3-mimo-norm/orig/config.json');
const own = toHuggingFaceConfig(configFromJson(hybrid));
const inOwn = (change: object): JsonObject => ({
  ...own,
  mamba_ts: { config: { ...((own.mamba_ts as JsonObject).config as JsonObject), ...change } },
});
const ssm = (json: JsonObject, change: object): JsonObject => ({
  ...json,
  ssm_cfg: { ...(json.ssm_cfg as JsonObject), ...change },
});
const attention = (change: object): JsonObject => ({
  ...hybrid,
  attn_cfg: { ...(hybrid.attn_cfg as JsonObject), ...change },
});
const without = (json: JsonObject, key: string): JsonObject =>
  Object.fromEntries(Object.entries(json).filter(([name]) => name !== key));

const cases: [name: string, json: JsonObject, messages: string[]][] = [
  [
    'mamba2 with nothing',
    { model_type: 'mamba2' },
    [
      'vocab_size',
      'hidden_size',
      'num_heads',
      'head_dim',
      'num_hidden_layers',
      'state_size',
      'conv_kernel',
      'n_groups',
      'use_bias',
      'use_conv_bias',
      'layer_norm_epsilon',
    ].map((key) => `${key} is missing`),
  ],
  [
    'mamba2, contradictions',
    { ...hf, expand: 3, intermediate_size: 100, d_model: 64, n_layer: 4 },
    [
      'hidden_size 48 contradicts d_model 64',
      'num_hidden_layers 2 contradicts n_layer 4',
      'expand 3 * hidden_size 48 contradicts num_heads 8 * head_dim 12',
      'intermediate_size 100 contradicts num_heads 8 * head_dim 12',
    ],
  ],
  [
    'mamba2, kinds',
    { ...hf, num_heads: '8', time_step_limit: [0, 'Infinity'], chunk_size: true },
    [
      'num_heads must be a number, got "8"',
      'time_step_limit must be an array of numbers, got [0,"Infinity"]',
      'chunk_size must be a number, got true',
    ],
  ],
  [
    'mamba2, another tag',
    { ...hf, time_step_limit: [0, { __float__: 'Huge' }] },
    ['time_step_limit must be an array of numbers'],
  ],
  [
    'mamba2, a limit that is none',
    { ...hf, time_step_limit: [0.2, 0.1] },
    ['dt_limit must be [low, high] with 0 <= low <= high, got [0.2,0.1]'],
  ],
  ['mamba2, groups', { ...hf, n_groups: 3 }, ['ngroups 3 must divide the heads 8']],
  ['mamba2, a fraction', { ...hf, num_heads: 64, head_dim: 1.5 }, ['headdim must be a positive integer']],
  ['mamba2, our block', { ...hf, mamba_ts: { ngroups: 2 } }, ['mamba_ts.ngroups is not a known field']],
  [
    'mamba2, padding',
    { ...hf, mamba_ts: { vocab_size: 200, pad_vocab_size_multiple: 16 } },
    ['vocab_size 304 contradicts mamba_ts.vocab_size 200 padded to a multiple of 16'],
  ],
  [
    'Mamba2, typos',
    ssm(mamba2, { head_dim: 12, n_groups: 2, process_group: 0 }),
    ['ssm_cfg.head_dim is not', 'ssm_cfg.n_groups is not', 'ssm_cfg.process_group is not a known field'],
  ],
  ['Mamba2, of another layer', ssm(mamba2, { is_mimo: true }), ['ssm_cfg.is_mimo is not a known field']],
  [
    'Mamba2, kinds',
    ssm(mamba2, { headdim: '12', rmsnorm: 1, dt_limit: 3, A_init_range: [1, null] }),
    [
      'ssm_cfg.headdim must be a number, got "12"',
      'ssm_cfg.rmsnorm must be a boolean, got 1',
      'ssm_cfg.dt_limit must be an array of numbers, got 3',
      'ssm_cfg.A_init_range must be an array of numbers, got [1,null]',
    ],
  ],
  [
    'Mamba2, a range of three',
    ssm(mamba2, { A_init_range: [1, 2, 3] }),
    ['A_init_range must be [low, high]'],
  ],
  ['Mamba2, d_ssm', ssm(mamba2, { d_ssm: 108 }), ['d_ssm 108 is above d_inner 96']],
  [
    'Mamba3, typos that upstream swallows',
    ssm(mimo, { rope_frac: 0.5, d_conv: 4, bias: true }),
    ['ssm_cfg.rope_frac is not', 'ssm_cfg.d_conv is not', 'ssm_cfg.bias is not a known field'],
  ],
  [
    'Mamba3, ranges',
    ssm(mimo, { rope_fraction: 0.7, d_state: 9, mimo_rank: 0 }),
    ['rope_fraction must be 0.5 or 1', 'd_state must be even', 'mimo_rank must be a positive integer'],
  ],
  [
    'attention, typos and kinds',
    attention({ n_heads: 4, head_dim: '16' }),
    ['attn_cfg.n_heads is not a known field', 'attn_cfg.head_dim must be a number'],
  ],
  [
    'attention, ranges',
    attention({ num_heads: 5, num_heads_kv: 2, rotary_emb_dim: 20 }),
    ['attn_cfg.num_heads_kv 2 must divide num_heads 5', 'attn_cfg.rotary_emb_dim must be even and at most'],
  ],
  ['attention in a layer that is not there', { ...hybrid, attn_layer_idx: [1, 4] }, ['[0, 4), got [1,4]']],
  ['attention in no layers', { ...hybrid, attn_layer_idx: 'all' }, ['attn_layer_idx must be an array of']],
  ['attention without heads', { ...hybrid, attn_cfg: { causal: true } }, ['num_heads must be a positive']],
  [
    'attention without a configuration',
    { ...hybrid, attn_cfg: null },
    ['attn_cfg must tell num_heads for the layers of attn_layer_idx, got none'],
  ],
  ['attention as a list', { ...hybrid, attn_cfg: [4] }, ['attn_cfg must be an object, got an array']],
  [
    'attention, heads that are too wide',
    attention({ head_dim: 513 }),
    ['attn_cfg.head_dim must be at most 512, got 513'],
  ],
  ['ours, a typo', inOwn({ norm_group: 1 }), ['norm_group is unknown']],
  ['ours, expand instead', inOwn({ expand: 2 }), ['mamba_ts.config.expand is not a known field']],
  [
    'ours, beside the block',
    { ...own, mamba_ts: { ...(own.mamba_ts as object), x: 1 } },
    ['mamba_ts.x is not'],
  ],
  [
    'ours, no object',
    { ...own, mamba_ts: { config: 3 } },
    ['mamba_ts.config must be an object, got a number'],
  ],
  ['ours, a kind', inOwn({ bias: 'no' }), ['bias must be true or false, got "no"']],
  ['ours, strings as numbers', inOwn({ dt_limit: ['0', '1'] }), ['dt_limit must be [low, high]']],
  [
    'ours, a value that the others decide',
    inOwn({ attn_layer_idx: [] }),
    ['mamba_ts.config.attn_cfg must be null, got {'],
  ],
  [
    'ours, an unknown architecture',
    inOwn({ model_type: 'mamba4' }),
    ['model_type must be mamba1 or mamba2 or mamba3, got mamba4'],
  ],
];

describe('problems come all at once', () => {
  test.each(cases)('%s', (_, json, messages) => {
    const attempt = () => configFromJson(json, 'models/x/config.json');
    for (const message of messages) expect(attempt).toThrow(message);
    expect(attempt).toThrow(ConfigError);
    expect(attempt).toThrow('models/x/config.json');
  });
});

test('every field of our own type is needed', () => {
  const config = (own.mamba_ts as JsonObject).config as JsonObject;
  for (const key of Object.keys(config)) {
    const json = { ...own, mamba_ts: { config: without(config, key) } };
    expect(() => configFromJson(json, 'c.json'), key).toThrow(ConfigError);
    expect(() => configFromJson(json, 'c.json'), key).toThrow('c.json');
  }
  const json = { ...own, mamba_ts: { config: without(config, 'chunk_size') } };
  expect(() => configFromJson(json)).toThrow('mamba_ts.config.chunk_size is missing');
});

test.each<[string, JsonObject, string]>([
  ['another activation', { ...hf, hidden_act: 'gelu' }, 'hidden_act silu'],
  ['another norm', { ...hf, rms_norm: false }, 'rms_norm true'],
  ['another layer', ssm(mamba2, { layer: 'Mamba4' }), 'expected ssm_cfg.layer Mamba1, Mamba2, Mamba3'],
  ['attention that looks ahead', attention({ causal: false }), 'attn_cfg.causal true'],
  ['attention that looks ahead by default', attention({ causal: null }), 'attn_cfg.causal true'],
])('%s is refused by name', (_, json, message) => {
  const attempt = () => configFromJson(json, 'models/x/config.json');
  expect(attempt).toThrow(UnsupportedError);
  expect(attempt).toThrow(message);
  expect(attempt).toThrow('models/x/config.json');
});
