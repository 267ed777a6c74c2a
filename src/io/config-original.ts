/**
 * config.json of the original layout (state-spaces/mamba, MambaConfig): all that the constructors
 * of its layers take is either read or refused by name. Its Mamba3 swallows what it does not
 * know; here a typo is an error.
 */
import { FormatError } from '../base/errors.ts';
import type { ModelConfig } from '../models/config.ts';
import { type ReadConfig, refuse } from './config-reading.ts';
import type { JsonObject } from './json.ts';
import { Fields } from './json-fields.ts';

/** `speed`: chooses among ways to the same result, or is ignored there too. */
type Kind = 'number' | 'boolean' | 'string' | 'rank' | 'numbers' | 'speed';
type Kinds = Readonly<Record<string, Kind>>;

const COMMON: Kinds = {
  d_state: 'number',
  expand: 'number',
  dt_min: 'number',
  dt_max: 'number',
  dt_init_floor: 'number',
};

/** The constructor arguments that may stand in ssm_cfg. */
const MIXERS: Readonly<Record<string, { model_type: ModelConfig['model_type']; kinds: Kinds }>> = {
  Mamba1: {
    model_type: 'mamba1',
    kinds: {
      ...COMMON,
      d_conv: 'number',
      dt_rank: 'rank',
      dt_init: 'string',
      dt_scale: 'number',
      conv_bias: 'boolean',
      bias: 'boolean',
      use_fast_path: 'speed',
    },
  },
  Mamba2: {
    model_type: 'mamba2',
    kinds: {
      ...COMMON,
      d_conv: 'number',
      conv_init: 'number',
      headdim: 'number',
      d_ssm: 'number',
      ngroups: 'number',
      A_init_range: 'numbers',
      D_has_hdim: 'boolean',
      rmsnorm: 'boolean',
      norm_before_gate: 'boolean',
      dt_limit: 'numbers',
      bias: 'boolean',
      conv_bias: 'boolean',
      chunk_size: 'number',
      use_mem_eff_path: 'speed',
      sequence_parallel: 'speed',
    },
  },
  Mamba3: {
    model_type: 'mamba3',
    kinds: {
      ...COMMON,
      headdim: 'number',
      ngroups: 'number',
      rope_fraction: 'number',
      A_floor: 'number',
      is_outproj_norm: 'boolean',
      is_mimo: 'boolean',
      mimo_rank: 'number',
      chunk_size: 'number',
      fuse_pregate_headwise_norm: 'speed',
      dropout: 'speed',
      n_layer: 'speed',
    },
  },
};

const ATTENTION: Kinds = {
  num_heads: 'number',
  num_heads_kv: 'number',
  head_dim: 'number',
  mlp_dim: 'number',
  d_conv: 'number',
  rotary_emb_dim: 'number',
  rotary_emb_base: 'number',
  rotary_emb_interleaved: 'boolean',
  qkv_proj_bias: 'boolean',
  out_proj_bias: 'boolean',
  softmax_scale: 'number',
  causal: 'boolean',
};

