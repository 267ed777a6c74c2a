/** Configurations read off tensors: what shapes tell is right, what they do not is asked for, and nothing crashes. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FormatError, MambaError } from '../../src/base/errors.ts';
import type { Shape } from '../../src/base/shape.ts';
import { readCodestral, toCodestralParams } from '../../src/io/config-codestral.ts';
import { expectedTensors } from '../../src/io/expected-tensors.ts';
import { inferConfig } from '../../src/io/infer-config.ts';
import type { JsonObject } from '../../src/io/json.ts';
import {
  type ModelConfig,
  type ModelConfigInput,
  paddedVocabSize,
  resolveConfig,
} from '../../src/models/config.ts';
import { gatedMlpWidth } from '../../src/nn/layers.ts';
import { ANY_CONFIG } from './any-config.ts';

/** What shapes cannot tell, as it is taken to be. */
function told(config: ModelConfig, assumed: object = {}): ModelConfig {
  const f = config.d_intermediate;
  return resolveConfig({
    ...config,
    vocab_size: paddedVocabSize(config),
    pad_vocab_size_multiple: 1,
    d_intermediate: f === 0 ? 0 : gatedMlpWidth(f),
    norm_eps: 1e-5,
    // Heads of one channel are the channels.
    ...(config.model_type === 'mamba2' && config.headdim === 1 ? { D_has_hdim: false } : {}),
    ...assumed,
  } as unknown as ModelConfigInput);
}

test('a Mamba-3 is told by its tensors', () => {
  const assumed = { A_floor: 1e-4, A_activation: 'heavy-tail', chunk_size: 64 };
  fc.assert(
    fc.property(ANY_CONFIG.mamba3, (config) => {
      const infer = () => inferConfig(expectedTensors(config), 'm', false);
      if (config.attn_cfg) expect(infer).toThrow(`attention in layer ${config.attn_layer_idx.join(', ')}`);
      else expect(infer().config).toEqual(told(config, assumed));
    }),
  );
});

describe('a Mamba-2', () => {
  const assumed = {
    norm_before_gate: false,
    dt_limit: [0, Number.POSITIVE_INFINITY],
    A_init_range: [1, 16],
    conv_init: null,
    chunk_size: 256,
  };

  test('is told where the product of groups and state is the published one', () => {
    let count = 0;
    fc.assert(
      fc.property(ANY_CONFIG.mamba2, fc.boolean(), (drawn, isPublished) => {
        if (drawn.model_type !== 'mamba2') return;
        const published = { ngroups: 1, norm_groups: 1, d_state: 128 };
        const config = resolveConfig({ ...drawn, ...(isPublished ? published : {}) });
        const infer = () => inferConfig(expectedTensors(config), 'm', false);
        if (config.attn_cfg) expect(infer).toThrow('attention in layer');
        else if (drawn.ngroups * drawn.d_state !== 128 && !isPublished) expect(infer).toThrow(FormatError);
        else expect(infer().config).toEqual(told(config, { ...published, ...assumed }));
        count += isPublished && !config.attn_cfg ? 1 : 0;
      }),
      { seed: 1 },
    );
    expect(count).toBeGreaterThan(10);
  });

  test('is told by params.json and its tensors', () => {
    let count = 0;
    fc.assert(
      fc.property(ANY_CONFIG.mamba2, (config) => {
        let params: JsonObject;
        try {
          params = toCodestralParams(config);
        } catch (error) {
          expect(error).toBeInstanceOf(FormatError);
          return;
        }
        count++;
        const { vocab_size, pad_vocab_size_multiple } = config;
        expect(readCodestral(params, expectedTensors(config), false)).toEqual(
          told(config, { ...assumed, vocab_size, pad_vocab_size_multiple }),
        );
      }),
      { seed: 1, numRuns: 500 },
    );
    expect(count).toBeGreaterThan(5);
  });
});

test('tensors of any other shapes give a configuration or an error of this library', () => {
  const shape = fc.array(fc.integer({ min: 0, max: 300 }), { maxLength: 4 });
  const changes = fc.array(fc.tuple(fc.nat(), fc.option(shape)), { minLength: 1, maxLength: 4 });
  const any = fc.oneof(ANY_CONFIG.mamba2, ANY_CONFIG.mamba3);
  fc.assert(
    fc.property(any, changes, fc.integer({ min: 0, max: 4 }), (config, damages, n_groups) => {
      const found = new Map<string, Shape>(
        expectedTensors({ ...config, attn_layer_idx: [], attn_cfg: null }),
      );
      for (const [at, to] of damages) {
        const name = [...found.keys()][at % found.size]!;
        if (to) found.set(name, to);
        else found.delete(name);
      }
      const params = { model_type: 'mamba', dim: config.d_model, n_layers: config.n_layer, n_groups };
      for (const read of [
        () => inferConfig(found, 'm', false).config,
        () => readCodestral(params, found, false),
      ]) {
        try {
          expectedTensors(read());
        } catch (error) {
          expect(error).toBeInstanceOf(MambaError);
        }
      }
    }),
    { numRuns: 500 },
  );
});
