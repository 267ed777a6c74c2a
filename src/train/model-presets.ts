/**
 * Model shapes by name; the vocabulary comes from the tokenizer. Those of four sizes fit every architecture,
 * those with the names of official models say their architecture too. (Of mamba3-siso-443m and above the
 * width of the MLPs follows from the number in the name.)
 */
import type { ModelConfigInput } from '../models/config.ts';

/** A configuration without its vocabulary. */
export type ModelShape = WithoutVocabulary<ModelConfigInput>;
type WithoutVocabulary<T> = T extends unknown ? Omit<T, 'vocab_size'> : never;

/** What mamba2attn-2.7b has: 30 heads of 128 are more than the width, and half of each is rotated. */
const ATTENTION_2_7B = {
  num_heads: 30,
  head_dim: 128,
  rotary_emb_dim: 64,
  d_conv: 4,
  qkv_proj_bias: false,
  out_proj_bias: false,
};

export const PRESETS = {
  tiny: { d_model: 64, n_layer: 2 },
  small: { d_model: 128, n_layer: 4 },
  medium: { d_model: 256, n_layer: 6 },
  large: { d_model: 512, n_layer: 12 },
  'mamba-130m': { model_type: 'mamba1', d_model: 768, n_layer: 24 },
  'mamba-370m': { model_type: 'mamba1', d_model: 1024, n_layer: 48 },
  'mamba-790m': { model_type: 'mamba1', d_model: 1536, n_layer: 48 },
  'mamba-1.4b': { model_type: 'mamba1', d_model: 2048, n_layer: 48 },
  'mamba-2.8b': { model_type: 'mamba1', d_model: 2560, n_layer: 64 },
  'mamba2-130m': { model_type: 'mamba2', d_model: 768, n_layer: 24, pad_vocab_size_multiple: 16 },
  'mamba2-370m': { model_type: 'mamba2', d_model: 1024, n_layer: 48, pad_vocab_size_multiple: 16 },
  'mamba2-780m': { model_type: 'mamba2', d_model: 1536, n_layer: 48, pad_vocab_size_multiple: 16 },
  'mamba2-1.3b': { model_type: 'mamba2', d_model: 2048, n_layer: 48, pad_vocab_size_multiple: 16 },
  'mamba2-2.7b': { model_type: 'mamba2', d_model: 2560, n_layer: 64, pad_vocab_size_multiple: 16 },
  'mamba2attn-2.7b': {
    model_type: 'mamba2',
    d_model: 2560,
    n_layer: 64,
    pad_vocab_size_multiple: 16,
    attn_layer_idx: [9, 18, 27, 36, 45, 56],
    attn_cfg: ATTENTION_2_7B,
  },
  'mamba3-siso-187m': { model_type: 'mamba3', d_model: 768, n_layer: 12, d_intermediate: 1536 },
  'mamba3-siso-443m': { model_type: 'mamba3', d_model: 1024, n_layer: 24, d_intermediate: 2048 },
  'mamba3-siso-893m': { model_type: 'mamba3', d_model: 1536, n_layer: 24, d_intermediate: 3072 },
  'mamba3-siso-1.5b': { model_type: 'mamba3', d_model: 2048, n_layer: 24, d_intermediate: 4096 },
  'mamba3-mimo-187m': {
    model_type: 'mamba3',
    d_model: 768,
    n_layer: 12,
    d_intermediate: 1264,
    is_mimo: true,
    mimo_rank: 4,
  },
} as const satisfies Record<string, ModelShape>;

export type Preset = keyof typeof PRESETS;
