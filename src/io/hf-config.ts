/**
 * config.json <-> ModelConfig. Read: Hugging Face `mamba` and `falcon_mamba`, and the original layout of state-spaces/mamba.
 * Nothing is guessed: a field the layout must have is required, fields that contradict each other are reported, all
 * problems in one ConfigError. What Hugging Face has no key for stands under `mamba_ts`.
 */
import { ConfigError, FormatError, UnsupportedError } from '../base/errors.ts';
import type { ClassifierHead } from '../models/classifier-config.ts';
import {
  type Mamba1Config,
  type ModelConfig,
  type ModelConfigInput,
  paddedVocabSize,
  resolveConfig,
} from '../models/config.ts';
import { headFromJson, headToJson } from './classifier-config.ts';
import type { Json, JsonObject } from './json.ts';
import { Fields } from './json-fields.ts';
import { listProblems } from './problems.ts';

/** Models that Hugging Face's `mamba` cannot compute carry this type, so that transformers refuses them: classifiers too. */
const OWN_TYPE = 'mamba_ts';
const FALCON_TYPE = 'falcon_mamba';
/** What transformers takes for a Falcon-Mamba without the field. */
const FALCON_EPS = 1e-6;

export interface ModelDescription {
  config: ModelConfig;
  /** Null for a language model; of a classifier, `config` is its backbone's. */
  head: ClassifierHead | null;
}

/** The configuration alone: of a language model, or of a classifier's backbone. */
export function configFromJson(json: JsonObject, name = 'config.json'): ModelConfig {
  return modelFromJson(json, name).config;
}

/** Reads a parsed config.json; `name` is the file for messages. */
export function modelFromJson(json: JsonObject, name = 'config.json'): ModelDescription {
  const type = json.model_type;
  if (type === 'mamba' || type === FALCON_TYPE || type === OWN_TYPE) return fromHuggingFace(json, name);
  if (type !== undefined) {
    throw new UnsupportedError(
      `configFromJson: expected model_type mamba or falcon_mamba in ${name}, got ${JSON.stringify(type)}. Only Mamba-1 models can be loaded.`,
    );
  }
  if (json.d_model !== undefined || json.ssm_cfg !== undefined)
    return { config: fromOriginal(json, name), head: null };
  throw new ConfigError(
    `configFromJson: expected model_type "mamba" or the fields d_model, n_layer, vocab_size in ${name}, got neither. Is it the config.json of a model?`,
  );
}

function refuse(name: string, field: string, value: Json | undefined, remedy: string): never {
  throw new UnsupportedError(
    `configFromJson: expected ${field} in ${name}, got ${JSON.stringify(value)}. ${remedy}`,
  );
}

