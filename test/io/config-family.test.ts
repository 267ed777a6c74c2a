/** Configurations of Mamba-2, Mamba-3 and hybrids in every layout: there and back. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { MambaError } from '../../src/base/errors.ts';
import { configFromJson, toHuggingFaceConfig } from '../../src/io/config-json.ts';
import { toOriginalConfig } from '../../src/io/config-original.ts';
import { formatJson, type JsonObject, parseJsonObject } from '../../src/io/json.ts';
import { type ModelConfig, type ModelConfigInput, resolveConfig } from '../../src/models/config.ts';
import { ANY_CONFIG } from './any-config.ts';

const MODELS = new URL('../fixtures/models/', import.meta.url);
const read = (path: string) => parseJsonObject(readFileSync(new URL(path, MODELS), 'utf8'), path);
const again = (json: JsonObject): ModelConfig =>
  configFromJson(parseJsonObject(formatJson(json), 'config.json'));

describe.each(Object.entries(ANY_CONFIG))('%s', (_, anyConfig) => {
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
