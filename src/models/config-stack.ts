/**
 * The part of a configuration that all architectures share: the stack of blocks
 * (mamba_ssm/models/config_mamba.py).
 */
import { ATTENTION_WIDTH } from '../ops/attention.ts';
import type { ConfigCheck } from './config-check.ts';

/** An attention layer (the constructor arguments of mamba_ssm/modules/mha.py). */
export interface AttentionConfig {
  num_heads: number;
  /**
   * Heads of keys and values, each shared by num_heads / num_heads_kv query heads; num_heads unless given.
   */
  num_heads_kv: number;
  /** d_model / num_heads unless given; at most ATTENTION_WIDTH. */
  head_dim: number;
  /**
   * Rows of a parallel SwiGLU branch (half values, half gates), rounded up to a multiple of 256; 0 = none.
   */
  mlp_dim: number;
  /** Width of a causal convolution over queries, keys and values; 0 = none. */
  d_conv: number;
  /** Elements of each head that are rotated by position; 0 = none. */
  rotary_emb_dim: number;
  rotary_emb_base: number;
  /** Rotated pairs are neighbours instead of halves. */
  rotary_emb_interleaved: boolean;
  qkv_proj_bias: boolean;
  out_proj_bias: boolean;
  /** 1 / sqrt(head_dim) when null. */
  softmax_scale: number | null;
  /** A language model looks back only. */
  causal: true;
}

export type AttentionInput = Pick<AttentionConfig, 'num_heads'> &
  Partial<Omit<AttentionConfig, 'causal'>> & { causal?: boolean };

export interface StackConfig {
  d_model: number;
  n_layer: number;
  /** Real vocabulary; ids from here to the padded size exist in the embedding but are never sampled. */
  vocab_size: number;
  /** The embedding has ceil(vocab_size / m) * m rows. */
  pad_vocab_size_multiple: number;
  /** RMSNorm, else LayerNorm with bias. */
  rms_norm: boolean;
  norm_eps: number;
  /** Hidden width of the gated MLP after each mixer; 0 = none. */
  d_intermediate: number;
  tie_embeddings: boolean;
  /** Layers whose mixer is attention, in order. */
  attn_layer_idx: readonly number[];
  /** Null without attention layers. */
  attn_cfg: AttentionConfig | null;
}

/** What a caller must give of the stack; the rest has the official defaults. */
export type StackInput = Pick<StackConfig, 'd_model' | 'n_layer' | 'vocab_size'> &
  Partial<Omit<StackConfig, 'attn_cfg'>> & { attn_cfg?: AttentionInput | null };

export function resolveStack(input: StackInput, check: ConfigCheck): StackConfig {
  const { attn_layer_idx = [] } = input;
  const attends = Array.isArray(attn_layer_idx) && attn_layer_idx.length > 0;
  const stack: StackConfig = {
    d_model: input.d_model,
    n_layer: input.n_layer,
    vocab_size: input.vocab_size,
    pad_vocab_size_multiple: input.pad_vocab_size_multiple ?? 8,
    rms_norm: input.rms_norm ?? true,
    norm_eps: input.norm_eps ?? 1e-5,
    d_intermediate: input.d_intermediate ?? 0,
    tie_embeddings: input.tie_embeddings ?? true,
    attn_layer_idx,
    attn_cfg: attends ? resolveAttention(input.d_model, input.attn_cfg ?? null, check) : null,
  };
  check.positiveIntegers(stack, 'd_model', 'n_layer', 'vocab_size', 'pad_vocab_size_multiple');
  check.positiveNumbers(stack, 'norm_eps');
  check.booleans(stack, 'rms_norm', 'tie_embeddings');
  check.naturals(stack, 'd_intermediate');
  const isOrdered = (at: number, i: number) =>
    Number.isInteger(at) &&
    at < input.n_layer &&
    at >= 0 &&
    (i === 0 || (attn_layer_idx.indexOf(at) === i && at > attn_layer_idx[i - 1]!));
  if (!Array.isArray(attn_layer_idx) || !attn_layer_idx.every(isOrdered)) {
    check.problems.push(
      `attn_layer_idx must be ascending layers in [0, ${input.n_layer}), got ${JSON.stringify(attn_layer_idx)}`,
    );
  }
  return stack;
}

function resolveAttention(
  d_model: number,
  input: AttentionInput | null,
  check: ConfigCheck,
): AttentionConfig | null {
  if (!input) {
    check.problems.push('attn_cfg must tell num_heads for the layers of attn_layer_idx, got none');
    return null;
  }
  const config = {
    num_heads: input.num_heads,
    num_heads_kv: input.num_heads_kv ?? input.num_heads,
    head_dim: input.head_dim ?? d_model / input.num_heads,
    mlp_dim: input.mlp_dim ?? 0,
    d_conv: input.d_conv ?? 0,
    rotary_emb_dim: input.rotary_emb_dim ?? 0,
    rotary_emb_base: input.rotary_emb_base ?? 10_000,
    rotary_emb_interleaved: input.rotary_emb_interleaved ?? false,
    qkv_proj_bias: input.qkv_proj_bias ?? true,
    out_proj_bias: input.out_proj_bias ?? true,
    softmax_scale: input.softmax_scale ?? null,
    causal: input.causal ?? true,
  };
  const own = check.inside('attn_cfg');
  own.positiveIntegers(config, 'num_heads', 'num_heads_kv', 'head_dim');
  own.naturals(config, 'mlp_dim', 'd_conv', 'rotary_emb_dim');
  own.positiveNumbers(config, 'rotary_emb_base');
  own.booleans(config, 'rotary_emb_interleaved', 'qkv_proj_bias', 'out_proj_bias');
  own.oneOf(config, 'causal', [true]);
  if (config.softmax_scale !== null) own.positiveNumbers(config, 'softmax_scale');
  own.divides(config, 'num_heads_kv', 'num_heads', config.num_heads);
  own.unknown(input, config);
  if (config.head_dim > ATTENTION_WIDTH)
    check.problems.push(`attn_cfg.head_dim must be at most ${ATTENTION_WIDTH}, got ${config.head_dim}`);
  if (config.rotary_emb_dim % 2 !== 0 || config.rotary_emb_dim > config.head_dim) {
    check.problems.push(
      `attn_cfg.rotary_emb_dim must be even and at most head_dim ${config.head_dim}, got ${config.rotary_emb_dim}`,
    );
  }
  return { ...config, causal: true };
}
