/** Classifiers on disk to classifiers on a device, and back. */
import { join, resolve } from 'node:path';
import { ConfigError } from './base/errors.ts';
import { openAdapter } from './io/adapter.node.ts';
import { ADAPTER_CONFIG_FILE, applyAdapter } from './io/adapter.ts';
import { saveCheckpoint } from './io/checkpoint.node.ts';
import { FileError, isPresent } from './io/file.ts';
import { DownloadError } from './io/http.node.ts';
import { basePaths, loadPart, loadWeights, narrowWeights } from './io/load-weights.ts';
import { CONFIG_FILE } from './io/model-files.ts';
import {
  hasTokenizer,
  type OpenOptions,
  openPretrained,
  type Pretrained,
  readTokenizer,
} from './io/pretrained.node.ts';
import { type LoadModelOptions, readTokenizerOf, storedTensors, withPretrained } from './load-model.node.ts';
import { Classifier } from './models/classifier.ts';
import type { ClassifierHead } from './models/classifier-config.ts';
import { addLora, loraParameters, mergeLora } from './nn/lora.ts';

const OP = 'loadClassifier';

/**
 * Loads a classifier's folder, or one of a hub, ready for inference: parameters collect no gradients until
 * `classifier.requireGrad(true)`. Adapters are merged into their weights, and `config.lora` is null: whether
 * they stand in the file, or the folder holds an adapter alone (adapter_config.json), whose
 * base_model_name_or_path is a path, seen from that folder, or a hub id. Then everything is read as f32, and
 * rounded to `weights` after merging where that is given.
 *
 * Throws what loadModel throws, and ConfigError for a language model, and for an adapter that does
 * not say its base or its labels.
 */
export async function loadClassifier(idOrPath: string, options: LoadModelOptions = {}): Promise<Classifier> {
  if (await isAdapter(idOrPath)) return loadAdapted(idOrPath, options);
  return withPretrained(OP, idOrPath, options, async (files) => {
    if (!files.head) {
      throw new ConfigError(
        `${OP}: expected a classifier, got a language model (${files.path}). Load it with loadModel, or train a classifier from it: mamba-ts train classify --from ${idOrPath}.`,
      );
    }
    const { lora } = files.head;
    return build(files, files.head, options, async (classifier) => {
      if (lora) addLora(classifier, lora, { rng: null, samples: [] });
      await loadWeights(classifier, files, lora ? 'f32' : options.weights);
    });
  });
}

/**
 * Which of loadModel and loadClassifier opens it. Reads headers, fetches a hub's model, and throws
 * as these do when there is none.
 */
export async function modelKind(
  idOrPath: string,
  options: OpenOptions = {},
): Promise<'language model' | 'classifier'> {
  if (await isAdapter(idOrPath)) return 'classifier';
  const files = await openPretrained(idOrPath, options);
  await files.close();
  return files.head ? 'classifier' : 'language model';
}

/** `fill` gives every parameter its values; adapters it leaves are merged. */
async function build(
  files: Pretrained,
  head: ClassifierHead,
  { weights, precision = 'f32' }: LoadModelOptions,
  fill: (classifier: Classifier) => Promise<void>,
): Promise<Classifier> {
  const tokenizer = readTokenizerOf(files);
  const classifier = new Classifier({ ...head, lora: null, backbone: files.config }, { seed: null });
  try {
    await fill(classifier);
    mergeLora(classifier);
    if (head.lora && weights) await narrowWeights(classifier, weights);
    classifier.precision = precision;
    classifier.tokenizer = tokenizer;
    await classifier.requireGrad(false).refreshFingerprint();
    return classifier;
  } catch (error) {
    classifier.dispose();
    throw error;
  }
}

/** A folder that holds an adapter and no model. */
async function isAdapter(path: string): Promise<boolean> {
  return (await isPresent(join(path, ADAPTER_CONFIG_FILE))) && !(await isPresent(join(path, CONFIG_FILE)));
}

async function loadAdapted(folder: string, options: LoadModelOptions): Promise<Classifier> {
  const adapter = await openAdapter(folder);
  if (adapter.base === null) {
    throw new ConfigError(
      `${OP}: expected base_model_name_or_path in ${folder}/${ADAPTER_CONFIG_FILE}, got none. Write there where the model is that the adapter stands beside.`,
    );
  }
  const beside = resolve(folder, adapter.base);
  const base = (await isPresent(beside)) ? beside : adapter.base;
  // Its own tokenizer, if it has one, is the one it was trained with.
  const own = hasTokenizer(await readTokenizer(folder)) ? folder : undefined;
  const load = async (files: Pretrained): Promise<Classifier> => {
    const head = adapter.head ?? (files.head && { ...files.head, lora: adapter.lora });
    if (!head) {
      throw new ConfigError(
        `${OP}: expected the labels under mamba_ts in ${folder}/${ADAPTER_CONFIG_FILE}, got none, and its base is a language model (${files.path}). Add them as in the config.json of a classifier.`,
      );
    }
    if (files.head?.lora) {
      throw new ConfigError(
        `${OP}: expected a base without adapters beside the adapter ${folder}, got one with (${files.path}). Load and save it first, which merges them.`,
      );
    }
    return build(files, head, options, async (classifier) => {
      const paths = basePaths(files);
      for (const [i, stack] of classifier.stacks.entries()) await loadPart(stack, paths[i]!, files, 'f32');
      if (!adapter.tensors.has('score.weight') && files.head)
        await loadPart(classifier.score, 'score', files, 'f32');
      const found = await classifier.baseFingerprint();
      if (adapter.fingerprint !== null && adapter.fingerprint !== found) {
        throw new ConfigError(
          `${OP}: expected the weights that the adapter ${folder} was trained beside (${adapter.fingerprint}), got others in ${files.path} (${found}). ` +
            `Write in ${folder}/${ADAPTER_CONFIG_FILE} where that model is now.`,
        );
      }
      applyAdapter(classifier, adapter);
    });
  };
  try {
    return await withPretrained(OP, base, { ...options, tokenizer: options.tokenizer ?? own }, load);
  } catch (error) {
    if (error instanceof FileError || error instanceof DownloadError)
      error.message += ` (the base of the adapter ${folder}; base_model_name_or_path in its ${ADAPTER_CONFIG_FILE} says where it is)`;
    throw error;
  }
}

/**
 * Writes or replaces a classifier's folder (config.json, model.safetensors, tokenizer files) as one atomic
 * change, with the adapters that stand beside its weights. bf16 and f16 weights are stored as they are,
 * everything else in float32, exactly.
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
