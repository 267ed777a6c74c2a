/**
 * params.json of Mistral's Codestral Mamba, a Mamba-2 in the original names with `model.` in front. It tells
 * the stack and n_groups; the sizes of the layers are read off the tensors. Those of the published model are
 * the defaults of the original Mamba2.
 */
import { FormatError } from '../base/errors.ts';
import type { Shape } from '../base/shape.ts';
import type { Mamba2Config, ModelConfig } from '../models/config.ts';
import { refuse, resolveRead } from './config-reading.ts';
import { inferStack } from './infer-config.ts';
import { inferMamba2, Shapes } from './infer-mixer.ts';
import type { JsonObject } from './json.ts';
import { Fields } from './json-fields.ts';

const KNOWN = [
  'dim',
  'n_layers',
  'vocab_size',
  'n_groups',
  'rms_norm',
  'residual_in_fp32',
  'fused_add_norm',
  'pad_vocab_size_multiple',
  'tie_embeddings',
  'model_type',
];

/**
 * `found`: shapes under our names; `isShared`: the head is the embedding's tensor under a second name;
 * `name`: of params.json. Throws ConfigError that lists what is missing, unknown or does not fit the tensors,
 * UnsupportedError for params.json of another model.
 */
export function readCodestral(
  json: JsonObject,
  found: ReadonlyMap<string, Shape>,
  isShared: boolean,
  name = 'params.json',
): ModelConfig {
  if (json.model_type !== 'mamba' && json.n_groups === undefined)
    refuse(name, 'model_type mamba', json.model_type, 'Of this layout only Codestral Mamba can be loaded.');
  const fields = new Fields(json);
  fields.unknown(KNOWN);
  const shapes = new Shapes(found);
  const stack = inferStack(found, shapes, isShared);
  const ngroups = fields.required('n_groups', 'number') ?? 1;
  const vocab_size = fields.optional('vocab_size', 'number') ?? stack.vocab_size;
  const multiple = fields.optional('pad_vocab_size_multiple', 'number') ?? 1;
  const input = {
    ...stack,
    ...inferMamba2(shapes, 'backbone.layers.0.mixer', ngroups),
    d_model: fields.required('dim', 'number'),
    n_layer: fields.required('n_layers', 'number'),
    vocab_size,
    pad_vocab_size_multiple: multiple,
    rms_norm: fields.optional('rms_norm', 'boolean') ?? stack.rms_norm,
    tie_embeddings: fields.optional('tie_embeddings', 'boolean') ?? stack.tie_embeddings,
  };
  return resolveRead({ input, problems: [...fields.problems, ...shapes.problems] }, name);
}

/**
 * params.json of a Mamba-2. FormatError for a model that is none, or has values that nothing
 * there and no shape would tell.
 */
export function toCodestralParams(config: ModelConfig): JsonObject {
  const problems = config.model_type === 'mamba2' ? [...codestralProblems(config)] : [config.model_type];
  if (problems.length > 0) {
    throw new FormatError(
      `toCodestralParams: expected a Mamba-2 that params.json can hold, got ${problems.join('; ')}. Write the Hugging Face layout.`,
    );
  }
  return {
    dim: config.d_model,
    n_layers: config.n_layer,
    vocab_size: config.vocab_size,
    n_groups: (config as Mamba2Config).ngroups,
    rms_norm: config.rms_norm,
    residual_in_fp32: true,
    fused_add_norm: true,
    pad_vocab_size_multiple: config.pad_vocab_size_multiple,
    tie_embeddings: config.tie_embeddings,
    model_type: 'mamba',
  };
}

function* codestralProblems(config: Mamba2Config): Generator<string> {
  const { dt_limit, norm_groups, ngroups } = config;
  if (config.attn_cfg) yield `attention in layer ${config.attn_layer_idx.join(', ')}`;
  if (config.d_intermediate > 0) yield `d_intermediate ${config.d_intermediate}`;
  if (config.norm_eps !== 1e-5) yield `norm_eps ${config.norm_eps} (it is 1e-5 there)`;
  if (config.norm_before_gate) yield 'norm_before_gate true';
  if (norm_groups !== ngroups) yield `norm_groups ${norm_groups} beside ngroups ${ngroups}`;
  if (dt_limit[0] !== 0 || dt_limit[1] !== Number.POSITIVE_INFINITY)
    yield `dt_limit [${dt_limit.join(', ')}]`;
}

/** What Mistral's own program gives every layer, whatever the tensors are. */
const USUAL = {
  d_state: 128,
  d_conv: 4,
  headdim: 64,
  D_has_hdim: false,
  rmsnorm: true,
  bias: false,
  conv_bias: true,
} as const;

/** What Mistral's own program cannot do with a model that this layout can hold. */
export function codestralNotes(config: ModelConfig): string[] {
  if (config.model_type !== 'mamba2') return [];
  const usual = { ...USUAL, d_inner: 2 * config.d_model, d_ssm: config.d_inner };
  const others = (Object.keys(usual) as (keyof typeof usual)[]).filter((key) => config[key] !== usual[key]);
  if (others.length === 0) return [];
  const list = others.map((key) => `${key} ${config[key]}`).join(', ');
  return [`Mistral's program cannot load this model, because params.json does not tell it ${list}.`];
}
