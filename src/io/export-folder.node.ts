/**
 * Language models as folders in the layouts of other programs, each folder one atomic change;
 * one tensor at a time in memory.
 */
import { join } from 'node:path';
import { ConfigError } from '../base/errors.ts';
import { toCodestralParams } from './config-codestral.ts';
import { toOriginalConfig } from './config-original.ts';
import { isPresent } from './file.ts';
import { type FolderFile, writeFolderAtomic } from './folder.node.ts';
import { formatJson } from './json.ts';
import {
  CONFIG_FILE,
  CONSOLIDATED_FILE,
  PARAMS_FILE,
  TOKENIZER_FILES,
  TORCH_FILE,
  WEIGHTS_FILES,
} from './model-files.ts';
import type { Pretrained } from './pretrained.node.ts';
import { originalName } from './pretrained.ts';
import { safetensorsChunks } from './safetensors-write.ts';
import { torchContent } from './torch-export.ts';
import { type TorchDType, torchChunks } from './torch-write.ts';

/** What is written of a model; a Pretrained is one. */
export type FolderSource = Pick<Pretrained, 'config' | 'tensors' | 'tensor' | 'weight' | 'tokenizer'>;

/**
 * The original layout of state-spaces/mamba: config.json, pytorch_model.bin.
 * Throws what toOriginalConfig throws.
 */
export async function writeOriginalFolder(
  folder: string,
  source: FolderSource,
  dtype: TorchDType,
): Promise<void> {
  const files = [
    { name: CONFIG_FILE, content: formatJson(toOriginalConfig(source.config)) },
    { name: TORCH_FILE, content: torchChunks(torchContent(source, dtype)) },
  ];
  await writeFolder(folder, files, source, [PARAMS_FILE]);
}

/**
 * The layout of Codestral Mamba: params.json, consolidated.safetensors. Throws what toCodestralParams throws.
 */
export async function writeCodestralFolder(
  folder: string,
  source: FolderSource,
  dtype: TorchDType,
): Promise<void> {
  const entries = [...source.tensors].map(([name, shape]) => ({
    name: `model.${originalName(name)}`,
    dtype,
    shape,
    data: () => source.tensor(name),
  }));
  const files = [
    { name: PARAMS_FILE, content: formatJson(toCodestralParams(source.config)) },
    { name: CONSOLIDATED_FILE, content: safetensorsChunks(entries) },
  ];
  await writeFolder(folder, files, source, [CONFIG_FILE]);
}

/** Throws ConfigError where files of another layout would be read in the place of these, or beside them. */
async function writeFolder(
  folder: string,
  files: readonly FolderFile[],
  { tokenizer }: FolderSource,
  others: readonly string[],
): Promise<void> {
  const own = new Set(files.map(({ name }) => name));
  for (const name of [...WEIGHTS_FILES, ...others]) {
    if (own.has(name) || !(await isPresent(join(folder, name)))) continue;
    throw new ConfigError(
      `convertModel: expected a folder without a model in another layout, got ${name} in ${folder}. Choose another folder.`,
    );
  }
  const texts = Object.entries(tokenizer).map(([name, content]) => ({ name, content }));
  await writeFolderAtomic(folder, [...files, ...texts], TOKENIZER_FILES);
}
