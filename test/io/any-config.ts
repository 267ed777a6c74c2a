/** Arbitrary configurations of Mamba-2 and Mamba-3, with and without attention: sizes that fit together. */
import fc from 'fast-check';
import { type ModelConfig, type ModelConfigInput, resolveConfig } from '../../src/models/config.ts';

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

const mamba2: fc.Arbitrary<unknown> = fc.record({
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

const mamba3: fc.Arbitrary<unknown> = fc.record({
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

/** For fast-check. */
export const ANY_CONFIG: Readonly<Record<'mamba2' | 'mamba3', fc.Arbitrary<ModelConfig>>> = {
  mamba2: mamba2.map((values) => fitting(values as Drawn)),
  mamba3: mamba3.map((values) => fitting(values as Drawn)),
};
