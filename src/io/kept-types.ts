/** Which weights may be narrow, and in which type each is kept, in memory and in GGUF files alike. */
import { LAYOUTS } from '../base/dtype.ts';
import type { Shape } from '../base/shape.ts';
import type { WeightDType } from '../base/weight-types.ts';

/**
 * The convolution, A_log, D, norms, biases and Mamba-3's mimo_x, mimo_z and mimo_o stay float32: they are
 * small, and the recurrence amplifies their errors. So does what a classifier adds: `score` is tiny and
 * decides, LoRA's A and B are trained or merged.
 */
const MATRIX = /(^|\.)(lm_head|embeddings|in_proj|x_proj|dt_proj|out_proj|fc1|fc2)\.weight$/;

/**
 * The type of a tensor that is stored as `stored` when `weights` is asked for; undefined means as it is
 * stored. What is stored in the wanted type stays as it is. Otherwise `outputName` (the tied embedding, or
 * lm_head; null in a classifier, whose embedding is only read from) keeps eight bits in a model of four,
 * because it decides every token, and rows that are not whole blocks are f16.
 */
export function keptType(
  name: string,
  shape: Shape,
  stored: WeightDType,
  weights: WeightDType | undefined,
  outputName: string | null,
): WeightDType {
  if (!MATRIX.test(name)) return 'f32';
  if (weights === undefined || weights === stored) return stored;
  const wanted = weights === 'q4' && name === outputName ? 'q8' : weights;
  return shape.at(-1)! % LAYOUTS[wanted].block === 0 ? wanted : 'f16';
}
