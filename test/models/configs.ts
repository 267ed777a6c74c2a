/** Small configurations that reach every branch of every architecture; the vocabulary is padded in all of them. */
import type { ModelConfigInput } from '../../src/models/config.ts';

const SMALL = { vocab_size: 11, d_model: 8, n_layer: 2, d_state: 4 };
const MAMBA2 = { ...SMALL, model_type: 'mamba2', headdim: 4 } as const;
const MAMBA3 = { ...SMALL, model_type: 'mamba3', headdim: 4 } as const;

export const MAMBA1_CONFIGS: Record<string, ModelConfigInput> = {
  plain: SMALL,
  'odd sizes': {
    vocab_size: 13,
    pad_vocab_size_multiple: 5,
    d_model: 7,
    n_layer: 3,
    d_inner: 9,
    d_state: 5,
    d_conv: 3,
    dt_rank: 2,
  },
  'wider than a vector': { ...SMALL, d_model: 24, d_inner: 37, d_state: 16, n_layer: 1 },
  'one state, no window': { ...SMALL, d_state: 1, d_conv: 1 },
  'one state, a longer window': { ...SMALL, d_state: 1, d_conv: 6 },
  'biases everywhere': { ...SMALL, bias: true },
  'no convolution bias': { ...SMALL, conv_bias: false },
  'norms of dt, B and C': { ...SMALL, mixer_rms_eps: 1e-6 },
  LayerNorm: { ...SMALL, rms_norm: false },
  'MLP sublayers': { ...SMALL, d_intermediate: 20 },
  'untied, LayerNorm, MLP': { ...SMALL, tie_embeddings: false, rms_norm: false, d_intermediate: 12 },
};

export const MAMBA2_CONFIGS: Record<string, ModelConfigInput> = {
  'Mamba-2': MAMBA2,
  'Mamba-2, odd sizes': {
    ...MAMBA2,
    pad_vocab_size_multiple: 5,
    d_model: 7,
    n_layer: 3,
    d_inner: 9,
    headdim: 3,
    d_state: 5,
    d_conv: 3,
  },
  'Mamba-2, wider than a vector': { ...MAMBA2, d_model: 24, headdim: 24, d_state: 20, n_layer: 1 },
  'Mamba-2, groups, biases': { ...MAMBA2, ngroups: 2, bias: true },
  'Mamba-2, the norm over all groups': { ...MAMBA2, ngroups: 2, norm_groups: 1 },
  'Mamba-2, a SwiGLU beside, D per channel, the norm first': {
    ...MAMBA2,
    d_ssm: 8,
    D_has_hdim: true,
    norm_before_gate: true,
  },
  'Mamba-2 without the norm': { ...MAMBA2, rmsnorm: false, conv_bias: false },
  'Mamba-2, bounded steps': { ...MAMBA2, dt_limit: [0.01, 0.05] as const, d_conv: 2 },
  'Mamba-2, untied, LayerNorm, MLP': {
    ...MAMBA2,
    tie_embeddings: false,
    rms_norm: false,
    d_intermediate: 12,
  },
};

export const MAMBA3_CONFIGS: Record<string, ModelConfigInput> = {
  'Mamba-3': MAMBA3,
  'Mamba-3, odd sizes': {
    ...MAMBA3,
    d_model: 7,
    n_layer: 3,
    d_inner: 9,
    headdim: 3,
    d_state: 6,
    rope_fraction: 1,
  },
  'Mamba-3, groups, a norm per head': { ...MAMBA3, ngroups: 2, is_outproj_norm: true },
  'Mamba-3, softplus': { ...MAMBA3, A_activation: 'softplus' as const, d_intermediate: 12 },
  'Mamba-3, two ranks': { ...MAMBA3, is_mimo: true, mimo_rank: 2 },
  'Mamba-3, three ranks, groups, a norm per head': {
    ...MAMBA3,
    is_mimo: true,
    mimo_rank: 3,
    ngroups: 2,
    is_outproj_norm: true,
    rope_fraction: 1,
  },
};

/** Needs half of the width in two heads. */
const ATTENTION = { num_heads: 2, rotary_emb_dim: 2 };

export const HYBRID_CONFIGS: Record<string, ModelConfigInput> = {
  'Mamba-1 and attention': { ...SMALL, attn_layer_idx: [0], attn_cfg: ATTENTION },
  'Mamba-2 and attention with a convolution': {
    ...MAMBA2,
    n_layer: 3,
    attn_layer_idx: [1],
    attn_cfg: {
      num_heads: 4,
      num_heads_kv: 2,
      head_dim: 6,
      d_conv: 3,
      rotary_emb_dim: 4,
      qkv_proj_bias: false,
      out_proj_bias: false,
    },
    d_intermediate: 12,
  },
  'Mamba-3 and attention with a SwiGLU beside': {
    ...MAMBA3,
    attn_layer_idx: [1],
    attn_cfg: {
      num_heads: 3,
      num_heads_kv: 1,
      head_dim: 4,
      mlp_dim: 100,
      rotary_emb_dim: 4,
      rotary_emb_interleaved: true,
      softmax_scale: 0.3,
    },
  },
  'attention alone': { ...SMALL, attn_layer_idx: [0, 1], attn_cfg: ATTENTION, d_intermediate: 12 },
};

export const CONFIGS: Record<string, ModelConfigInput> = {
  ...MAMBA1_CONFIGS,
  ...MAMBA2_CONFIGS,
  ...MAMBA3_CONFIGS,
  ...HYBRID_CONFIGS,
};
