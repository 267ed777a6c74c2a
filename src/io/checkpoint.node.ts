/**
 * A training checkpoint: a model folder that transformers can load (config.json, model.safetensors,
 * tokenizer) plus what it takes to go on: optimizer.safetensors and trainer.json. All files change as
 * one (folder.node.ts). Node only.
 */
import { ConfigError } from '../base/errors.ts';
import type { Shape } from '../base/shape.ts';
import type { ModelConfig } from '../models/config.ts';
import { type HuggingFaceOptions, toHuggingFaceConfig } from './config-json.ts';
import { expectedTensors } from './expected-tensors.ts';
import { expectPath, isPresent, readTextIfPresent } from './file.ts';
import { type FolderFile, openFolderSet, writeFolderAtomic } from './folder.node.ts';
import { formatJson, type JsonObject, parseJsonObject } from './json.ts';
import { CONFIG_FILE, TOKENIZER_FILES, WEIGHTS_FILE } from './model-files.ts';
import { openModel, openTensorFile, type Pretrained } from './pretrained.node.ts';
import { checkTensors } from './pretrained.ts';
import { safetensorsChunks, type TensorEntry } from './safetensors-write.ts';
import type { TensorFile } from './tensor-file.ts';

const OPTIMIZER_FILE = 'optimizer.safetensors';
const TRAINER_FILE = 'trainer.json';
/** Files of an earlier checkpoint that must not survive beside newer weights. */
const OPTIONAL_FILES: readonly string[] = [OPTIMIZER_FILE, TRAINER_FILE, ...TOKENIZER_FILES];

/** One tensor; `data` is called when it is written, so one at a time is in memory. */
export interface NamedTensor {
  name: string;
  shape: Shape;
  /** Its own stored type; raw bits are only for BF16 and F16. */
  dtype?: 'F32' | 'BF16' | 'F16';
  data: () => Promise<Float32Array | Uint16Array>;
}

export interface CheckpointContent extends HuggingFaceOptions {
  config: ModelConfig;
  /**
   * Exactly the tensors of `expectedTensors(config, head)`. `weights` chooses their stored type, default F32.
   */
  tensors: Iterable<NamedTensor>;
  /** The tokenizer's files by name, from TOKENIZER_FILES. */
  tokenizer?: Readonly<Record<string, string>>;
  /** Stored as F32. */
  optimizer?: Iterable<NamedTensor>;
  /** Step, random states, data position: plain data, given back as it is. */
  trainer?: JsonObject;
}

/**
 * Writes or replaces the checkpoint in `folder`; other files there stay. On
 * failure the previous one is intact.
 */
export async function saveCheckpoint(folder: string, content: CheckpointContent): Promise<void> {
  const { config, head, weights = 'F32', tokenizer = {}, optimizer, trainer } = content;
  const unknown = Object.keys(tokenizer).filter(
    (name) => !(TOKENIZER_FILES as readonly string[]).includes(name),
  );
  if (unknown.length > 0) {
    throw new ConfigError(
      `saveCheckpoint: expected tokenizer files ${TOKENIZER_FILES.join(', ')}, got ${unknown.join(', ')}. Rename them.`,
    );
  }
  const tensors = [...content.tensors];
  checkTensors(
    expectedTensors(config, head),
    new Map(tensors.map(({ name, shape }) => [name, shape])),
    folder,
  );
  const entries = (list: Iterable<NamedTensor>, dtype: TensorEntry['dtype']): TensorEntry[] =>
    [...list].map((tensor) => ({ dtype, ...tensor }));

  const files: FolderFile[] = [
    { name: CONFIG_FILE, content: formatJson(toHuggingFaceConfig(config, content)) },
    { name: WEIGHTS_FILE, content: safetensorsChunks(entries(tensors, weights), { format: 'pt' }) },
    ...Object.entries(tokenizer).map(([name, text]) => ({ name, content: text })),
  ];
  if (optimizer) files.push({ name: OPTIMIZER_FILE, content: safetensorsChunks(entries(optimizer, 'F32')) });
  if (trainer) files.push({ name: TRAINER_FILE, content: formatJson(trainer) });
  await writeFolderAtomic(folder, files, OPTIONAL_FILES);
}

export interface Checkpoint {
  /** Configuration, weights and tokenizer. */
  readonly model: Pretrained;
  /** null if the folder holds a model only. */
  readonly optimizer: TensorFile | null;
  readonly trainer: JsonObject | null;
  close(): Promise<void>;
}

/** Opens the checkpoint in `folder`, completing an interrupted save first. Close it. */
export async function loadCheckpoint(folder: string): Promise<Checkpoint> {
  await expectPath('loadCheckpoint', 'a checkpoint folder', folder);
  const names = [CONFIG_FILE, WEIGHTS_FILE, ...OPTIONAL_FILES];
  return openFolderSet(
    folder,
    names,
    () => openCheckpoint(folder),
    (checkpoint) => checkpoint.close(),
  );
}

async function openCheckpoint(folder: string): Promise<Checkpoint> {
  const trainerPath = `${folder}/${TRAINER_FILE}`;
  const trainerText = await readTextIfPresent(trainerPath);
  const trainer = trainerText === null ? null : parseJsonObject(trainerText, trainerPath);
  const model = await openModel(folder, null);
  try {
    const optimizerPath = `${folder}/${OPTIMIZER_FILE}`;
    const optimizer = (await isPresent(optimizerPath)) ? await openTensorFile(optimizerPath) : null;
    return {
      model,
      optimizer,
      trainer,
      close: async () => {
        await model.close();
        await optimizer?.close();
      },
    };
  } catch (error) {
    await model.close();
    throw error;
  }
}
