/** How many roundings stand between the weights and the outputs of a model: what two ways of computing it may differ by. */
import type { ModelConfig } from '../../src/models/config.ts';
import { gatedMlpWidth } from '../../src/nn/layers.ts';

/**
 * The most roundings between a weight and a logit: the terms of each sum, the roundings of each function (at most 10 per
 * exponential, one per product), and for a state the decays of all tokens after it.
 */
export function roundings(config: ModelConfig, length: number): number {
  const { d_model: d, n_layer, d_intermediate, attn_layer_idx } = config;
  const norm = d + 6;
  const mlp = d_intermediate > 0 ? norm + d + 10 + gatedMlpWidth(d_intermediate) : 0;
  let sum = d + n_layer * (norm + mlp + 2) + norm;
  for (let i = 0; i < n_layer; i++)
    sum += attn_layer_idx.includes(i) ? ofAttention(config, length) : ofMixer(config, length);
  return sum;
}

function ofMixer(config: ModelConfig, length: number): number {
  const { d_model: d, d_inner: e, d_state: n } = config;
  if (config.model_type === 'mamba1') {
    const { d_conv: k, dt_rank: r } = config;
    return d + 1 + (k + 10) + e + (r + 10) + (n + 10 * length) + (e + 10);
  }
  if (config.model_type === 'mamba2') {
    const { d_conv: k, d_ssm, norm_groups } = config;
    const norm = d_ssm / norm_groups + 6;
    // dt; the products within a chunk; the state; the skip; the gate.
    return d + 1 + (k + 10) + 12 + (n + length) + (n + 10 * length) + 2 + 12 + norm + e;
  }
  const { headdim: p, mimo_rank: r } = config;
  // B and C normalised, biased and turned by an angle that is a sum over the tokens; dt, A, lambda; the norm per head; the ranks.
  return (
    d + (n + 6) + 1 + (16 + 12 * length) + 36 + r * (n + length) + (n + 10 * length) + 2 + (p + 18) + r + e
  );
}

/** Scores, their softmax, the mean of the values. */
function ofAttention(config: ModelConfig, length: number): number {
  const { num_heads, head_dim, d_conv, mlp_dim } = config.attn_cfg!;
  const softmax = 10 + length;
  return (
    config.d_model +
    1 +
    (d_conv + 10) +
    8 +
    (head_dim + 2) +
    softmax +
    length +
    num_heads * head_dim +
    mlp_dim
  );
}
