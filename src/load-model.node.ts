/** Models on disk to models on a device, and back. */
import { type DeviceName, useDevice } from './backend/backend.ts';
import { ConfigError, MambaError } from './base/errors.ts';
import type { Tokenizer } from './base/tokenizer.ts';
import { LARGEST, type WeightDType } from './base/weight-types.ts';
import { type NamedTensor, saveCheckpoint } from './io/checkpoint.node.ts';
import { loadWeights } from './io/load-weights.ts';
import { type OpenOptions, openPretrained, type Pretrained } from './io/pretrained.node.ts';
import { LanguageModel } from './models/language-model.ts';
import type { Module } from './nn/module.ts';
import { checkPrecision, PRECISIONS, type Precision } from './tensor/precision.ts';
import type { Tensor } from './tensor/tensor.ts';
import { templateFromFiles } from './text/chat-template.ts';
import { tokenizerFromFiles } from './text/tokenizer.ts';

export interface LoadModelOptions extends OpenOptions {
  /** Also becomes the current device. Default: the current one. */
  device?: DeviceName;
  /**
   * How matrices are kept in memory; everything else is f32. Default: as the file has them where
   * that is one of these (BF16, F16, GGUF's Q8_0 and Q4_0), else f32, exactly. Other conversions
   * round to nearest, as writeGguf does: with q4 the head has eight bits, and rows that 32 does not
   * divide are f16. Training needs f32.
   */
  weights?: WeightDType;
  /**
   * What projections and head compute their products in, default f32. `bf16` (for f32, bf16 and f16 weights)
   * rounds both factors to bfloat16, `int8` (for q8 and q4) rounds activations to 8 bits per block of 32;
   * other weights are multiplied as without. Both let prompts of Mamba-2 and Mamba-3 round the factors of
   * products with the state to bfloat16, where the device is faster then.
   */
  precision?: Precision;
}

/**
 * Loads a model folder (config.json, model.safetensors or its shards, tokenizer files), a weights file
 * beside its config.json, a GGUF file, or a model of a hub (`org/name`, `org/name/path/file.gguf`),
 * ready for inference: parameters collect no gradients until `model.requireGrad(true)`. Peak memory is
 * the model and a few megabytes.
 *
 * A state fits the model in every type: its fingerprint is taken from the configuration and the vectors,
 * which are f32 in each. What follows differs as the types round.
 *
 * A path that exists wins over a hub id. Files of a hub are kept in the cache that
 * Hugging Face's programs share.
 *
 * Throws FileError when something is missing, DownloadError when a hub cannot give it, FormatError
 * for files that are damaged, do not belong together, or hold NaN or infinite weights, ConfigError
 * for a configuration out of range and for a classifier (loadClassifier opens it), UnsupportedError
 * for what this version cannot do.
 */
export async function loadModel(idOrPath: string, options: LoadModelOptions = {}): Promise<LanguageModel> {
  return withPretrained('loadModel', idOrPath, options, async (files) => {
    if (!files.head) return build(files, options);
    throw new ConfigError(
      `loadModel: expected a language model, got a classifier (${files.path}). Load it with loadClassifier, or ask it with mamba-ts predict.`,
    );
  });
}

/** Checks the options, makes the device current, and opens the files while `use` reads them. */
export async function withPretrained<T>(
  op: string,
  idOrPath: string,
  options: LoadModelOptions,
  use: (files: Pretrained) => Promise<T>,
): Promise<T> {
  const { device, weights, precision = 'f32' } = options;
  if (weights !== undefined && !Object.hasOwn(LARGEST, weights)) {
    throw new ConfigError(
      `${op}: expected weights ${Object.keys(LARGEST).join(', ')}, got ${String(weights)}. Leave it out to keep the file's.`,
    );
  }
  checkPrecision(op, precision, PRECISIONS);
  if (device) await useDevice(device);
  const files = await openPretrained(idOrPath, options);
  try {
    for (const message of files.notes ?? []) options.onProgress?.({ kind: 'notice', message });
    return await use(files);
  } finally {
    await files.close();
  }
}

async function build(
  files: Pretrained,
  { weights, precision = 'f32' }: LoadModelOptions,
): Promise<LanguageModel> {
  const tokenizer = readTokenizerOf(files);
  const model = new LanguageModel(files.config, { seed: null }).requireGrad(false);
  try {
    await loadWeights(model, files, weights);
    model.precision = precision;
    model.tokenizer = tokenizer;
    model.eosId = eosIdOf(files);
    model.chatTemplate = templateFromFiles(files.tokenizer);
    await model.refreshFingerprint();
    return model;
  } catch (error) {
    model.dispose();
    throw error;
  }
}

/** Null if there is none. */
export function readTokenizerOf(files: Pretrained): Tokenizer | null {
  const { tokenizer, path } = files;
  if (!Object.keys(tokenizer).some((name) => TOKENIZERS.has(name))) return null;
  try {
    return tokenizerFromFiles(tokenizer, { eosId: eosIdOf(files) });
  } catch (error) {
    // It knows its files by name; which of all the tokenizer.json it was is known here.
    if (error instanceof MambaError) error.message += ` (the tokenizer for ${path})`;
    throw error;
  }
}

/** That of config.json; the first of several. */
function eosIdOf({ configJson }: Pretrained): number | null {
  const [eos] = [configJson.eos_token_id].flat();
  return typeof eos === 'number' ? eos : null;
}

/** The files that make a tokenizer; the others only add to it. */
const TOKENIZERS: ReadonlySet<string> = new Set(['tokenizer.json', 'mamba_tokenizer.json']);

/**
 * Writes or replaces a model folder in the Hugging Face layout (config.json, model.safetensors, tokenizer
 * files) as one atomic change. bf16 and f16 weights are stored as they are, everything else in float32,
 * exactly. Loading it gives the same fingerprint, so saved states go on working.
 */
export async function saveModel(model: LanguageModel, folder: string): Promise<void> {
  await model.refreshFingerprint();
  await saveCheckpoint(folder, {
    config: model.config,
    tensors: storedTensors(model),
    tokenizer: textFilesOf(model),
    eosId: model.tokenizer ? model.tokenizer.eosId : model.eosId,
  });
}

/** The parameters as safetensors can hold them: blocks, which it has not, in float32. */
export function storedTensors(model: Module): NamedTensor[] {
  return [...model.namedParameters()].map(([name, tensor]) => ({
    name,
    shape: tensor.shape,
    ...stored(tensor),
  }));
}

function stored(tensor: Tensor): Pick<NamedTensor, 'dtype' | 'data'> {
  const { dtype } = tensor;
  if (dtype !== 'bf16' && dtype !== 'f16') return { data: () => tensor.floats() };
  return { dtype: dtype === 'bf16' ? 'BF16' : 'F16', data: async () => (await tensor.data()) as Uint16Array };
}

/** The files of its tokenizer and its chat template, by name. */
export function textFilesOf({ tokenizer, chatTemplate }: LanguageModel): Record<string, string> {
  return { ...tokenizer?.toFiles(), ...(chatTemplate !== null && { 'chat_template.jinja': chatTemplate }) };
}
