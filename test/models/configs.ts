/** Small configurations that reach every branch of the language model; the vocabulary is padded in all of them. */
import type { ModelConfigInput } from '../../src/models/config.ts';

const SMALL = { vocab_size: 11, d_model: 8, n_layer: 2, d_state: 4 };

export const CONFIGS: Record<string, ModelConfigInput> = {
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
