/**
 * config.json of Hugging Face's `mamba2`. Names, meanings and defaults are those of transformers'
 * Mamba2Config; what has a default there is required all the same where a wrong guess would give another
 * model: the defaults are those of one model of 7 billion weights.
 */
import { type Mamba2Config, type ModelConfig, paddedVocabSize } from '../models/config.ts';
import {
  type ConfigJson,
  checkActivation,
  OWN_TYPE,
  RESCALE_PRENORM_RESIDUAL,
  type ReadConfig,
  readVocabulary,
  refuse,
} from './config-reading.ts';
import type { JsonObject } from './json.ts';
import { Fields } from './json-fields.ts';

export const MAMBA2_TYPE = 'mamba2';

/**
 * The gate comes before the norm whatever norm_before_gate says: transformers has never read that field, and
 * published files say true. The norm is per group, as in the original code and in transformers 5.
 */
export function readMamba2(json: JsonObject, name: string): ReadConfig {
  checkActivation(json, name);
  if (json.rms_norm === false) refuse(name, 'rms_norm true', false, 'transformers has no other mamba2.');
  const fields = new Fields(json);
  const own = new Fields(fields.object(OWN_TYPE), `${OWN_TYPE}.`);
  own.unknown(['vocab_size', 'pad_vocab_size_multiple', 'A_init_range', 'conv_init']);
  fields.same('hidden_size', 'd_model');
  fields.same('num_hidden_layers', 'n_layer');
  const vocabulary = readVocabulary(fields, own);
  const width = fields.required('hidden_size', 'number');
  const heads = fields.required('num_heads', 'number') ?? Number.NaN;
  const headdim = fields.required('head_dim', 'number') ?? Number.NaN;
  const inner = heads * headdim;
  const expand = fields.optional('expand', 'number');
  const stated = fields.optional('intermediate_size', 'number');
  const contradicts = (what: string, value: number): void => {
    if (value !== inner && !Number.isNaN(value - inner))
      fields.problems.push(`${what} contradicts num_heads ${heads} * head_dim ${headdim}`);
  };
  if (expand !== undefined && width !== undefined)
    contradicts(`expand ${expand} * hidden_size ${width}`, expand * width);
  if (stated !== undefined) contradicts(`intermediate_size ${stated}`, stated);
  const input = {
    model_type: 'mamba2',
    ...vocabulary,
    d_model: width,
    n_layer: fields.required('num_hidden_layers', 'number'),
    d_state: fields.required('state_size', 'number'),
    d_conv: fields.required('conv_kernel', 'number'),
    d_inner: inner,
    headdim,
    ngroups: fields.required('n_groups', 'number'),
    dt_limit: fields.numbers('time_step_limit'),
    bias: fields.required('use_bias', 'boolean'),
    conv_bias: fields.required('use_conv_bias', 'boolean'),
    norm_eps: fields.required('layer_norm_epsilon', 'number'),
    chunk_size: fields.optional('chunk_size', 'number'),
    dt_min: fields.optional('time_step_min', 'number'),
    dt_max: fields.optional('time_step_max', 'number'),
    dt_init_floor: fields.optional('time_step_floor', 'number'),
    A_init_range: own.numbers('A_init_range'),
    conv_init: own.optional('conv_init', 'number'),
    tie_embeddings: fields.optional('tie_word_embeddings', 'boolean') ?? false, // unlike in `mamba`
  };
  return { input, problems: [...fields.problems, ...own.problems] };
}

/** Whether transformers computes what the configuration means. It wants a whole number for expand. */
export function isHuggingFaceMamba2(config: ModelConfig): config is Mamba2Config {
  return (
    config.model_type === 'mamba2' &&
    config.attn_cfg === null &&
    config.rms_norm &&
    config.d_intermediate === 0 &&
    config.rmsnorm &&
    !config.norm_before_gate &&
    !config.D_has_hdim &&
    config.norm_groups === config.ngroups &&
    config.d_ssm === config.d_inner &&
    config.d_inner % config.d_model === 0
  );
}

export function writeMamba2(config: Mamba2Config): ConfigJson {
  const { dt_limit, conv_init } = config;
  const isLimited = dt_limit[0] > 0 || dt_limit[1] < Number.POSITIVE_INFINITY;
  const fields = {
    architectures: ['Mamba2ForCausalLM'],
    model_type: MAMBA2_TYPE,
    vocab_size: paddedVocabSize(config),
    hidden_size: config.d_model,
    num_hidden_layers: config.n_layer,
    state_size: config.d_state,
    conv_kernel: config.d_conv,
    expand: config.d_inner / config.d_model,
    num_heads: config.d_inner / config.headdim,
    head_dim: config.headdim,
    n_groups: config.ngroups,
    chunk_size: config.chunk_size,
    // No limit is the default there, and JSON has no word for it.
    ...(isLimited ? { time_step_limit: [...dt_limit] } : {}),
    time_step_min: config.dt_min,
    time_step_max: config.dt_max,
    time_step_floor: config.dt_init_floor,
    use_bias: config.bias,
    use_conv_bias: config.conv_bias,
    hidden_act: 'silu',
    layer_norm_epsilon: config.norm_eps,
    rms_norm: true,
    residual_in_fp32: true,
    rescale_prenorm_residual: RESCALE_PRENORM_RESIDUAL,
    use_cache: true,
    tie_word_embeddings: config.tie_embeddings,
  };
  const own = {
    vocab_size: config.vocab_size,
    pad_vocab_size_multiple: config.pad_vocab_size_multiple,
    A_init_range: [...config.A_init_range],
    ...(conv_init === null ? {} : { conv_init }),
  };
  return { fields, own };
}

/** What a program that reads the file may do otherwise. */
export function mamba2Notes(config: ModelConfig): string[] {
  if (!isHuggingFaceMamba2(config) || config.ngroups === 1) return [];
  return [
    `transformers 5 normalises the gated output in ${config.ngroups} groups, as this model does; transformers 4 (checked: 4.57.1) over all channels at once, which gives other logits.`,
  ];
}
