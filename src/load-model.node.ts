/** Models on disk to models on a device, and back. */
import { type DeviceName, useDevice } from './backend/backend.ts';
import { FormatError, UnsupportedError } from './base/errors.ts';
import { saveCheckpoint } from './io/checkpoint.node.ts';
import type { LocateOptions } from './io/locate.node.ts';
import { describeNonFinite, type NonFinite, reportNonFinite } from './io/non-finite.ts';
import { openPretrained, type Pretrained } from './io/pretrained.node.ts';
import { LanguageModel } from './models/language-model.ts';
import { templateFromFiles } from './text/chat-template.ts';
import { tokenizerFromFiles } from './text/tokenizer.ts';

export interface LoadModelOptions extends LocateOptions {
  /** Also becomes the current device. Default: the current one. */
  device?: DeviceName;
  /** How the weights are kept in memory, whatever the file holds. Only f32 for now. */
  weights?: 'f32' | 'bf16' | 'f16' | 'q8' | 'q4';
}

/**
 * Loads a model folder (config.json, model.safetensors or its shards, tokenizer files), a weights file beside its config.json, a
 * GGUF file, or a model of a hub (`org/name`, `org/name/path/file.gguf`), ready for inference: parameters collect no gradients until
 * `model.requireGrad(true)`. Peak memory is the model and one tensor.
 *
 * A path that exists wins over a hub id. Files of a hub are kept in the cache that Hugging Face's programs share.
 *
 * Throws FileError when something is missing, DownloadError when a hub cannot give it, FormatError for files that are damaged, do not
 * belong together, or hold NaN or infinite weights, ConfigError for a configuration out of range, UnsupportedError for what this
 * version cannot do.
 */
export async function loadModel(idOrPath: string, options: LoadModelOptions = {}): Promise<LanguageModel> {
  const { device, weights = 'f32' } = options;
  if (weights !== 'f32') {
    throw new UnsupportedError(
      `loadModel: expected weights f32, got ${String(weights)}. Narrow weights are not there yet; leave the option out.`,
    );
  }
  if (device) await useDevice(device);
  const files = await openPretrained(idOrPath, options);
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
    model.chatTemplate = templateFromFiles(files.tokenizer);
    await model.refreshFingerprint();
    return model;
  } catch (error) {
    model.dispose();
    throw error;
  }
}

/** The files that make a tokenizer; the others only add to it. */
const TOKENIZERS: ReadonlySet<string> = new Set(['tokenizer.json', 'mamba_tokenizer.json']);

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
    tokenizer: textFilesOf(model),
    eosId: model.tokenizer?.eosId ?? null,
  });
}

/** The files of its tokenizer and its chat template, by name. */
export function textFilesOf({ tokenizer, chatTemplate }: LanguageModel): Record<string, string> {
  return { ...tokenizer?.toFiles(), ...(chatTemplate !== null && { 'chat_template.jinja': chatTemplate }) };
}