export function readOriginal(json: JsonObject, name: string): ReadConfig {
  const fields = new Fields(json);
  const ssmJson = fields.object('ssm_cfg');
  const { layer = 'Mamba1' } = ssmJson;
  const mixer = typeof layer === 'string' && Object.hasOwn(MIXERS, layer) ? MIXERS[layer] : undefined;
  if (!mixer)
    refuse(name, `ssm_cfg.layer ${Object.keys(MIXERS).join(', ')}`, layer, 'Other layers cannot be loaded.');
  const ssm = new Fields(ssmJson, 'ssm_cfg.');
  const attention = new Fields(fields.object('attn_cfg'), 'attn_cfg.');
  const layers = [...new Set(fields.numbers('attn_layer_idx'))].sort((a, b) => a - b);
  const attn_cfg = readKinds(attention, ATTENTION);
  // Without num_heads there is more wrong, and resolveConfig says what.
  if (
    layers.length > 0 &&
    attention.has('num_heads') &&
    attn_cfg.causal !== true &&
    attention.problems.length === 0
  ) {
    const remedy = 'Attention that looks ahead, the default there, is not that of a language model.';
    refuse(name, 'attn_cfg.causal true', attn_cfg.causal as boolean | undefined, remedy);
  }
  const input = {
    model_type: mixer.model_type,
    d_model: fields.required('d_model', 'number'),
    n_layer: fields.required('n_layer', 'number'),
    vocab_size: fields.required('vocab_size', 'number'),
    pad_vocab_size_multiple: fields.optional('pad_vocab_size_multiple', 'number'),
    ...readKinds(ssm, mixer.kinds, ['layer']),
    rms_norm: fields.optional('rms_norm', 'boolean'),
    tie_embeddings: fields.optional('tie_embeddings', 'boolean'),
    d_intermediate: fields.optional('d_intermediate', 'number'),
    attn_layer_idx: layers,
    attn_cfg: layers.length > 0 && fields.has('attn_cfg') ? attn_cfg : null,
  };
  return { input, problems: [...fields.problems, ...ssm.problems, ...attention.problems] };
}

function readKinds(fields: Fields, kinds: Kinds, besides: readonly string[] = []): Record<string, unknown> {
  fields.unknown([...Object.keys(kinds), ...besides]);
  const values: Record<string, unknown> = {};
  for (const [key, kind] of Object.entries(kinds)) {
    if (kind === 'speed' || !fields.has(key)) continue;
    if (kind === 'rank') values[key] = fields.rank(key);
    else values[key] = kind === 'numbers' ? fields.numbers(key) : fields.optional(key, kind);
  }
  return values;
}

/** The config.json of the original layout. FormatError if a value has no place there. */
export function toOriginalConfig(config: ModelConfig): JsonObject {
  const problems = [...originalProblems(config)];
  if (problems.length > 0) {
    throw new FormatError(
      `toOriginalConfig: expected values the original layout can hold, got ${problems.join('; ')}. Write the Hugging Face layout.`,
    );
  }
  const [layer, { kinds }] = Object.entries(MIXERS).find(
    ([, { model_type }]) => model_type === config.model_type,
  )!;
  const known: Record<string, unknown> = { ...config, expand: config.d_inner / config.d_model };
  if (config.model_type === 'mamba2') {
    if (config.d_ssm === config.d_inner) delete known.d_ssm;
    if (config.dt_limit[0] === 0 && config.dt_limit[1] === Number.POSITIVE_INFINITY) delete known.dt_limit;
  }
  const ssm = Object.entries(kinds).flatMap(([key, kind]) =>
    kind === 'speed' || known[key] === undefined ? [] : [[key, known[key]]],
  );
  return {
    d_model: config.d_model,
    d_intermediate: config.d_intermediate,
    n_layer: config.n_layer,
    vocab_size: config.vocab_size,
    ssm_cfg: { layer, ...Object.fromEntries(ssm) },
    attn_layer_idx: [...config.attn_layer_idx],
    attn_cfg: { ...config.attn_cfg },
    rms_norm: config.rms_norm,
    residual_in_fp32: true,
    fused_add_norm: true,
    pad_vocab_size_multiple: config.pad_vocab_size_multiple,
    tie_embeddings: config.tie_embeddings,
  };
}

function* originalProblems(config: ModelConfig): Generator<string> {
  const { d_model, d_inner, norm_eps } = config;
  if (Math.floor((d_inner / d_model) * d_model) !== d_inner) yield `d_inner ${d_inner} as a factor expand`;
  if (norm_eps !== 1e-5) yield `norm_eps ${norm_eps} (it is 1e-5 there)`;
  if (config.model_type === 'mamba1' && config.mixer_rms_eps !== null)
    yield `mixer_rms_eps ${config.mixer_rms_eps}`;
  if (config.model_type === 'mamba2' && config.norm_groups !== config.ngroups)
    yield `norm_groups ${config.norm_groups} beside ngroups ${config.ngroups}`;
  if (config.model_type === 'mamba3' && config.A_activation !== 'heavy-tail')
    yield `A_activation ${config.A_activation}`;
}
