/** adapter_config.json: what is plain LoRA, and what is refused by name. */
import { describe, expect, test } from 'vitest';
import { ConfigError, UnsupportedError } from '../../src/base/errors.ts';
import { adapterConfigFromJson } from '../../src/io/adapter.ts';
import type { JsonObject } from '../../src/io/json.ts';

const CONFIG: JsonObject = { peft_type: 'LORA', r: 2, lora_alpha: 3, target_modules: ['in_proj', 'fc1'] };

describe('adapter_config.json', () => {
  test.each([
    [{ peft_type: 'LOHA' }, 'got peft_type "LOHA"'],
    [{ peft_type: undefined }, 'got peft_type undefined'],
    [{ task_type: 'TOKEN_CLS' }, 'got task_type "TOKEN_CLS"'],
    [{ use_dora: true, use_rslora: true }, 'got use_dora true; use_rslora true'],
    [{ bias: 'lora_only' }, 'got bias "lora_only"'],
    [{ rank_pattern: { fc1: 4 } }, 'got rank_pattern {"fc1":4}'],
    [{ alpha_pattern: { fc1: 4 } }, 'alpha_pattern'],
    [{ lora_bias: true }, 'lora_bias true'],
    [{ fan_in_fan_out: true }, 'fan_in_fan_out true'],
    [{ layers_to_transform: [0] }, 'layers_to_transform [0]'],
    [{ init_lora_weights: 'pissa_niter_4' }, 'init_lora_weights "pissa_niter_4"'],
    [{ modules_to_save: ['score', 'norm_f'] }, 'modules_to_save ["score","norm_f"]'],
    [{ target_modules: '.*proj' }, 'target_modules ".*proj"'],
    [{ target_modules: ['layers.0.fc1'] }, 'target_modules ["layers.0.fc1"]'],
    [{ something_new: 0.5 }, 'something_new 0.5'],
  ] as [JsonObject, string][])('%j is another adapter', (change, message) => {
    expect(() => adapterConfigFromJson({ ...CONFIG, ...change }, 'a.json')).toThrow(UnsupportedError);
    expect(() => adapterConfigFromJson({ ...CONFIG, ...change }, 'a.json')).toThrow(message);
  });

  test.each([
    [{ r: undefined }, 'r is missing'],
    [{ r: 0 }, 'r must be a positive integer, got 0'],
    [{ r: '8' }, 'r must be a number, got "8"'],
    [{ lora_alpha: -1 }, 'lora_alpha must be a number above 0, got -1'],
    [{ lora_alpha: Number.NaN }, 'lora_alpha must be a number above 0'],
    [{ target_modules: [1] }, 'target_modules must be an array of strings, got [1]'],
    [{ target_modules: null }, 'target_modules must be an array of strings, got null'],
    [{ base_model_name_or_path: 3 }, 'base_model_name_or_path must be a string, got 3'],
    [{ mamba_ts: [] }, 'mamba_ts must be an object, got an array'],
    [{ mamba_ts: { classifier: { pooling: 'mean' } } }, 'mamba_ts: id2label is missing'],
  ] as [JsonObject, string][])('%j is wrong', (change, message) => {
    expect(() => adapterConfigFromJson({ ...CONFIG, ...change }, 'a.json')).toThrow(ConfigError);
    expect(() => adapterConfigFromJson({ ...CONFIG, ...change }, 'a.json')).toThrow(message);
  });

  test('an option that is not used may stand there empty', () => {
    const more = {
      use_dora: false,
      rank_pattern: {},
      corda_config: null,
      exclude_modules: [],
      lora_dropout: 0.1,
    };
    expect(adapterConfigFromJson({ ...CONFIG, ...more })).toEqual({
      lora: { rank: 2, alpha: 3, targets: ['in_proj', 'fc1'] },
      head: null,
      fingerprint: null,
      base: null,
    });
  });
});
