/** Shapes as settings: presets, defaults of an architecture, attention layers, and what is refused. */
import { describe, expect, test } from 'vitest';
import { ConfigError } from '../../src/base/errors.ts';
import { expectedTensors } from '../../src/io/expected-tensors.ts';
import { type ModelConfig, type ModelConfigInput, resolveConfig } from '../../src/models/config.ts';
import { PRESETS } from '../../src/train/model-presets.ts';
import {
  type ClassifySettings,
  resolveClassifySettings,
  resumeClassifySettings,
} from '../../src/train/train-classify-options.ts';
import {
  type LmSettings,
  modelInput,
  resolveSettings,
  resumeSettings,
} from '../../src/train/train-lm-options.ts';

const lm = (given: Partial<LmSettings>): LmSettings => resolveSettings({ data: ['x'], steps: 1, ...given });
const configOf = (given: Partial<LmSettings>): ModelConfig => resolveConfig(modelInput(lm(given), 256));
const classify = (given: Partial<ClassifySettings>): ClassifySettings =>
  resolveClassifySettings({ data: ['x'], ...given });

describe('presets', () => {
  test.each<[keyof typeof PRESETS, number, number]>([
    ['mamba-130m', 50277, 129_135_360],
    ['mamba-370m', 50277, 371_516_416],
    ['mamba-790m', 50277, 793_204_224],
    ['mamba-1.4b', 50277, 1_372_178_432],
    ['mamba-2.8b', 50277, 2_768_345_600],
    ['mamba2-130m', 50277, 128_989_632],
    ['mamba2-370m', 50277, 368_346_624],
    ['mamba2-780m', 50277, 780_161_280],
    ['mamba2-1.3b', 50277, 1_343_757_312],
    ['mamba2-2.7b', 50277, 2_702_599_680],
    ['mamba2attn-2.7b', 50277, 2_697_590_880],
  ])('%s has as many parameters as the official model', (preset, vocab_size, count) => {
    expect(parameterCount(lm({ preset }), vocab_size)).toBe(count);
  });

  test.each<[keyof typeof PRESETS, number]>([
    ['mamba3-siso-187m', 187],
    ['mamba3-siso-443m', 443],
    ['mamba3-siso-893m', 893],
    ['mamba3-siso-1.5b', 1495],
    ['mamba3-mimo-187m', 187],
  ])('%s has as many millions as its name says', (preset, millions) => {
    expect(Math.round(parameterCount(lm({ preset }), 128256) / 1e6)).toBe(millions);
  });

  const parameterCount = (settings: LmSettings, vocabSize: number): number => {
    const shapes = expectedTensors(resolveConfig(modelInput(settings, vocabSize)));
    return [...shapes.values()].reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0);
  };

  test('of an official model say its architecture and have official sizes', () => {
    expect(lm({ preset: 'mamba2-130m' }).arch).toBe('mamba2');
    expect(configOf({ preset: 'mamba2-130m' })).toMatchObject({ d_state: 128, headdim: 64 });
    expect(configOf({ preset: 'mamba3-mimo-187m' })).toMatchObject({ is_mimo: true, mimo_rank: 4 });
    expect(() => lm({ preset: 'mamba2-130m', arch: 'mamba1' })).toThrow(
      'arch mamba2 with preset mamba2-130m, got mamba1',
    );
  });

  test.each(['tiny', 'small', 'medium', 'large'] as const)('%s fits every architecture', (preset) => {
    for (const arch of ['mamba1', 'mamba2', 'mamba3'] as const) {
      const config = configOf({ preset, arch });
      expect(config).toMatchObject({ model_type: arch, ...PRESETS[preset] });
      if (config.model_type !== 'mamba1') expect(config.d_inner / config.headdim).toBeGreaterThanOrEqual(4);
    }
  });

  test('every preset is a whole configuration but for the vocabulary', () => {
    for (const shape of Object.values(PRESETS))
      expect(resolveConfig({ ...(shape as unknown as ModelConfigInput), vocab_size: 8 }).vocab_size).toBe(8);
  });
});