function fromHuggingFace(json: JsonObject, name: string): ModelDescription {
  if (json.hidden_act !== undefined && json.hidden_act !== 'silu' && json.hidden_act !== 'swish') {
    refuse(name, 'hidden_act silu', json.hidden_act, 'Other activations are not part of Mamba.');
  }
  const fields = new Fields(json);
  const ownJson = fields.object(OWN_TYPE);
  const own = new Fields(ownJson, `${OWN_TYPE}.`);
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
  const rows = fields.required('vocab_size', 'number');
  const width = fields.required('hidden_size', 'number');
  // intermediate_size wins over expand (Falcon-Mamba writes expand 16 and means 2).
  const inner = fields.optional('intermediate_size', 'number');
  const expand = inner === undefined ? fields.optional('expand', 'number') : undefined;
  if (inner === undefined && expand === undefined)
    fields.problems.push('intermediate_size is missing, and so is expand');
  if (!fields.has('time_step_rank')) fields.problems.push('time_step_rank is missing');
  const input = {
    d_model: width,
    n_layer: fields.required('num_hidden_layers', 'number'),
    vocab_size: own.optional('vocab_size', 'number') ?? rows,
    pad_vocab_size_multiple: own.optional('pad_vocab_size_multiple', 'number') ?? 1,
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
  const { head, problems: headProblems } = headFromJson(json, ownJson);
  const problems = [...fields.problems, ...own.problems, ...headProblems];
  const { vocab_size: real, pad_vocab_size_multiple: multiple } = input;
  if (real !== undefined && rows !== undefined && Math.ceil(real / multiple) * multiple !== rows) {
    problems.push(
      `vocab_size ${rows} contradicts ${OWN_TYPE}.vocab_size ${real} padded to a multiple of ${multiple}`,
    );
  }
  return { config: resolve(input, problems, name), head };
}

const ORIGINAL_SSM = [
  'layer',
  'd_state',
  'd_conv',
  'expand',
  'dt_rank',
  'dt_min',
  'dt_max',
  'dt_init',
  'dt_scale',
  'dt_init_floor',
  'conv_bias',
  'bias',
  'use_fast_path',
]; // prettier-ignore

function fromOriginal(json: JsonObject, name: string): ModelConfig {
  const fields = new Fields(json);
  const ssmJson = fields.object('ssm_cfg');
  if (ssmJson.layer !== undefined && ssmJson.layer !== 'Mamba1') {
    refuse(name, 'ssm_cfg.layer Mamba1', ssmJson.layer, 'Only Mamba-1 models can be loaded.');
  }
  if (Array.isArray(json.attn_layer_idx) && json.attn_layer_idx.length > 0) {
    refuse(
      name,
      'no attention layers (attn_layer_idx)',
      json.attn_layer_idx,
      'Hybrid models cannot be loaded.',
    );
  }
  const ssm = new Fields(ssmJson, 'ssm_cfg.');
  ssm.unknown(ORIGINAL_SSM);
  const input = {
    d_model: fields.required('d_model', 'number'),
    n_layer: fields.required('n_layer', 'number'),
    vocab_size: fields.required('vocab_size', 'number'),
    pad_vocab_size_multiple: fields.optional('pad_vocab_size_multiple', 'number'),
    d_state: ssm.optional('d_state', 'number'),
    d_conv: ssm.optional('d_conv', 'number'),
    expand: ssm.optional('expand', 'number'),
    dt_rank: ssm.rank('dt_rank'),
    dt_min: ssm.optional('dt_min', 'number'),
    dt_max: ssm.optional('dt_max', 'number'),
    dt_init: ssm.optional('dt_init', 'string'),
    dt_scale: ssm.optional('dt_scale', 'number'),
    dt_init_floor: ssm.optional('dt_init_floor', 'number'),
    conv_bias: ssm.optional('conv_bias', 'boolean'),
    bias: ssm.optional('bias', 'boolean'),
    rms_norm: fields.optional('rms_norm', 'boolean'),
    tie_embeddings: fields.optional('tie_embeddings', 'boolean'),
    d_intermediate: fields.optional('d_intermediate', 'number'),
  };
  return resolve(input, [...fields.problems, ...ssm.problems], name);
}

/** Hands over to resolveConfig; absent fields take its defaults, which are the official ones. */
function resolve(input: Record<string, unknown>, problems: string[], name: string): ModelConfig {
  const given = Object.fromEntries(Object.entries(input).filter(([, value]) => value !== undefined));
  if (problems.length === 0) {
    try {
      return resolveConfig(given as unknown as ModelConfigInput);
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      throw new ConfigError(`${error.message} (${name})`, { cause: error });
    }
  }
  throw new ConfigError(
    `configFromJson: expected a complete and consistent ${name}, got: ${listProblems(problems)}. Correct these fields.`,
  );
}

export interface HuggingFaceOptions {
  /** Id of the end-of-text token; null for none. It also fills bos and pad, as in the official checkpoints. */
  eosId?: number | null;
  /** Element type of the stored weights. */
  weights?: 'F32' | 'BF16' | 'F16';
  /** Of a classifier, whose backbone the configuration is; default null, a language model. */
  head?: ClassifierHead | null;
}

const TORCH_DTYPES = { F32: 'float32', BF16: 'bfloat16', F16: 'float16' } as const;

/**
 * The Hugging Face config.json of a model, `falcon_mamba` if it has `mixer_rms_eps`. transformers loads it unless the model has
 * LayerNorm or MLP sublayers, or is a classifier, which it does not know: such a model gets the model_type `mamba_ts`.
 */
export function toHuggingFaceConfig(model: ModelConfig, options: HuggingFaceOptions = {}): JsonObject {
  const config = onlyMamba1('toHuggingFaceConfig', model);
  const head = options.head ? headToJson(options.head) : null;
  const standard = config.rms_norm && config.d_intermediate === 0 && head === null;
  const eps = config.mixer_rms_eps;
  const falcon = eps !== null;
  const eos = options.eosId ?? null;
  return {
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
    rescale_prenorm_residual: true,
    initializer_range: 0.02,
    use_cache: true,
    tie_word_embeddings: config.tie_embeddings,
    bos_token_id: eos,
    eos_token_id: eos,
    pad_token_id: eos,
    torch_dtype: TORCH_DTYPES[options.weights ?? 'F32'],
    ...head?.fields,
    [OWN_TYPE]: {
      vocab_size: config.vocab_size,
      pad_vocab_size_multiple: config.pad_vocab_size_multiple,
      rms_norm: config.rms_norm,
      d_intermediate: config.d_intermediate,
      ...(falcon ? { mixer_rms_eps: eps } : {}),
      ...head?.own,
    },
  };
}

/** The config.json of the original layout. FormatError if a value has no place there. */
export function toOriginalConfig(model: ModelConfig): JsonObject {
  const config = onlyMamba1('toOriginalConfig', model);
  const expand = config.d_inner / config.d_model;
  const problems: string[] = [];
  if (Math.floor(expand * config.d_model) !== config.d_inner)
    problems.push(`d_inner ${config.d_inner} as a factor expand`);
  if (config.norm_eps !== 1e-5) problems.push(`norm_eps ${config.norm_eps} (it is 1e-5 there)`);
  if (config.mixer_rms_eps !== null) problems.push(`mixer_rms_eps ${config.mixer_rms_eps}`);
  if (problems.length > 0) {
    throw new FormatError(
      `toOriginalConfig: expected values the original layout can hold, got ${problems.join('; ')}. Write the Hugging Face layout.`,
    );
  }
  return {
    d_model: config.d_model,
    d_intermediate: config.d_intermediate,
    n_layer: config.n_layer,
    vocab_size: config.vocab_size,
    ssm_cfg: {
      layer: 'Mamba1',
      d_state: config.d_state,
      d_conv: config.d_conv,
      expand,
      dt_rank: config.dt_rank,
      dt_min: config.dt_min,
      dt_max: config.dt_max,
      dt_init: config.dt_init,
      dt_scale: config.dt_scale,
      dt_init_floor: config.dt_init_floor,
      conv_bias: config.conv_bias,
      bias: config.bias,
    },
    attn_layer_idx: [],
    attn_cfg: {},
    rms_norm: config.rms_norm,
    residual_in_fp32: true,
    fused_add_norm: true,
    pad_vocab_size_multiple: config.pad_vocab_size_multiple,
    tie_embeddings: config.tie_embeddings,
  };
}

export function onlyMamba1(what: string, config: ModelConfig): Mamba1Config {
  if (config.model_type === 'mamba1' && !config.attn_cfg) return config;
  throw new UnsupportedError(
    `${what}: expected a Mamba-1 model, got ${config.model_type}. Other layouts cannot be written.`,
  );
}
