/**
 * A language model on disk or in memory as the tensors of a pytorch_model.bin, under the names of the
 * original layout (state-spaces/mamba): as ours, but for `backbone.embedding`, and with lm_head.weight
 * even where it is the embedding.
 */
import type { WeightDType } from '../base/weight-types.ts';
import type { ModelConfig } from '../models/config.ts';
import { EMBEDDINGS, expectedTensors, LM_HEAD } from './expected-tensors.ts';
import { originalName } from './pretrained.ts';
import type { TorchAlias, TorchDType, TorchEntry } from './torch-write.ts';
import { type StoredWeight, weightBytes } from './weight-pieces.ts';

/** What an export needs of a model; a Pretrained is one. */
export interface TorchSource {
  readonly config: ModelConfig;
  weight(name: string): StoredWeight;
}

const DTYPES: Readonly<Record<TorchDType, WeightDType>> = { F32: 'f32', BF16: 'bf16', F16: 'f16' };

/**
 * All tensors in one type, for torchChunks. Writing throws FormatError for weights that are
 * not finite or too large for it.
 */
export function torchContent(source: TorchSource, dtype: TorchDType): (TorchEntry | TorchAlias)[] {
  const entries: (TorchEntry | TorchAlias)[] = [];
  for (const [ours, shape] of expectedTensors(source.config)) {
    entries.push({
      name: originalName(ours),
      dtype,
      shape,
      bytes: () => weightBytes(source.weight(ours), DTYPES[dtype], ours),
    });
  }
  if (source.config.tie_embeddings) entries.push({ name: LM_HEAD, sameAs: originalName(EMBEDDINGS) });
  return entries;
}
