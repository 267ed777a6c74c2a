/** Models on disk to models on a device, and back. */
import { stat } from 'node:fs/promises';
import { type DeviceName, useDevice } from './backend/backend.ts';
import { FormatError, UnsupportedError } from './base/errors.ts';
import { saveCheckpoint } from './io/checkpoint.node.ts';
import { describeNonFinite, type NonFinite, reportNonFinite } from './io/non-finite.ts';
import { openPretrained, type Pretrained } from './io/pretrained.node.ts';
import { LanguageModel } from './models/language-model.ts';
import { tokenizerFromFiles } from './text/tokenizer.ts';

export interface LoadModelOptions {
  /** Also becomes the current device. Default: the current one. */
  device?: DeviceName;
  /** How the weights are kept in memory, whatever the file holds. Only f32 for now. */
  weights?: 'f32' | 'bf16' | 'f16' | 'q8' | 'q4';
}

/**
 * Loads a model folder (config.json, model.safetensors or its shards, tokenizer files), a weights file beside its config.json, or a
 * GGUF file, ready for inference: parameters collect no gradients until `model.requireGrad(true)`. Peak memory is the model and one
 * tensor.
 *
 * Throws FileError when something is missing, FormatError for files that are damaged, do not belong together, or hold
 * NaN or infinite weights, ConfigError for a configuration out of range, UnsupportedError for what this version cannot do.
 */
export async function loadModel(path: string, options: LoadModelOptions = {}): Promise<LanguageModel> {
  const { device, weights = 'f32' } = options;
  if (weights !== 'f32') {
    throw new UnsupportedError(
      `loadModel: expected weights f32, got ${String(weights)}. Narrow weights are not there yet; leave the option out.`,
    );
  }
  await refuseHubId(path);
  if (device) await useDevice(device);
  const files = await openPretrained(path);
  try {
    return await build(files);
  } finally {
    await files.close();
  }
}

async function build(files: Pretrained): Promise<LanguageModel> {
  const [eos] = [files.configJson.eos_token_id].flat();
  const tokenizer = Object.keys(files.tokenizer).some((name) => TOKENIZERS.has(name))
    ? tokenizerFromFiles(files.tokenizer, { eosId: typeof eos === 'number' ? eos : null })
    : null;
  const model = new LanguageModel(files.config, { seed: null }).requireGrad(false);
  try {
    const reports: NonFinite[] = [];
    for (const [name, parameter] of model.namedParameters()) {
      const values = await files.tensor(name);
      const report = reportNonFinite(name, values);
      if (report) reports.push(report);
      parameter.write(values);
    }
    if (reports.length > 0) {
      throw new FormatError(
        `loadModel: expected finite weights in ${files.path}, got ${describeNonFinite(reports)}. ` +
          'The training diverged or the file is damaged; use an earlier checkpoint.',
      );
    }
    model.tokenizer = tokenizer;
    await model.refreshFingerprint();
    return model;
  } catch (error) {
    model.dispose();
    throw error;
  }
}

/** The files that make a tokenizer; the others only add to it. */
const TOKENIZERS: ReadonlySet<string> = new Set(['tokenizer.json', 'mamba_tokenizer.json']);

/** `org/name` that is not a path means a model on a hub. */
async function refuseHubId(path: string): Promise<void> {
  if (!/^[\w.-]+\/[\w.-]+$/.test(path) || path.startsWith('.')) return;
  if (await stat(path).catch(() => null)) return;
  throw new UnsupportedError(
    `loadModel: expected a folder or a file, got nothing at ${path}. If it is the name of a model on a hub: ` +
      'download its folder first, this version loads from disk only.',
  );
}

/**
 * Writes or replaces a model folder in the Hugging Face layout (config.json, model.safetensors in float32, tokenizer files) as one
 * atomic change. Loading it gives the same fingerprint, so saved states go on working.
 */
export async function saveModel(model: LanguageModel, folder: string): Promise<void> {
  const parameters = [...model.namedParameters()];
  await model.refreshFingerprint();
  await saveCheckpoint(folder, {
    config: model.config,
    tensors: parameters.map(([name, tensor]) => ({
      name,
      shape: tensor.shape,
      data: () => tensor.floats(),
    })),
    tokenizer: model.tokenizer?.toFiles() ?? {},
    eosId: model.tokenizer?.eosId ?? null,
  });
}
