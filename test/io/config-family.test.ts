/** Configurations of Mamba-2, Mamba-3 and hybrids in every layout: there and back. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { MambaError } from '../../src/base/errors.ts';
import { configFromJson, toHuggingFaceConfig } from '../../src/io/config-json.ts';
import { toOriginalConfig } from '../../src/io/config-original.ts';
import { formatJson, type JsonObject, parseJsonObject } from '../../src/io/json.ts';
import { type ModelConfig, type ModelConfigInput, resolveConfig } from '../../src/models/config.ts';

const MODELS = new URL('../fixtures/models/', import.meta.url);
const read = (path: string) => parseJsonObject(readFileSync(new URL(path, MODELS), 'utf8'), path);
const again = (json: JsonObject): ModelConfig =>
  configFromJson(parseJsonObject(formatJson(json), 'config.json'));

const size = (max: number) => fc.integer({ min: 1, max });
const stack = {
  n_layer: fc.integer({ min: 2, max: 20 }),
  vocab_size: size(100_000),
  pad_vocab_size_multiple: size(64),
  rms_norm: fc.boolean(),
  norm_eps: fc.constantFrom(1e-5, 1e-5, 1e-6),
  d_intermediate: fc.constantFrom(0, 0, 96),
  tie_embeddings: fc.boolean(),
  attn: fc.option(
    fc.record({
      layers: fc.subarray([0, 1], { minLength: 1 }),
      num_heads_kv: size(3),
      heads: size(3),
      head_dim: fc.constantFrom(8, 16),
      mlp_dim: fc.constantFrom(0, 100),
      d_conv: fc.constantFrom(0, 4),
      rotary_emb_dim: fc.constantFrom(0, 8),
      rotary_emb_interleaved: fc.boolean(),
      qkv_proj_bias: fc.boolean(),
      out_proj_bias: fc.boolean(),
      softmax_scale: fc.constantFrom(null, 0.5),
    }),
    { freq: 2 },
  ),
};

const mamba2 = fc.record({
  ...stack,
  model_type: fc.constant('mamba2' as const),
  width: size(4),
  groups: size(3),
  headsPerGroup: size(3),
  headdim: size(12),
  outside: fc.constantFrom(0, 0, 5),
  isUngrouped: fc.boolean(),
  d_state: size(200),
  d_conv: size(6),
  D_has_hdim: fc.boolean(),
  rmsnorm: fc.boolean(),
  norm_before_gate: fc.boolean(),
  dt_limit: fc.constantFrom<[number, number][]>(
    [0, Number.POSITIVE_INFINITY],
    [0.01, Number.POSITIVE_INFINITY],
    [0, 0.5],
  ),
  A_init_range: fc.constantFrom<[number, number][]>([1, 16], [0.5, 2]),
  conv_init: fc.constantFrom(null, 0.5),
  bias: fc.boolean(),
  conv_bias: fc.boolean(),
  chunk_size: size(300),
});

const mamba3 = fc.record({
  ...stack,
  model_type: fc.constant('mamba3' as const),
  width: size(4),
  groups: size(3),
  headsPerGroup: size(3),
  headdim: size(12),
  halfState: size(64),
  rope_fraction: fc.constantFrom(0.5, 1),
  A_floor: fc.constantFrom(1e-4, 0.1),
  A_activation: fc.constantFrom('heavy-tail', 'softplus'),
  is_outproj_norm: fc.boolean(),
  is_mimo: fc.boolean(),
  mimo_rank: size(8),
  chunk_size: size(64),
});

type Attention = Record<string, unknown> & { layers: number[]; heads: number; num_heads_kv: number };
type Drawn = Record<string, unknown> & {
  attn: Attention | null;
  width: number;
  groups: number;
  headsPerGroup: number;
  headdim: number;
  outside?: number;
  isUngrouped?: boolean;
  halfState?: number;
};

/** Sizes that fit together, out of independent draws. */
function fitting(drawn: Drawn): ModelConfig {
  const { attn, width, groups, headsPerGroup, outside = 0, isUngrouped, halfState, ...rest } = drawn;
  const d_ssm = groups * headsPerGroup * rest.headdim;
  const { layers, heads, ...attention } = attn ?? { layers: [], heads: 1, num_heads_kv: 1 };
  return resolveConfig({
    ...rest,
    d_model: d_ssm * width,
    d_inner: d_ssm + outside,
    ngroups: groups,
    attn_layer_idx: layers,
    attn_cfg: attn ? { ...attention, num_heads: heads * attention.num_heads_kv } : null,
    ...(halfState === undefined
      ? { d_ssm, norm_groups: isUngrouped ? 1 : groups }
      : { d_state: 2 * halfState }),
  } as unknown as ModelConfigInput);
}

