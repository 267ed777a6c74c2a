/** Models of random weights, for measuring: as fast as trained ones, and made without reading a file. */
import type { HostArray } from '../base/dtype.ts';
import { sizeOf } from '../base/shape.ts';
import { fromFloats, type WeightDType } from '../base/weight-types.ts';
import { keptType } from '../io/kept-types.ts';
import { loadWeights, type WeightFiles } from '../io/load-weights.ts';
import { outputName } from '../io/pretrained.ts';
import { pieceRanges, type StoredWeight } from '../io/weight-pieces.ts';
import { type ModelConfig, type ModelConfigInput, resolveConfig } from '../models/config.ts';
import { LanguageModel } from '../models/language-model.ts';

/**
 * A model on the current device, its matrices kept as `weights` (default f32). All layers of a kind hold the
 * same values, so that memory is that of the model and one layer in float32.
 */
export async function randomModel(
  config: ModelConfigInput,
  options: { weights?: WeightDType; seed?: number } = {},
): Promise<LanguageModel> {
  const { weights = 'f32', seed = 0 } = options;
  const full = resolveConfig(config);
  const sample = new LanguageModel(sampleOf(full), { seed });
  const model = new LanguageModel(full, { seed: null }).requireGrad(false);
  try {
    await loadWeights(model, sampleFiles(full, sample, weights));
    await model.refreshFingerprint();
    return model;
  } catch (error) {
    model.dispose();
    throw error;
  } finally {
    sample.dispose();
  }
}

/** One layer of each kind: the first is no attention. */
function sampleOf(config: ModelConfig): ModelConfig {
  if (!config.attn_cfg) return { ...config, n_layer: 1 };
  return { ...config, n_layer: 2, attn_layer_idx: [1] };
}

function sampleFiles(config: ModelConfig, sample: LanguageModel, weights: WeightDType): WeightFiles {
  const parameters = new Map(sample.namedParameters());
  const ready = new Map<string, StoredWeight>();
  const { attn_layer_idx } = config;
  const sampleName = (name: string) =>
    name.replace(/(?<=layers\.)\d+/, (i) => (attn_layer_idx.includes(Number(i)) ? '1' : '0'));
  const stored = (name: string): StoredWeight => {
    const parameter = parameters.get(name)!;
    const { shape } = parameter;
    const size = sizeOf(shape);
    const dtype = keptType(name, shape, 'f32', weights, outputName(config));
    const rounded = new Map<number, HostArray>();
    return {
      dtype,
      size,
      storedBytes: 4 * size,
      async *pieces() {
        for (const [at, count] of pieceRanges(size)) {
          let data = rounded.get(at);
          if (!data) {
            data = fromFloats((await parameter.dataAt(at, count)) as Float32Array, dtype);
            if (dtype !== 'f32') rounded.set(at, data); // rounding takes longer than reading
          }
          yield { at, count, data };
        }
      },
    };
  };
  return {
    path: 'random weights',
    config,
    tensors: new Map([...parameters].map(([name, { shape }]) => [name, shape])),
    weight(name) {
      const key = sampleName(name);
      let weight = ready.get(key);
      if (!weight) {
        weight = stored(key);
        ready.set(key, weight);
      }
      return weight;
    },
  };
}
