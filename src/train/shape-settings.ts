/**
 * The shape of a model that is trained from the beginning, as plain settings of a run: the
 * architecture, single numbers instead of a preset's, and which layers are attention. How they become a
 * configuration, and what is wrong with them.
 */
import { ConfigError } from '../base/errors.ts';
import {
  ARCHITECTURES,
  type Architecture,
  type AttentionInput,
  type ModelConfigInput,
  resolveConfig,
} from '../models/config.ts';
import type { ModelShape } from './model-presets.ts';
import type { RunSettings, SettingsCheck } from './run-settings.ts';

/** Null, and no attention layers, leave what the preset or the defaults below say. */
export type ShapeSettings = {
  arch: Architecture;
  d_model: number | null;
  n_layer: number | null;
  d_state: number | null;
  d_conv: number | null;
  expand: number | null;
  headdim: number | null;
  ngroups: number | null;
  /** Makes Mamba-3 a multi-input, multi-output one. */
  mimo_rank: number | null;
  rope_fraction: number | null;
  d_intermediate: number | null;
  /** Layers whose mixer is attention, from 0. */
  attnLayers: number[];
  /** Default: the fewest that have at most 64 elements each. */
  attnHeads: number | null;
  /** Default: attnHeads. */
  attnKvHeads: number | null;
  /** Elements of each head that are rotated by position, default half of them; 0 = none. */
  attnRotary: number | null;
  /** Width of the convolution over queries, keys and values, default 4; 0 = none. */
  attnConv: number | null;
};

/** What the runs have in common that train a model from the beginning. */
export type ShapedRun = RunSettings & ShapeSettings;

export const SHAPE_DEFAULTS: ShapeSettings = {
  arch: 'mamba1',
  d_model: null,
  n_layer: null,
  d_state: null,
  d_conv: null,
  expand: null,
  headdim: null,
  ngroups: null,
  mimo_rank: null,
  rope_fraction: null,
  d_intermediate: null,
  attnLayers: [],
  attnHeads: null,
  attnKvHeads: null,
  attnRotary: null,
  attnConv: null,
};

/**
 * State size of Mamba-2 and -3 where no preset names one. Official models have 128, for much
 * larger widths; at width 128, states of 32, 64 and 128 learn alike, and 64 gives a Mamba-2 as
 * many parameters as a Mamba-1 has.
 */
const D_STATE = 64;

/** What an architecture does not have. */
const ABSENT: Record<Architecture, readonly (keyof ShapeSettings & string)[]> = {
  mamba1: ['headdim', 'ngroups', 'mimo_rank', 'rope_fraction'],
  mamba2: ['mimo_rank', 'rope_fraction'],
  mamba3: ['d_conv'], // no convolution at all
};

const OF_ATTENTION = ['attnHeads', 'attnKvHeads', 'attnRotary', 'attnConv'] as const;

/**
 * Adds to the problems what is out of range or does not belong together. Throws ConfigError for what the
 * configuration does not allow, when nothing else is wrong.
 */
export function checkShape<S extends ShapedRun>(
  settings: S,
  check: SettingsCheck<S>,
  preset: ModelShape,
): void {
  const { arch } = settings;
  check.oneOf('arch', ARCHITECTURES);
  for (const key of ['d_model', 'n_layer', 'd_state', 'd_conv', 'headdim', 'ngroups', 'mimo_rank'] as const)
    check.integer(key, 1);
  for (const key of ['attnHeads', 'attnKvHeads'] as const) check.integer(key, 1);
  for (const key of ['d_intermediate', 'attnRotary', 'attnConv'] as const) check.integer(key, 0);
  check.within('expand', (x) => x > 0, 'above 0');
  for (const key of ABSENT[arch] ?? [])
    if (settings[key] !== null)
      check.problems.push(`no ${key}, which ${arch} does not have, got ${String(settings[key])}`);
  const idle = OF_ATTENTION.find((key) => settings[key] !== null);
  if (idle && !attends(settings, preset))
    check.problems.push(`attnLayers to name the layers that ${idle} is for, got none`);
  if (check.problems.length === 0)
    resolveConfig({ ...shapeInput(settings, preset), vocab_size: 1 } as ModelConfigInput);
}

/** Whether some layers are attention, so that the state grows with the text. */
export function attends({ attnLayers }: ShapeSettings, preset: ModelShape): boolean {
  return attnLayers.length > 0 || preset.attn_layer_idx !== undefined;
}

/**
 * The configuration of the model, but for the vocabulary. A preset of an official model
 * says everything that is not set.
 */
export function shapeInput(settings: ShapeSettings, preset: ModelShape): ModelShape {
  const { arch, mimo_rank, d_model, n_layer, d_state, d_conv, expand, headdim, ngroups, rope_fraction } =
    settings;
  const { d_intermediate } = settings;
  const own = { d_model, n_layer, d_state, d_conv, expand, headdim, ngroups, rope_fraction, d_intermediate };
  const given = Object.fromEntries(Object.entries(own).filter(([, value]) => value !== null));
  const shape = { ...preset, ...given, model_type: arch } as ModelShape;
  return {
    ...(preset.model_type === undefined ? sizesFor(shape, own.headdim) : {}),
    ...shape,
    ...(mimo_rank !== null && { is_mimo: true, mimo_rank }),
    ...attentionOf(settings, shape),
  } as ModelShape;
}

/** What suits a width that no official model has: heads of up to 64 channels, at least four of them. */
function sizesFor({ model_type, d_model, expand = 2 }: ModelShape, headdim: number | null): object {
  if (model_type === 'mamba1') return {};
  const inner = Math.floor(expand * d_model);
  const fitting = [64, 32, 16, 8, 4, 2].find((p) => inner % p === 0 && inner / p >= 4) ?? 1;
  if (fitting === 1 && inner > 8 && headdim === null) {
    throw new ConfigError(
      `train: expected an inner width that is a multiple of 2, got ${inner} (${expand} times d_model ${d_model}). ` +
        'Choose another width, or the channels per head with --headdim.',
    );
  }
  return { d_state: D_STATE, headdim: fitting };
}

/** Attention layers as the published hybrid has them: no biases, a convolution, half of each head rotated. */
function attentionOf(
  settings: ShapeSettings,
  { d_model, attn_layer_idx = [], attn_cfg }: ModelShape,
): object {
  const { attnLayers, attnHeads, attnKvHeads, attnRotary, attnConv } = settings;
  const layers = attnLayers.length > 0 ? attnLayers : attn_layer_idx;
  if (layers.length === 0) return {};
  const heads = attnHeads ?? attn_cfg?.num_heads ?? headsFor(d_model);
  const head_dim = attn_cfg?.head_dim ?? d_model / heads;
  const config: AttentionInput = {
    num_heads: heads,
    num_heads_kv: attnKvHeads ?? heads,
    head_dim,
    rotary_emb_dim: attnRotary ?? attn_cfg?.rotary_emb_dim ?? 2 * Math.floor(head_dim / 4),
    d_conv: attnConv ?? attn_cfg?.d_conv ?? 4,
    qkv_proj_bias: false,
    out_proj_bias: false,
  };
  return { attn_layer_idx: layers, attn_cfg: config };
}

function headsFor(d_model: number): number {
  let heads = 1;
  while (d_model % heads !== 0 || d_model / heads > 64) heads++;
  return heads;
}