describe.each([
  ['mamba2', mamba2],
  ['mamba3', mamba3],
] as const)('%s', (_, drawn) => {
  const anyConfig = (drawn as fc.Arbitrary<unknown>).map((values) => fitting(values as Drawn));

  test('any configuration comes back from our config.json, through any JSON parser', () => {
    fc.assert(
      fc.property(anyConfig, (config) => {
        const json = toHuggingFaceConfig(config);
        expect(again(json)).toEqual(config);
        if (json.model_type === 'mamba_ts')
          expect(configFromJson(JSON.parse(JSON.stringify(json)))).toEqual(config);
      }),
    );
  });

  test('what the original layout can hold comes back from it, anything else is refused', () => {
    let written = 0;
    fc.assert(
      fc.property(anyConfig, (config) => {
        let json: JsonObject;
        try {
          json = toOriginalConfig(config);
        } catch (error) {
          expect((error as Error).message).toMatch(/norm_eps|norm_groups|A_activation|d_inner/);
          return;
        }
        written++;
        expect(again(json)).toEqual(config);
      }),
      { seed: 1 },
    );
    expect(written).toBeGreaterThan(5);
  });

  test('any damage gives a configuration or an error of this library', () => {
    const change = fc.tuple(
      fc.double(),
      fc.oneof(fc.constant(undefined), fc.jsonValue(), fc.constant('Mamba3')),
    );
    fc.assert(
      fc.property(anyConfig, fc.array(change, { minLength: 1, maxLength: 3 }), (config, changes) => {
        for (const write of [toHuggingFaceConfig, toOriginalConfig]) {
          let json: JsonObject;
          try {
            json = structuredClone(write(config));
          } catch {
            continue;
          }
          for (const [at, value] of changes) damage(json, Math.abs(at) % 1, value as never);
          try {
            const found = configFromJson(json);
            expect(found).toEqual(resolveConfig(found as ModelConfigInput));
          } catch (error) {
            expect(error).toBeInstanceOf(MambaError);
          }
        }
      }),
      { numRuns: 300 },
    );
  });
});

/** One value somewhere in the tree. */
function damage(json: JsonObject, at: number, value: JsonObject[string]): void {
  const places: [JsonObject, string][] = [];
  const walk = (object: JsonObject): void => {
    for (const [key, member] of Object.entries(object)) {
      places.push([object, key]);
      if (typeof member === 'object' && member !== null && !Array.isArray(member)) walk(member);
    }
  };
  walk(json);
  const [object, key] = places[Math.floor((Number.isFinite(at) ? at : 0) * places.length)]!;
  object[key] = value;
}