describe('single numbers', () => {
  test('mamba1 is the default, and stays what it was', () => {
    expect(configOf({})).toEqual(resolveConfig({ d_model: 128, n_layer: 4, vocab_size: 256 }));
    expect(configOf({ d_state: 8, d_conv: 2, expand: 3 })).toMatchObject({
      d_state: 8,
      d_conv: 2,
      d_inner: 384,
    });
  });

  test('of heads, groups, rotation, ranks and MLPs', () => {
    expect(
      configOf({ arch: 'mamba2', headdim: 16, ngroups: 4, d_state: 32, d_intermediate: 256 }),
    ).toMatchObject({
      headdim: 16,
      ngroups: 4,
      d_state: 32,
      d_intermediate: 256,
    });
    expect(configOf({ arch: 'mamba3', rope_fraction: 1, mimo_rank: 2 })).toMatchObject({
      rope_fraction: 1,
      is_mimo: true,
      mimo_rank: 2,
    });
    expect(configOf({ arch: 'mamba3' })).toMatchObject({ is_mimo: false, mimo_rank: 1 });
  });

  test('any width has heads that divide it', () => {
    for (const d_model of [1, 8, 24, 96, 100, 127])
      for (const arch of ['mamba2', 'mamba3'] as const)
        expect(configOf({ arch, d_model }).d_model).toBe(d_model);
  });

  test.each<[string, Partial<LmSettings>]>([
    ['no d_conv, which mamba3 does not have, got 4', { arch: 'mamba3', d_conv: 4 }],
    ['no headdim, which mamba1 does not have, got 64', { headdim: 64 }],
    ['no mimo_rank, which mamba2 does not have', { arch: 'mamba2', mimo_rank: 2 }],
    ['arch to be one of mamba1, mamba2, mamba3, got rwkv', { arch: 'rwkv' as LmSettings['arch'] }],
    ['got 41 (1.3 times d_model 32). Choose another width', { arch: 'mamba2', d_model: 32, expand: 1.3 }],
    ['config: headdim 7 must divide d_inner 256. Correct', { arch: 'mamba3', headdim: 7 }],
    ['ngroups 3 must divide the heads 4', { arch: 'mamba2', headdim: 64, ngroups: 3 }],
    ['rope_fraction must be 0.5 or 1, got 0.3', { arch: 'mamba3', rope_fraction: 0.3 }],
    ['headdim to be an integer of at least 1, got 0', { arch: 'mamba2', headdim: 0 }],
  ])('%s', (message, given) => {
    expect(() => lm(given)).toThrow(ConfigError);
    expect(() => lm(given)).toThrow(message);
    expect(() => classify(given as Partial<ClassifySettings>)).toThrow(ConfigError);
  });
});

describe('attention layers', () => {
  const hybrid = { arch: 'mamba2', attnLayers: [1, 3] } as const;

  test('are those of the published hybrid, in proportion', () => {
    expect(configOf({ ...hybrid, attnLayers: [1, 3] }).attn_cfg).toMatchObject({
      num_heads: 2,
      num_heads_kv: 2,
      head_dim: 64,
      rotary_emb_dim: 32,
      d_conv: 4,
      qkv_proj_bias: false,
      out_proj_bias: false,
    });
    for (const [d_model, num_heads] of [
      [8, 1],
      [96, 2],
      [100, 2],
      [256, 4],
    ] as const)
      expect(configOf({ ...hybrid, attnLayers: [1], d_model }).attn_cfg).toMatchObject({
        num_heads,
        head_dim: d_model / num_heads,
      });
  });

  test("with numbers of one's own, in every architecture", () => {
    for (const arch of ['mamba1', 'mamba2', 'mamba3'] as const) {
      const config = configOf({
        arch,
        attnLayers: [0],
        attnHeads: 4,
        attnKvHeads: 2,
        attnRotary: 0,
        attnConv: 0,
      });
      expect(config.attn_layer_idx).toEqual([0]);
      expect(config.attn_cfg).toMatchObject({
        num_heads: 4,
        num_heads_kv: 2,
        head_dim: 32,
        rotary_emb_dim: 0,
        d_conv: 0,
      });
    }
    const official = configOf({ preset: 'mamba2attn-2.7b', attnKvHeads: 5 });
    expect(official.attn_cfg).toMatchObject({ num_heads: 30, num_heads_kv: 5, head_dim: 128 });
  });

  test.each<[string, Partial<LmSettings>]>([
    ['attn_layer_idx must be ascending layers in [0, 4)', { attnLayers: [4] }],
    ['attn_layer_idx must be ascending layers in [0, 4)', { attnLayers: [3, 1] }],
    ['head_dim must be a positive integer', { attnLayers: [1], attnHeads: 3 }],
    ['num_heads_kv 3 must divide num_heads 4', { attnLayers: [1], attnHeads: 4, attnKvHeads: 3 }],
    ['attn_cfg.rotary_emb_dim must be even', { attnLayers: [1], attnRotary: 5 }],
    ['attnLayers to name the layers that attnHeads is for, got none', { attnHeads: 4 }],
    ['sampling random or pack with attention layers', { attnLayers: [1], sampling: 'stream' }],
    ['sampling random or pack with attention layers', { preset: 'mamba2attn-2.7b', sampling: 'stream' }],
  ])('%s', (message, given) => {
    expect(() => lm(given)).toThrow(message);
  });
});

describe('stored settings', () => {
  test('of a run before there were architectures are those of mamba1', () => {
    const { arch, headdim, attnLayers, attnHeads, ...old } = lm({ d_model: 64 });
    const stored = old as LmSettings;
    expect(resumeSettings(stored, { steps: 2 })).toMatchObject({ arch: 'mamba1', steps: 2, attnLayers: [] });
    expect(resumeSettings(stored, { arch: 'mamba1' }).arch).toBe('mamba1');
    expect(() => resumeSettings(stored, { arch: 'mamba2' })).toThrow('arch "mamba1", got "mamba2"');
    const { arch: _, mimo_rank, ...oldClassify } = classify({});
    expect(resumeClassifySettings(oldClassify as ClassifySettings, {}).arch).toBe('mamba1');
    expect(() => resumeClassifySettings(oldClassify as ClassifySettings, { arch: 'mamba3' })).toThrow(
      'arch "mamba1"',
    );
  });

  test('the tutorial is of mamba1', () => {
    expect(() => classify({ preset: 'imdb-tutorial', arch: 'mamba3' })).toThrow(
      'arch mamba1 with preset imdb-tutorial, got mamba3',
    );
  });
});
