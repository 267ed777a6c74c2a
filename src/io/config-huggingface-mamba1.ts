/**
 * config.json of Hugging Face's `mamba` and `falcon_mamba`, and of our own type
 * for a Mamba-1 without attention.
 */
import { type Mamba1Config, paddedVocabSize } from '../models/config.ts';
import {
  type ConfigJson,
  checkActivation,
  OWN_TYPE,
  RESCALE_PRENORM_RESIDUAL,
  type ReadConfig,
  readVocabulary,
} from './config-reading.ts';
import type { JsonObject } from './json.ts';
import { Fields } from './json-fields.ts';

export const FALCON_TYPE = 'falcon_mamba';
/** What transformers takes for a Falcon-Mamba without the field. */
const FALCON_EPS = 1e-6;

/** The fields of a configuration, and what is wrong with them. */
export function readMamba1(json: JsonObject, name: string): ReadConfig {
  checkActivation(json, name);
  const fields = new Fields(json);
  const own = new Fields(fields.object(OWN_TYPE), `${OWN_TYPE}.`);
  if (json.model_type === OWN_TYPE && !fields.has(OWN_TYPE)) fields.problems.push(`${OWN_TYPE} is missing`);
  own.unknown([
    'vocab_size',
    'pad_vocab_size_multiple',
    'rms_norm',
    'd_intermediate',
    'mixer_rms_eps',
    'classifier',
  ]);

  // Checkpoints converted from the original layout keep its keys beside the new ones.
  fields.same('hidden_size', 'd_model');
  fields.same('num_hidden_layers', 'n_layer');
  fields.same('intermediate_size', 'd_inner');
  const vocabulary = readVocabulary(fields, own);
  // intermediate_size wins over expand (Falcon-Mamba writes expand 16 and means 2).
  const inner = fields.optional('intermediate_size', 'number');
  const expand = inner === undefined ? fields.optional('expand', 'number') : undefined;
  if (inner === undefined && expand === undefined)
    fields.problems.push('intermediate_size is missing, and so is expand');
  if (!fields.has('time_step_rank')) fields.problems.push('time_step_rank is missing');
  const input = {
    ...vocabulary,
    d_model: fields.required('hidden_size', 'number'),
    n_layer: fields.required('num_hidden_layers', 'number'),
    d_state: fields.required('state_size', 'number'),
    d_conv: fields.required('conv_kernel', 'number'),
    d_inner: inner,
    expand,
    dt_rank: fields.rank('time_step_rank'),
    bias: fields.required('use_bias', 'boolean'),
    conv_bias: fields.required('use_conv_bias', 'boolean'),
    mixer_rms_eps:
      json.model_type === FALCON_TYPE
        ? (fields.optional('mixer_rms_eps', 'number') ?? FALCON_EPS)
        : own.optional('mixer_rms_eps', 'number'),
    dt_min: fields.optional('time_step_min', 'number'),
    dt_max: fields.optional('time_step_max', 'number'),
    dt_init_floor: fields.optional('time_step_floor', 'number'),
    dt_init: fields.optional('time_step_init_scheme', 'string'),
    dt_scale: fields.optional('time_step_scale', 'number'),
    rms_norm: own.optional('rms_norm', 'boolean'),
    norm_eps: fields.required('layer_norm_epsilon', 'number'),
    d_intermediate: own.optional('d_intermediate', 'number'),
    tie_embeddings: fields.optional('tie_word_embeddings', 'boolean'), // absent means true
  };
  return { input, problems: [...fields.problems, ...own.problems] };
}

/** `falcon_mamba` with mixer_rms_eps; our type where transformers would compute something else. */
export function writeMamba1(config: Mamba1Config, isClassifier: boolean): ConfigJson {
  const standard = config.rms_norm && config.d_intermediate === 0 && !isClassifier;
  const eps = config.mixer_rms_eps;
  const falcon = eps !== null;
  const fields = {
    architectures: standard ? [falcon ? 'FalconMambaForCausalLM' : 'MambaForCausalLM'] : [],
    model_type: standard ? (falcon ? FALCON_TYPE : 'mamba') : OWN_TYPE,
    vocab_size: paddedVocabSize(config),
    hidden_size: config.d_model,
    num_hidden_layers: config.n_layer,
    state_size: config.d_state,
    conv_kernel: config.d_conv,
    expand: config.d_inner / config.d_model,
    intermediate_size: config.d_inner,
    time_step_rank: config.dt_rank,
    time_step_min: config.dt_min,
    time_step_max: config.dt_max,
    time_step_floor: config.dt_init_floor,
    time_step_init_scheme: config.dt_init,
    time_step_scale: config.dt_scale,
    use_bias: config.bias,
    use_conv_bias: config.conv_bias,
    hidden_act: 'silu',
    layer_norm_epsilon: config.norm_eps,
    ...(falcon ? { mixer_rms_eps: eps } : {}),
    residual_in_fp32: true,
    rescale_prenorm_residual: RESCALE_PRENORM_RESIDUAL,
    initializer_range: 0.02,
    use_cache: true,
    tie_word_embeddings: config.tie_embeddings,
  };
  const own = {
    vocab_size: config.vocab_size,
    pad_vocab_size_multiple: config.pad_vocab_size_multiple,
    rms_norm: config.rms_norm,
    d_intermediate: config.d_intermediate,
    ...(falcon ? { mixer_rms_eps: eps } : {}),
  };
  return { fields, own };
}