describe('the published kinds of files', () => {
  test('the original layout of every reference model', () => {
    const config = (name: string) => configFromJson(read(`${name}/orig/config.json`));
    expect(config('mamba2-nonorm')).toMatchObject({
      model_type: 'mamba2',
      rmsnorm: false,
      ngroups: 3,
      headdim: 16,
      d_inner: 96,
    });
    expect(config('mamba2-hybrid')).toMatchObject({
      attn_layer_idx: [1, 3],
      attn_cfg: { num_heads: 4, num_heads_kv: 2, head_dim: 16, rotary_emb_dim: 8, d_conv: 4, causal: true },
      d_intermediate: 96,
    });
    expect(config('mamba3-siso')).toMatchObject({ model_type: 'mamba3', is_mimo: false, mimo_rank: 1 });
    expect(config('mamba3-mimo-norm')).toMatchObject({
      is_mimo: true,
      mimo_rank: 4,
      rope_fraction: 1,
      is_outproj_norm: true,
      A_activation: 'heavy-tail',
    });
  });

  test('both layouts of one model give the same configuration, up to the unpadded vocabulary', () => {
    for (const name of ['mamba2-tied', 'mamba2-g2']) {
      const b = configFromJson(read(`${name}/orig/config.json`));
      const padded = Math.ceil(b.vocab_size / b.pad_vocab_size_multiple) * b.pad_vocab_size_multiple;
      expect(configFromJson(read(`${name}/hf/config.json`))).toEqual({
        ...b,
        vocab_size: padded,
        pad_vocab_size_multiple: 1,
      });
    }
  });

  test('the official configurations of mamba2-2.7b and of its hybrid', () => {
    const common = {
      d_model: 2560,
      n_layer: 64,
      vocab_size: 50277,
      d_intermediate: 0,
      rms_norm: true,
      pad_vocab_size_multiple: 16,
      tie_embeddings: true,
    };
    const plain = { ...common, ssm_cfg: { layer: 'Mamba2' }, attn_layer_idx: [], attn_cfg: {} };
    expect(configFromJson(plain)).toEqual(
      resolveConfig({
        model_type: 'mamba2',
        d_model: 2560,
        n_layer: 64,
        vocab_size: 50277,
        pad_vocab_size_multiple: 16,
      }),
    );
    const attn_cfg = {
      causal: true,
      d_conv: 4,
      head_dim: 128,
      num_heads: 30,
      out_proj_bias: false,
      qkv_proj_bias: false,
      rotary_emb_dim: 64,
    };
    const hybrid = configFromJson({ ...plain, attn_layer_idx: [9, 18, 27, 36, 45, 56], attn_cfg });
    expect(hybrid.attn_cfg).toMatchObject({ num_heads_kv: 30, head_dim: 128, rotary_emb_base: 10_000 });
  });

  test('Codestral in the Hugging Face layout: fields that mean nothing there, and n_groups that does', () => {
    const config = configFromJson({
      model_type: 'mamba2',
      chunk_size: 256,
      conv_kernel: 4,
      expand: 2,
      head_dim: 64,
      hidden_act: 'silu',
      hidden_size: 4096,
      intermediate_size: 8192,
      layer_norm_epsilon: 1e-5,
      n_groups: 8,
      norm_before_gate: true,
      num_heads: 128,
      num_hidden_layers: 64,
      rms_norm: true,
      state_size: 128,
      tie_word_embeddings: false,
      time_step_limit: [0, { __float__: 'Infinity' }],
      time_step_rank: 256,
      use_bias: false,
      use_conv_bias: true,
      vocab_size: 32768,
    });
    expect(config).toEqual(
      resolveConfig({
        model_type: 'mamba2',
        d_model: 4096,
        n_layer: 64,
        vocab_size: 32768,
        pad_vocab_size_multiple: 1,
        ngroups: 8,
        tie_embeddings: false,
      }),
    );
    expect(config).toMatchObject({ norm_groups: 8, norm_before_gate: false });
  });
});

test('mamba2 is written where transformers computes the same, and nowhere else', () => {
  const config = configFromJson(read('mamba2-g2/orig/config.json'));
  const hf = read('mamba2-g2/hf/config.json');
  const json = toHuggingFaceConfig(config, { eosId: 0 });
  for (const key of Object.keys(hf)) {
    // Fields without meaning for mamba2, their initialisation, and a limit that is none.
    const skipped = ['transformers_version', 'time_step_rank', 'norm_before_gate', 'initializer_range'];
    if ([...skipped, 'time_step_limit'].includes(key)) continue;
    expect([key, json[key]]).toEqual([key, hf[key]]);
  }
  const others: object[] = [
    { norm_groups: 1 },
    { norm_before_gate: true },
    { rmsnorm: false },
    { D_has_hdim: true },
    { d_ssm: 48 },
    { rms_norm: false },
    { d_intermediate: 64 },
    { attn_layer_idx: [0], attn_cfg: { num_heads: 4 } },
    { d_inner: 120, d_ssm: 120 },
  ];
  for (const change of others) {
    const special = resolveConfig({ ...config, ...change } as unknown as ModelConfigInput);
    expect([change, toHuggingFaceConfig(special).model_type]).toEqual([change, 'mamba_ts']);
    expect(again(toHuggingFaceConfig(special))).toEqual(special);
  }
});
