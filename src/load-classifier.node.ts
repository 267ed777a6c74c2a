/** Classifiers on disk to classifiers on a device, and back. */
import { ConfigError } from './base/errors.ts';
import { saveCheckpoint } from './io/checkpoint.node.ts';
import { loadWeights, narrowWeights } from './io/load-weights.ts';
import type { Pretrained } from './io/pretrained.node.ts';
import { type LoadModelOptions, readTokenizerOf, storedTensors, withPretrained } from './load-model.node.ts';
import { Classifier } from './models/classifier.ts';
import type { ClassifierHead } from './models/classifier-config.ts';
import { addLora, loraParameters, mergeLora } from './nn/lora.ts';

/**
 * Loads a classifier's folder, or one of a hub, ready for inference: parameters collect no gradients until
 * `classifier.requireGrad(true)`. LoRA adapters that stand in the file are merged into their weights, and `config.lora` is null: then
 * everything is read as f32, and rounded to `weights` after merging where that is given.
 *
 * Throws what loadModel throws, and ConfigError for a language model.
 */
export async function loadClassifier(idOrPath: string, options: LoadModelOptions = {}): Promise<Classifier> {
  return withPretrained('loadClassifier', idOrPath, options, async (files) => {
    if (files.head) return build(files, files.head, options.weights);
    throw new ConfigError(
      `loadClassifier: expected a classifier, got a language model (${files.path}). Load it with loadModel, or train a classifier from it: mamba-ts train classify --from ${idOrPath}.`,
    );
  });
}

async function build(
  files: Pretrained,
  head: ClassifierHead,
  weights: LoadModelOptions['weights'],
): Promise<Classifier> {
  const tokenizer = readTokenizerOf(files);
  const { lora } = head;
  const classifier = new Classifier({ ...head, lora: null, backbone: files.config }, { seed: null });
  try {
    if (lora) addLora(classifier, lora, { rng: null, samples: [] });
    await loadWeights(classifier.requireGrad(false), files, lora ? 'f32' : weights);
    if (lora) {
      mergeLora(classifier);
      if (weights) await narrowWeights(classifier, weights);
    }
    classifier.tokenizer = tokenizer;
    await classifier.refreshFingerprint();
    return classifier;
  } catch (error) {
    classifier.dispose();
    throw error;
  }
}

/**
 * Writes or replaces a classifier's folder (config.json, model.safetensors, tokenizer files) as one atomic change, with the adapters
 * that stand beside its weights. bf16 and f16 weights are stored as they are, everything else in float32, exactly.
 */
export async function saveClassifier(classifier: Classifier, folder: string): Promise<void> {
  const { config, tokenizer } = classifier;
  const isAdapted = !loraParameters(classifier).next().done;
  await saveCheckpoint(folder, {
    config: config.backbone,
    head: { ...config, lora: isAdapted ? config.lora : null },
    tensors: storedTensors(classifier),
    tokenizer: tokenizer?.toFiles(),
    eosId: tokenizer?.eosId ?? null,
  });
}
