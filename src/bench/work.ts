/**
 * What a model has to do at least: operations of its products and of its recurrence, and the bytes of its
 * weights. Norms, gates and convolutions are left out; they are small beside these.
 */
import { isNarrow } from '../base/weight-types.ts';
import type { LanguageModel } from '../models/language-model.ts';

/** Of one token, a multiply-add counted as two operations. */
export interface Work {
  /** Products of the layers. */
  layers: number;
  /** The product of the head. */
  head: number;
  /** The recurrence, with exponentials where each element of the state has its own. */
  recurrence: number;
  /** Attention, for every token that it looks back on. */
  attention: number;
  /**
   * All weights that a token reads, as they are stored: of an embedding that is not the
   * head one row counts as nothing.
   */
  weightBytes: number;
  /** Elements of all weights. */
  parameters: number;
  /** The narrowest type among the matrices. */
  weights: 'f32' | 'bf16' | 'f16' | 'q8' | 'q4';
}

/** Products by all rows of the weight. */
const MATRIX = /(^|\.)(in_proj|x_proj|dt_proj|out_proj|fc1|fc2)\.weight$/;
const EMBEDDING = 'backbone.embeddings.weight';

/** An exponential by a polynomial: range reduction, five multiply-adds, scaling. */
const EXP_OPERATIONS = 16;

export function workOf(model: LanguageModel): Work {
  const work: Work = {
    layers: 0,
    head: 0,
    recurrence: recurrenceOf(model),
    attention: 0,
    weightBytes: 0,
    parameters: 0,
    weights: 'f32',
  };
  const headName = model.lm_head ? 'lm_head.weight' : EMBEDDING;
  for (const [name, { size, sizeBytes, dtype }] of model.namedParameters()) {
    work.parameters += size;
    if (name === headName) work.head += 2 * size;
    else if (MATRIX.test(name)) work.layers += 2 * size;
    if (name === headName || name !== EMBEDDING) work.weightBytes += sizeBytes;
    if (MATRIX.test(name) && isNarrow(dtype)) work.weights = dtype;
  }
  const { attn_cfg, attn_layer_idx } = model.config;
  if (attn_cfg) work.attention = attn_layer_idx.length * 4 * attn_cfg.num_heads * attn_cfg.head_dim;
  return work;
}

/**
 * Per element of the state: Mamba-1 forms dt A and its exponential, dt B x, decays, adds, and multiplies with
 * C; the decay of Mamba-2 and -3 is one number per head. Mamba-3 adds the input of two tokens, and has
 * several inputs and outputs where its rank says so.
 */
function recurrenceOf({ config, stateShapes }: LanguageModel): number {
  const elements = stateShapes.reduce((sum, { ssm }) => {
    return sum + (ssm ?? [0]).reduce<number>((size, axis) => size * Number(axis), 1);
  }, 0);
  if (config.model_type === 'mamba1') return elements * (6 + EXP_OPERATIONS);
  if (config.model_type === 'mamba2') return elements * 5;
  return elements * (1 + 6 * config.mimo_rank);
}
